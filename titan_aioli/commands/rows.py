"""`titan-aioli rows`: which sequences did a step train on? Computed again from the ledger, and checked.

The rows of a run follow from its ledger, its seed and the sizes of its stores, so no record of them is
needed; where the run wrote one (mixing.audit), the two are compared.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from titan_aioli.data.first_share import first_share
from titan_aioli.data.group import Group
from titan_aioli.data.schedule import Block
from titan_aioli.runs.audit import blocks, check_audit, known_steps
from titan_aioli.runs.read import read_sections
from titan_aioli.runs.run import Run
from titan_aioli.stores.split import Split, parts_of, with_documents
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokenize.tokenizer import load_tokenizer

TOKENS_SHOWN, CHARACTERS_SHOWN = 24, 60


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
        tokenizer: tokenizer.json or its folder, to show how each sequence begins.
        check: instead, compute every row of the run again and compare with its rows.csv (mixing.audit);
            exit status 2 where they differ.
    """
    if num_steps < 1:
        raise ValueError(f"--num-steps is {num_steps}: it must be at least 1")
    sections = read_sections(run)
    first = sections[0].start().step
    if check:
        count = sum(map(check_audit, sections))
        since = f" from step {first} on" * (first > 0)
        print(f"{run / 'rows.csv'}: {count} rows{since}, each as the ledger says, none lost or repeated")
        return
    last = known_steps(sections[-1])
    if last == first:
        raise ValueError(f"{run} has no rows yet: nothing that it wrote is of a step after {first}")
    if not first <= step < last:
        raise ValueError(f"--step is {step}: {run} trained steps {first} to {last - 1}")
    loaded = next(section for section in sections if step < known_steps(section))
    end = min(step + num_steps, known_steps(loaded))
    table = Table(
        title=f"{loaded.name}: rows of step {step}"
        + f" and {end - step - 1} more" * (end - step > 1)
        + f"; steps are counted from 0: the log's step {step + 1}"
    )
    for name in ("row", "step", "group", "epoch", "sequence", "store", "in store", "begins"):
        table.add_column(name, overflow="fold")
    texts = Texts(loaded, tokenizer)
    for block in blocks(loaded, step, end):
        for index in range(block.num_steps):
            for place in range(block.groups.shape[1]):
                table.add_row(*_cells(loaded, block, index, place), *texts.cells(block, index, place))
    Console(markup=False, emoji=False).print(table)


class Texts:
    """Where rows lie and how they begin; opens the tokenizer once, and a group's stores when first needed."""

    def __init__(self, run: Run, tokenizer: Path | None):
        self._run = run
        self._groups: dict[str, Group | str] = {}
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)

    def cells(self, block: Block, index: int, place: int) -> tuple[str, str, str]:
        """Store, sequence in the store and beginning of a row."""
        name, sequence = self._run.groups[block.groups[index, place]], int(block.sequences[index, place])
        if name not in self._groups:
            self._groups[name] = self._open(name)
        group = self._groups[name]
        if isinstance(group, str):
            return group, "", ""
        store, number = group.locate(sequence)
        return store.path, str(number), self._beginning(group, sequence)

    def _open(self, name: str) -> Group | str:
        """The group as the run read it, or why that is not known."""
        paths = self._run.mixture["stores"][name]
        if not all(store_exists(path) for path in paths):  # paths of where the run was started
            paths = [str(Path(self._run.mixture.get("started_in", "")) / path) for path in paths]
        if not all(store_exists(path) for path in paths):
            return "(not on this machine)"
        dtype = self._run.mixture.get("dtypes", {}).get(name)
        stores = [open_store(path, dtype) if dtype else open_store(path) for path in paths]
        if split := self._run.mixture.get("splits", {}).get(name):
            if (end := self._run.mixture.get("end_of_document", {}).get(name)) is not None:
                stores = [with_documents(store, end) for store in stores]
            stores = parts_of(stores, Split(*split), "train")
        if (share := self._run.mixture.get("train_share", 1.0)) < 1:
            stores = first_share(stores, share)
        group = Group(name, stores, self._run.mixture["seq_len"])
        return group if self._is_as_trained(group) else "(replaced since the run)"

    def _is_as_trained(self, group: Group) -> bool:
        """Whether the stores hold what the run read; a run of an older version recorded their size alone."""
        mixture = self._run.mixture
        if "fingerprints" in mixture:
            return mixture["fingerprints"].get(group.name) == [each.fingerprint() for each in group.stores]
        return mixture["num_sequences"][self._run.groups.index(group.name)] == group.num_sequences

    def _beginning(self, group: Group, sequence: int) -> str:
        if self._tokenizer is None:
            return ""
        tokens: Any = np.empty(group.seq_len + 1, dtype=np.int64)
        group.read(sequence, tokens)
        text = self._tokenizer.decode(tokens[:TOKENS_SHOWN].tolist())
        return " ".join(text.split())[:CHARACTERS_SHOWN]


def _cells(run: Run, block: Block, index: int, place: int) -> list[str]:
    """Row, step, group, epoch and sequence."""
    values = (block.epochs[index, place], block.sequences[index, place])
    name = run.groups[block.groups[index, place]]
    return [str(block.first_row(index) + place), str(block.step(index)), name, *map(str, values)]
