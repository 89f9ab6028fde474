"""Find disaster scenes in archives of aerial video, on Ray."""

__version__ = "0.1.0"
