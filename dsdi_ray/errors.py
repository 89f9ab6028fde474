"""The exception tree: every error that the package raises on purpose.

A :class:`UserError` is a mistake that the user can mend; the command line prints it in one line
and exits with 2. Messages say what, where, the rule and the value that broke it.
"""


class DsdiError(Exception):
    """Root of all errors raised on purpose."""


class UserError(DsdiError):
    """Something that the user gave is wrong: an argument, a file, a machine without a GPU."""


class ConfigError(UserError):
    """A recipe or an option has an unknown key or a value out of range."""


class DataError(UserError):
    """A file or a folder does not hold what it should."""


class TaxonomyError(UserError):
    """A taxonomy is invalid, or two artifacts of different taxonomies were mixed."""


class ResourceError(UserError):
    """The machine or cluster lacks what was asked for."""


class DecodeError(DsdiError):
    """A clip gives no frame; becomes the clip's outcome, never the end of a job."""


class StoreError(DsdiError):
    """A store cannot be written or read now, though nothing that was given is wrong.

    A full disk, an object store that does not answer, maintenance that runs already.
    """


class FetchError(DsdiError):
    """A file cannot be had now, or is no longer the one that was indexed; another try may do."""
