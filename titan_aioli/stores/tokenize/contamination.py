"""What was found in the shards of documents that are not to be trained on, in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from titan_aioli.stores.tokenize.copies import FOUND, PLACES, Index
from titan_aioli.stores.tokenize.kept import reading

NUM_EXAMPLES = 3


class Contamination(NamedTuple):
    """Documents of one group that are of one held-out set."""

    group: str
    held_out: str
    documents: int
    examples: list[str]
    """Where the first of them were read, and which held-out documents they are of."""

    def sentence(self) -> str:
        many = "documents to train on are" if self.documents > 1 else "document to train on is"
        return f"group {self.group!r}: {self.documents:,} {many} also in {self.held_out}"


def contamination_of(shards: Sequence[Path], index: Index) -> list[Contamination]:
    """What was found in the shards of a run, by group and held-out set."""
    counts: dict[tuple[str, int], int] = {}
    examples: dict[tuple[str, int], list[str]] = {}
    for shard in shards:
        with reading(shard), np.load(shard) as arrays:
            for name in (name for name in arrays.files if name.endswith(f"/{FOUND}")):
                group = name.split("/")[0]
                places = arrays[name.removesuffix(FOUND) + PLACES]
                for number, place in zip(arrays[name][:, 2], places, strict=True):
                    of_set = int(np.searchsorted(index.bounds, number, side="right")) - 1
                    key = group, of_set
                    counts[key] = counts.get(key, 0) + 1
                    if counts[key] <= NUM_EXAMPLES:
                        line = f"{place} (document {number - index.bounds[of_set]:,})"
                        examples.setdefault(key, []).append(line)
    return [
        Contamination(group, str(index.names[of_set]), count, examples[group, of_set])
        for (group, of_set), count in sorted(counts.items())
    ]


def lines(found: Sequence[Contamination], is_left_out: bool) -> list[str]:
    """What to say of it at the end, with examples."""
    said = "left out" if is_left_out else "warning"
    return [
        line for one in found for line in (f"{said}: {one.sentence()}", *(f"  {at}" for at in one.examples))
    ]


def refuse(found: Sequence[Contamination]) -> None:
    """Raises: ValueError: a document to train on is a held-out one; names the first group and set."""
    for one in found:
        examples = "; ".join(one.examples) + "; ..." * (one.documents > len(one.examples))
        raise ValueError(
            f"{one.sentence()}: {examples}: take them out of the inputs, or run the same command with "
            "--on-contamination leave-out or warn, which continues from here"
        )


def reason(found: Sequence[Contamination]) -> str:
    """Why there may be no document at all, in one line; empty where nothing was found."""
    return "; ".join(one.sentence() for one in found)
