"""The command `titan-aioli`: a subcommand is a typed function with a docstring and one entry in COMMANDS.

Arguments without a default are required, keyword-only ones are options, `tyro.conf.Positional` ones are
not; the docstring is the help. Modules named here import no torch, so that help is there at once.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from inspect import cleandoc, signature
from typing import Any

import tyro

from titan_aioli.commands.check.command import check
from titan_aioli.commands.convert_checkpoint import convert_checkpoint
from titan_aioli.commands.demo_corpus import demo_corpus
from titan_aioli.commands.init.command import init
from titan_aioli.commands.inspect import inspect
from titan_aioli.commands.plan import plan
from titan_aioli.commands.replay import replay
from titan_aioli.commands.report.command import report
from titan_aioli.commands.rows import rows
from titan_aioli.commands.simulate.command import simulate
from titan_aioli.commands.sweep.command import sweep
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.commands.train_tokenizer import train_tokenizer

COMMANDS: dict[str, Callable[..., Any]] = {
    "train-tokenizer": train_tokenizer,
    "tokenize": tokenize,
    "inspect": inspect,
    "init": init,
    "check": check,
    "rows": rows,
    "report": report,
    "sweep": sweep,
    "plan": plan,
    "simulate": simulate,
    "replay": replay,
    "demo-corpus": demo_corpus,
    "convert-checkpoint": convert_checkpoint,
}

STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName)


def main(words: list[str] | None = None) -> None:
    """Run a subcommand; what the user can fix is one line and exit status 2, without a traceback.

    Args:
        words: the command line without the program's name. Default: this process's.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that cannot show a name shows its number
            stream.reconfigure(errors="backslashreplace")
    name, *arguments = (sys.argv[1:] if words is None else words) or ["--help"]
    try:
        _run_or_explain(name, arguments)
    except BrokenPipeError:  # the reader of the output, such as head, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError) as error:
        print(f"titan-aioli: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("titan-aioli: stopped", file=sys.stderr)
        sys.exit(130)


def _run_or_explain(name: str, arguments: list[str]) -> None:
    """Run a subcommand or print the overview; all that is printed is written out, or fails, in here."""
    try:
        if name in ("-h", "--help"):
            print(overview())
        elif name not in COMMANDS:
            raise ValueError(f"no command {name!r}: choose one of {', '.join(COMMANDS)}")
        else:
            run(name, arguments)
    finally:
        sys.stdout.flush()


def run(name: str, arguments: list[str]) -> Any:
    """What a subcommand returns, given its arguments as words."""
    command = COMMANDS[name]
    # tyro keeps the line breaks of the docstring inside the help of an option; it should fill the terminal
    text = command.__doc__ = re.sub(r"\n {8,}", " ", cleandoc(command.__doc__ or ""))
    # It takes the indentation from an example that comes first, and adds an empty line before the others
    description = text.partition("\nArgs:\n")[0].replace("\n\n ", "\n ")
    if "flags" in signature(command).parameters:
        arguments, flags = split_flags(arguments)
        command = partial(command, flags=tuple(flags))
    prog = f"titan-aioli {name}"
    return tyro.cli(command, prog=prog, description=description, args=arguments, config=STYLE)


def split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words of the command, and those of the training config: --SECTION.KEY and what follows it."""
    own, flags = [], []
    words = own
    for word in arguments:
        if word.startswith("--"):
            words = flags if "." in word.partition("=")[0] else own
        words.append(word)
    return own, flags


def overview() -> str:
    """One line for each subcommand."""
    lines = [
        f"  {name:<18} {(command.__doc__ or '').partition(chr(10))[0]}" for name, command in COMMANDS.items()
    ]
    return "\n".join(
        ["usage: titan-aioli COMMAND ...", "", *lines, "", "`titan-aioli COMMAND --help` shows its options."]
    )


if __name__ == "__main__":
    main()
