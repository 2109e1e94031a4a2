"""Errors whose message says what is wrong, why, and what to type instead.

The command line prints a `FedclError` as one clear line and exits with 2; anything else is a
defect of fedcl and keeps its traceback.
"""


class FedclError(Exception):
    """Something that a user can put right."""


class ConfigError(FedclError):
    """An option, a key or a combination of options that cannot work."""


class DataError(FedclError):
    """A data set that is missing, malformed or inconsistent."""


class ScenarioError(FedclError):
    """A partition or a stream that cannot be made from these labels."""


class DistillError(FedclError):
    """A distillation that cannot start, or that lost its way (a NaN loss)."""


class WireError(FedclError):
    """A message that cannot be encoded, or that is not what it claims to be."""


class RunError(FedclError):
    """A run that cannot go on: every client failed, the folder cannot be used."""


class InUseError(RunError):
    """A run's folder that another process is working in."""
