"""`titan-aioli rows`: which sequences did a step train on? Computed again from the ledger, and checked.

The rows of a run follow from its ledger, its seed and the sizes of its stores, so no record of them is
needed; where the run wrote one (mixing.audit), the two are compared.
"""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from titan_aioli.control.ledger import Ledger
from titan_aioli.data.group import Group
from titan_aioli.data.schedule import Block, Schedule
from titan_aioli.runs.run import Run, read_run
from titan_aioli.stores.store import open_store

BLOCK_STEPS = 256


def rows(
    run: Annotated[Path, tyro.conf.Positional],
    step: int = 0,
    num_steps: int = 1,
    tokenizer: Path | None = None,
    check: bool = False,
) -> None:
    """Show the rows (training sequences) of a step: group, epoch, sequence, store.

        titan-aioli rows outputs/demo/aioli --step 34 --tokenizer outputs/demo/tokenizer/tokenizer.json

    Args:
        run: dump folder of a run (job.dump_folder).
        step: optimizer step, counted from 0: step s trains rows s * B to (s + 1) * B - 1.
        num_steps: how many steps to show.
        tokenizer: tokenizer.json, to show how each sequence begins.
        check: instead, compute every row of the run again and compare with its rows.csv (mixing.audit);
            exit status 1 where they differ.
    """
    loaded = read_run(run)
    if check:
        count = check_audit(loaded)
        print(f"{run / 'rows.csv'}: {count} rows, each as the ledger says, none lost or repeated")
        return
    if not 0 <= step < loaded.last_step:
        raise ValueError(f"step is {step}: {run} trained steps 0 to {loaded.last_step - 1}")
    table = Table(
        title=f"{loaded.name}: rows of step {step}" + (f" and {num_steps - 1} more" * (num_steps > 1))
    )
    for name in ("row", "step", "group", "epoch", "sequence", "store", "in store", "begins"):
        table.add_column(name, overflow="fold")
    last = min(step + num_steps, loaded.last_step)
    for block in blocks(loaded, step, last):
        for index in range(block.num_steps):
            for place in range(block.groups.shape[1]):
                row = block.first_row(index) + place
                table.add_row(str(row), *_cells(loaded, block, index, place, tokenizer))
    Console().print(table)


def blocks(run: Run, first_step: int, end_step: int) -> Iterator[Block]:
    """The rows of the steps of a run, in order; the way there is replayed by counts alone.

    A run whose groups or stores were changed on the way begins, here, where they last changed.
    """
    ledger, position = run.ledger(), run.start()
    first_step = max(first_step, position.step)
    schedules: dict[int, Schedule] = {}
    while position.step < end_step:
        target = first_step if position.step < first_step else end_step
        num_steps = min(_phase_end(ledger, position.step, target) - position.step, BLOCK_STEPS)
        batch_size = ledger.batch_size_at(position.step) or run.mixture["batch_size"]
        schedule = schedules.setdefault(batch_size, run.schedule(batch_size))
        proportions = ledger.at_step(position.step).proportions
        if position.step < first_step:
            position = schedule.skip(position, proportions, num_steps)
            continue
        block = schedule.plan(position, proportions, num_steps)
        position = block.position_after(num_steps - 1)
        yield block


def check_audit(run: Run) -> int:
    """Compare rows.csv with the rows that the ledger gives; the number of rows.

    Raises: ValueError: the first row that differs, or a file that ends early.
    """
    path = run.folder / "rows.csv"
    if not path.is_file():
        raise ValueError(f"{run.folder} has no rows.csv: train with mixing.audit = true")
    count = 0
    with open(path, newline="", encoding="utf-8") as file:
        recorded = csv.reader(file)
        next(recorded, None)
        recorded = _from_row(recorded, run.start().first_row)
        for block in track(list(blocks(run, 0, run.last_step)), description="checking", transient=True):
            for index in range(block.num_steps):
                for expected in _audit_rows(run, block, index):
                    found = next(recorded, None)
                    if found != expected:
                        raise ValueError(f"{path}: expected {','.join(expected)}, found {found}")
                    count += 1
        if (extra := next(recorded, None)) is not None:
            raise ValueError(f"{path}: has {','.join(extra)} after the run's last row")
    return count


def _audit_rows(run: Run, block: Block, index: int) -> Iterator[list[str]]:
    columns = zip(block.groups[index], block.epochs[index], block.sequences[index], strict=True)
    for row, (group, epoch, sequence) in enumerate(columns, start=block.first_row(index)):
        yield [str(row), str(block.step(index)), run.groups[group], str(epoch), str(sequence)]


def _from_row(recorded: Iterator[list[str]], first_row: int) -> Iterator[list[str]]:
    """The lines of rows.csv from a row on."""
    return itertools.dropwhile(lambda line: int(line[0]) < first_row, recorded)


def _phase_end(ledger: Ledger, step: int, end_step: int) -> int:
    return min([entry.step for entry in ledger if entry.step > step] + [end_step])


def _cells(run: Run, block: Block, index: int, place: int, tokenizer: Path | None) -> list[str]:
    name = run.groups[block.groups[index, place]]
    sequence = int(block.sequences[index, place])
    cells = [str(block.step(index)), name, str(block.epochs[index, place]), str(sequence)]
    paths = run.mixture["stores"][name]
    if not all(Path(f"{path}.idx").is_file() or Path(path).exists() for path in paths):
        return [*cells, "(not on this machine)", "", ""]
    group = Group(name, [open_store(path) for path in paths], run.mixture["seq_len"])
    store, number = group.locate(sequence)
    return [*cells, store.path, str(number), _beginning(group, sequence, tokenizer) if tokenizer else ""]


def _beginning(group: Group, sequence: int, tokenizer: Path) -> str:
    from tokenizers import Tokenizer

    tokens: Any = np.empty(group.seq_len + 1, dtype=np.int64)
    group.read(sequence, tokens)
    text = Tokenizer.from_file(str(tokenizer)).decode(tokens[:24].tolist())
    return " ".join(text.split())[:60]
