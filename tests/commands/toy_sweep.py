"""`titan-aioli` with toy runs (toy_run.py) in the place of training, as a program that a test can kill."""

import sys

from titan_aioli.cli import main
from titan_aioli.commands.sweep.run import SweepRun


def toy_command(run, *_):
    return [sys.executable, "-m", "tests.commands.toy_run", str(run.folder / "config.toml")]


if __name__ == "__main__":
    SweepRun.command = toy_command
    main()
