"""What can go wrong by the user's doing. Each message says what, where, the rule, the way out."""


class XmcError(Exception):
    """Base of all errors that a user can cause and mend. The CLI prints it and exits with 2."""


class ConfigError(XmcError):
    """A parameter that does not exist, is out of range, or contradicts another."""


class DataError(XmcError):
    """Input data that breaks a rule: which file, which line, which rule."""


class ShapeError(XmcError):
    """Two arrays that must agree do not."""


class StoreError(XmcError):
    """A saved folder that is missing, incomplete, altered, or of another kind or version."""


class EncoderError(XmcError):
    """Encoder weights that are missing, altered, or do not fit the configuration."""
