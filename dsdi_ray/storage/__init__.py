"""Every file format that the project reads or writes."""
