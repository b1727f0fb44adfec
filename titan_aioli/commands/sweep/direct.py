"""The runs of a sweep one after the other, in this process; jobs.py is the other way to do them."""

import fcntl
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from titan_aioli.commands.sweep.mixtures import Sweep


def train_all(planned: Sweep, lock: int) -> list[str]:
    """Do the runs that are not finished; a line for each that failed."""
    failures = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        runs = progress.add_task("runs", total=len(planned.runs))
        steps = progress.add_task("", total=planned.num_steps, visible=False)
        for run in planned.runs:
            if not run.is_finished:
                progress.reset(steps, description=f"{run.name}: steps", visible=True)
                failure = run.train(
                    planned.command(run), lock, lambda step: progress.update(steps, completed=step)
                )
                if failure:
                    progress.console.print(failure, style="red", markup=False, highlight=False)
                    failures.append(failure)
            progress.advance(runs)
    return failures


@contextmanager
def locked(output: Path) -> Iterator[int]:
    """Exclusive lock on the sweep's folder; SIGTERM exits cleanly.

    Runs inherit it: one that outlives a killed sweep keeps the lock until it ends.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with open(output / "lock", "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for a sweep, or a run of one, that is under way in {output}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()
    finally:
        signal.signal(signal.SIGTERM, before)
