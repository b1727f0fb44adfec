"""Shards to stores: the last step of `titan-aioli tokenize`.

Every shard is read once per hundred groups, and its documents are appended to the stores of their groups and
splits. Memory: one shard, and 4 bytes per document.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.tokenize.copies import FOUND
from titan_aioli.stores.tokenize.kept import reading
from titan_aioli.stores.tokenize.splits import SPLITS

GROUPS_AT_ONCE = 100
"""Number of groups merged in one pass: each holds three files open, and many systems allow 1,024."""

Describe = Callable[[str, str], dict[str, Any]]
"""Function (group, split) -> content of a store's PREFIX.json, besides its counts."""


class StoreCounts(NamedTuple):
    """The size of one store."""

    group: str
    split: str
    documents: int
    tokens: int
    text_bytes: int


def merge_shards(
    shards: list[Path], stores: Path, dtype: np.dtype, describe: Describe, leave_out: bool = False
) -> list[StoreCounts]:
    """Write STORES/GROUP/SPLIT for every group and split in the shards, the documents in input order.

    Args:
        leave_out: whether documents to train on that are held-out ones are left out.
    """
    names = {name for shard in shards for name in _names(shard)}
    groups = sorted({name.split("/")[0] for name in names})
    counts: list[StoreCounts] = []
    for first in range(0, len(groups), GROUPS_AT_ONCE):
        some = set(groups[first : first + GROUPS_AT_ONCE])
        parts = (part for shard in shards for part in _parts(shard, some, leave_out))
        counts += _write_stores(parts, stores, dtype, describe)
    return sorted(counts, key=lambda row: (row.group, SPLITS.index(row.split)))


class _Part(NamedTuple):
    """The documents of one store in one shard."""

    store: str
    """GROUP/SPLIT."""
    tokens: np.ndarray
    sizes: np.ndarray
    text_bytes: int
    prompts: np.ndarray | None
    """Lengths of the documents' prompts, if they have any."""


def _write_stores(
    parts: Iterator[_Part], stores: Path, dtype: np.dtype, describe: Describe
) -> list[StoreCounts]:
    writers: dict[str, MegatronWriter] = {}
    text_bytes: dict[str, int] = {}
    counts = []
    with ExitStack() as stack:
        for part in parts:
            if part.store not in writers:
                writers[part.store] = stack.enter_context(MegatronWriter(stores / part.store, dtype))
            writers[part.store].add_many(part.tokens, part.sizes)
            if part.prompts is not None:
                writers[part.store].prompts = [*(writers[part.store].prompts or ()), part.prompts]
            text_bytes[part.store] = text_bytes.get(part.store, 0) + part.text_bytes
        for store, writer in writers.items():
            group, split = store.split("/")
            writer.metadata = {**describe(group, split), "text_bytes": text_bytes[store]}
            row = StoreCounts(group, split, writer.num_documents, writer.num_tokens, text_bytes[store])
            counts.append(row)
    return counts


def _names(shard: Path) -> list[str]:
    with reading(shard), np.load(shard) as arrays:
        return list(arrays.files)


def _parts(shard: Path, groups: set[str], leave_out: bool) -> Iterator[_Part]:
    with reading(shard), np.load(shard) as arrays:
        for name in arrays.files:
            store, _, kind = name.rpartition("/")
            if kind == "tokens" and store.split("/")[0] in groups:
                text_bytes = int(arrays[f"{store}/bytes"])
                prompts = arrays[f"{store}/prompts"] if f"{store}/prompts" in arrays.files else None
                part = _Part(store, arrays[name], arrays[f"{store}/sizes"], text_bytes, prompts)
                if leave_out and f"{store}/{FOUND}" in arrays.files:
                    part = _without(part, *arrays[f"{store}/{FOUND}"].T[:2])
                if part.sizes.size:
                    yield part


def _without(part: _Part, documents: np.ndarray, text_bytes: np.ndarray) -> _Part:
    """The part without some of its documents, which are to train on and have no prompts."""
    stay = np.ones(part.sizes.size, bool)
    stay[documents] = False
    left = part.text_bytes - int(text_bytes.sum())
    return part._replace(
        tokens=part.tokens[np.repeat(stay, part.sizes)], sizes=part.sizes[stay], text_bytes=left
    )
