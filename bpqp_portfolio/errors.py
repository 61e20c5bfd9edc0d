"""The one family of exceptions: each message says what was wrong, where, and what to do."""


class BPQPError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(BPQPError, ValueError):
    """A setting is unknown, missing or outside its range."""


class DataError(BPQPError, ValueError):
    """Market data cannot be used as they are."""


class ProviderError(DataError):
    """A Qlib provider is absent, unreadable or incomplete."""


class DownloadError(DataError):
    """A download failed, was cut short or did not verify."""


class StorageError(DataError, OSError):
    """A file or folder cannot be written: the disk is full, read-only or forbidden."""


class ProblemError(BPQPError, ValueError):
    """An optimisation problem is malformed: shape, finiteness or bounds."""


class SolverError(BPQPError, RuntimeError):
    """A solver did not return an acceptable point."""


class SolverNotInstalledError(BPQPError, ImportError):
    """A solver was asked for by name whose package is not installed."""
