"""Words of a command line, made fit for torchtitan's parser of flags, and its complaints in one line."""

import contextlib
import io
import re
from collections.abc import Callable
from typing import TypeVar

from titan_aioli.errors import UserError

T = TypeVar("T")


def with_plain_switches(args: list[str]) -> list[str]:
    """The arguments with `--a.b true` and `--a.b false` as the switches `--a.b` and `--a.no-b`."""
    words: list[str] = []
    for part in (part for arg in args for part in (arg.split("=", 1) if _is_switch(arg) else [arg])):
        if part.lower() not in ("true", "false") or not words or not words[-1].startswith("--"):
            words.append(part)
        elif part.lower() == "false":
            section, _, name = words[-1].rpartition(".")
            words[-1] = f"{section}.no-{name}" if section else f"--no-{words[-1].removeprefix('--')}"
    return words


def _is_switch(arg: str) -> bool:
    return arg.startswith("--") and arg.lower().endswith(("=true", "=false"))


def parsed(parse: Callable[[], T]) -> T:
    """What a parser of flags returns; what it writes about a bad one becomes one line.

    Raises: UserError: the first sentence of what the parser had to say.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return parse()
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UserError(_short_complaint(complaint.getvalue())) from None


def _short_complaint(text: str) -> str:
    """The first sentence in the box that tyro draws about a bad flag, and the flag that may be meant."""
    _, _, text = text.partition("\n")  # the box's title
    text = " ".join(re.sub(r"\x1b\[[\d;]*m|[^\x00-\x7f]+|-{3,}", " ", text).split())
    meant = re.search(r"Perhaps you meant: (--\S+)", text)
    sentence = re.split(r"Perhaps you meant|Argument helptext|For full helptext", text)[0].strip()
    return f"{sentence} (perhaps {meant[1]} is meant)" if meant else sentence
