"""Errors that the user can fix: printed in one line on every rank, without a traceback."""


class UserError(ValueError):
    """Something in the config, the data or the command is wrong; the message says what to do."""


class ResumeRefused(UserError):
    """A checkpoint does not fit this run."""


class RanksDisagree(RuntimeError):
    """Ranks hold different mixtures: hardware or software has failed, and training must stop."""
