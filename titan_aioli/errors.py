"""Errors that the user can fix: printed in one line on every rank, without a traceback."""

from collections.abc import Collection
from difflib import get_close_matches


class UserError(ValueError):
    """Something in the config, the data or the command is wrong; the message says what to do."""


class ResumeRefused(UserError):
    """A checkpoint does not fit this run."""


class RanksDisagree(RuntimeError):
    """Ranks hold different mixtures: hardware or software has failed, and training must stop."""


def perhaps(word: str, known: Collection[str]) -> str:
    """What an unknown word may stand for, to put behind it in a message; "" where nothing is close."""
    close = get_close_matches(word, list(known), 1)
    return f" (perhaps {close[0]} is meant)" if close else ""


def unknown_key(where: str, key: str, known: Collection[str]) -> UserError:
    """The error of a table, as `where` names it, that has a key that it may not have."""
    meant, allowed = perhaps(key, known), ", ".join(known)
    return UserError(f"{where} has an unknown key {key!r}{meant}; it may have: {allowed}")
