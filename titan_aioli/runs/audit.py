"""The audit: one line for each row trained on, so that "which data did step 1,234 see" has an answer.

`rows.csv` in the dump folder holds the global plan (all ranks plan the same rows; one writes them). A
resumed run cuts it back to the rows that its checkpoint has trained. The rows also follow from the run's
ledger, its seed and the sizes of its stores: `blocks` computes them again, `check_audit` compares the two.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import dropwhile
from mmap import ACCESS_READ, mmap
from pathlib import Path

from rich.progress import track

from titan_aioli.control.ledger import Ledger
from titan_aioli.data.schedule import Block
from titan_aioli.errors import UserError
from titan_aioli.files import naming
from titan_aioli.runs.run import Run

HEADER = "row,step,group,epoch,sequence\n"
TAIL_BYTES = 1 << 16
"""How much of the end of a long file is read to find its last row."""
BLOCK_STEPS = 256
"""Largest number of steps whose rows are computed at once."""


class AuditFile:
    """Appends the rows of every step to a CSV file."""

    def __init__(self, path: Path, group_names: Sequence[str]):
        self.path = path
        self._fields = list(map(_as_field, group_names))
        self._rewound = False

    def write_step(self, block: Block, index: int) -> None:
        """The rows of one step of a block, in training order."""
        if not self._rewound:
            self._rewind(block.first_row(index))
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(_lines(block, index, self._fields)))

    def _rewind(self, first_row: int) -> None:
        """Keep the header and the lines of rows before `first_row`."""
        self._rewound = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if first_row == 0 or not self.path.is_file() or not self.path.stat().st_size:
            self.path.write_text(HEADER, encoding="utf-8")
            return
        with open(self.path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            kept = _end_of_rows(content, first_row, self.path)
        os.truncate(self.path, kept)


def _end_of_rows(content: mmap, first_row: int, path: Path) -> int:
    """The byte where the lines of rows before `first_row` end: found by bisection, as a file may be long.

    Raises: UserError: a line is not a row.
    """
    low, high = content.find(b"\n") + 1, len(content)
    while low < high:
        start = max(low, content.rfind(b"\n", low, (low + high) // 2) + 1)
        end = content.find(b"\n", start)  # -1: a killed run, or a full disk, has left half a line
        line = content[start : end if end >= 0 else len(content)]
        try:
            is_kept = end >= 0 and int(line.split(b",", 1)[0]) < first_row
        except ValueError:
            raise UserError(
                f"{path}: at byte {start} it says {line[:80].decode(errors='replace')!r}, which is no row: "
                "move the file away to continue the run with a new one"
            ) from None
        low, high = (end + 1, high) if is_kept else (low, start)
    return low


def blocks(run: Run, first_step: int, end_step: int) -> Iterator[Block]:
    """The rows of the steps of a run, in order; of steps before `first_step` only the counts are computed.

    The rows begin with the section: where a resume last changed the groups or stores of the run.
    """
    ledger, position = run.ledger(), run.start()
    first_step = max(first_step, position.step)
    schedule_of = cache(run.schedule)
    while position.step < end_step:
        target = first_step if position.step < first_step else end_step
        num_steps = min(_phase_end(ledger, position.step, target) - position.step, BLOCK_STEPS)
        batch_size = ledger.batch_size_at(position.step) or run.mixture["batch_size"]
        schedule = schedule_of(batch_size)
        proportions = ledger.at_step(position.step).proportions
        if position.step < first_step:
            position = schedule.skip(position, proportions, num_steps)
            continue
        block = schedule.plan(position, proportions, num_steps)
        position = block.position_after(num_steps - 1)
        yield block


def check_audit(run: Run) -> int:
    """Compare rows.csv with the rows that the ledger of a section gives; the number of rows.

    Of a run that is not finished all whole steps of the file are compared, and none need be there.

    Raises: ValueError: the first row that differs, or a file that ends early.
    """
    path = run.folder / "rows.csv"
    if not path.is_file():
        raise ValueError(f"{run.folder} has no rows.csv: train with mixing.audit = true")
    start, count, fields = run.start(), 0, list(map(_as_field, run.groups))
    is_open = _is_open(run)
    end_step = audited_steps(run) if is_open else run.last_step
    steps = ((block, index) for block in blocks(run, 0, end_step) for index in range(block.num_steps))
    with open(path, encoding="utf-8", errors="replace") as file:
        next(file, None)
        recorded = _from_row(file, start.first_row)
        for block, index in track(steps, description="checking", total=end_step - start.step, transient=True):
            for expected in _lines(block, index, fields):
                if (found := next(recorded, "the end of the file")) != expected:
                    raise ValueError(f"{path}: expected {expected.strip()}, found {found.strip()}")
                count += 1
        if run.end_step is None and not is_open and (extra := next(recorded, None)) is not None:
            raise ValueError(f"{path}: has {extra.strip()} after the run's last row")
    return count


def known_steps(run: Run) -> int:
    """The step up to which a section's rows are known; of an unfinished run its audit may know more."""
    return max(run.last_step, audited_steps(run)) if _is_open(run) else run.last_step


def _is_open(run: Run) -> bool:
    """Whether the run is not finished, as far as its files say, and this is its last section."""
    return run.end_step is None and run.results is None


def audited_steps(run: Run) -> int:
    """The step up to which rows.csv holds every row of a run's last section; 0 without a file."""
    path, ledger = run.folder / "rows.csv", run.ledger()
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[1:-1]  # not the header, nor half a line
    try:
        row, step = map(int, lines[-1].split(b",")[:2]) if lines else (-1, -1)
    except ValueError:
        raise ValueError(
            f"{path}: its last line is {lines[-1].decode(errors='replace')!r}, not a row"
        ) from None
    if step < ledger[0].step:
        return ledger[0].step
    entry, batch_size = ledger.at_step(step), ledger.batch_size_at(step) or run.mixture["batch_size"]
    is_whole = row + 1 == entry.first_row + (step + 1 - entry.step) * batch_size
    return step + is_whole


def _lines(block: Block, index: int, names: Sequence[str]) -> Iterator[str]:
    """The lines of rows.csv of one step of a block, in training order; names as fields of CSV."""
    step, first_row = block.step(index), block.first_row(index)
    columns = zip(block.groups[index], block.epochs[index], block.sequences[index], strict=True)
    for row, (group, epoch, sequence) in enumerate(columns, start=first_row):
        yield f"{row},{step},{names[group]},{epoch},{sequence}\n"


def _as_field(name: str) -> str:
    """A name as CSV has it: in quotes where it holds a comma or quotes."""
    return '"' + name.replace('"', '""') + '"' if {",", '"'} & set(name) else name


def _from_row(lines: Iterable[str], first_row: int) -> Iterator[str]:
    """The lines of rows.csv from a row on."""
    return dropwhile(lambda line: int(line.split(",", 1)[0]) < first_row, lines)


def _phase_end(ledger: Ledger, step: int, end_step: int) -> int:
    after = ledger.after_step(step)
    return end_step if after is None else min(after.step, end_step)
