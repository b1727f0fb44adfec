"""One store cut into training, validation and test documents, as Megatron's `--split` cuts it.

The parts are contiguous and fixed: the first documents train, those after them validate, the last ones test.
They depend on the number of documents and on the shares alone, so not on the ranks, the sequence length or a
seed. A store without documents is cut at tokens instead.

Source: Megatron-LM, megatron/core/datasets (the same bounds: the running sum of the normalised shares, times
the number of documents, rounded). Megatron cuts at sequences, of which a document has one unless it was
preprocessed with --split-sentences.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from titan_aioli.stores.tokens import TokenStore


class Split(NamedTuple):
    """Shares of a store's documents; they sum to 1."""

    train: float
    validation: float
    test: float

    def __str__(self) -> str:
        return "/".join(f"{share:.6g}" for share in self)


PARTS = Split._fields
"""The parts of a store, in the order in which they lie in it."""

TOKENS_AT_ONCE = 1 << 24
"""Number of tokens looked through at once for the ends of documents."""
ALLOWED = (
    "it must be up to three relative shares for train, validation and test, such as [0.98, 0.01, 0.01] or "
    '"969,30,1"'
)


def parse_split(value: str | Sequence[float]) -> Split:
    """The shares that a user gave: numbers, or text with commas (or slashes or spaces) between them.

    Raises: ValueError: not one to three numbers, one below 0, or none for training.
    """
    try:
        given = re.split(r"[,/\s]+", value.strip()) if isinstance(value, str) else list(value)
        if any(isinstance(share, bool) for share in given):
            raise ValueError
        shares = [float(share) for share in given]
    except (ValueError, TypeError):
        raise ValueError(f"is {value!r}: {ALLOWED}") from None
    if not 1 <= len(shares) <= len(PARTS) or not all(0 <= share < math.inf for share in shares):
        raise ValueError(f"is {value!r}: {ALLOWED}, each at least 0")
    if shares[0] == 0:
        raise ValueError(f"is {value!r}: it leaves nothing to train on: {ALLOWED}")
    if not 0 < (total := sum(shares)) < math.inf:
        raise ValueError(f"is {value!r}: {ALLOWED}")
    return Split(*(share / total for share in (*shares, 0.0, 0.0)[: len(PARTS)]))


def with_documents(store: TokenStore, end_of_document: int) -> TokenStore:
    """A store with its documents; one that does not know them is read whole: each ends with this token."""
    if store.num_documents is not None:
        return store
    ends = [
        start + 1 + np.flatnonzero(store.tokens[start : start + TOKENS_AT_ONCE] == end_of_document)
        for start in range(0, store.num_tokens, TOKENS_AT_ONCE)
    ]
    offsets = np.unique(np.concatenate([[0], *ends, [store.num_tokens]])).astype(np.int64)
    return replace(store, document_offsets=offsets)


def parts_of(stores: Iterable[TokenStore], split: Split, name: str) -> list[TokenStore]:
    """The part of this name of every store that has one."""
    parts = [split_store(store, split)[name] for store in stores]
    return [part for part in parts if part.num_tokens]


def split_store(store: TokenStore, split: Split) -> dict[str, TokenStore]:
    """The parts of a store by name; a part may be empty."""
    count = store.num_tokens if store.num_documents is None else store.num_documents
    bounds = [round(end * count) for end in accumulate(split, initial=0.0)]
    return {
        name: store.part(start, stop) for name, (start, stop) in zip(PARTS, pairwise(bounds), strict=True)
    }
