"""The command `titan-aioli`: a subcommand is a typed function with a docstring and one entry in COMMANDS.

Modules named here import no torch, so that `titan-aioli --help` answers at once.
"""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from titan_aioli.data.inspect_store import inspect
from titan_aioli.data.tokenize import tokenize

COMMANDS: dict[str, Callable[..., Any]] = {
    "tokenize": tokenize,
    "inspect": inspect,
}


def main() -> None:
    """Run the subcommand; what the user can put right is one line and exit status 2, without a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="titan-aioli", description="Online data mixing.")
    except (ValueError, OSError) as error:
        line = " ".join(str(error).split())
        print(f"titan-aioli: error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("titan-aioli: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
