"""The end of a rank's process."""

import atexit
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process with this exit status, without taking the interpreter apart.

    Threads of gloo may still hold tensors when the process groups are destroyed. Python then crashes now and
    then while it ends, and a run that is whole counts as failed (pytorch/pytorch pull request 179291).
    What is registered with `atexit` runs, and what was printed is written.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
