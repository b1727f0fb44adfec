"""The order of a group's sequences: its n-th row as a pure function of (seed, group, n).

A stream is what is read through epoch by epoch, each epoch in another order: a whole group or, where the
group's stores have weights, each of its stores. Weights are realised in cycles of 4,096 rows: a cycle
holds a whole number of rows of each store, in an order keyed by (seed, group, cycle), so row n belongs to a
known store and is a known row of it. Nothing is counted, so nothing has to be saved.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from titan_aioli.data.permutation import make_key, mix, permute

CYCLE_ROWS = 4096
"""Rows over which store weights are exact; a weight is realised to 1 / 4,096."""
_SEQUENCE, _STORE = 2, 3  # what a key is for


class WeightedStores(NamedTuple):
    """A group whose stores are drawn by weight, not by size."""

    num_sequences: Sequence[int]
    """Sequences of each store, at least 1."""
    weights: Sequence[float]
    """Positive, of any sum."""


class Streams:
    """Sequences of every group in the order that rows are drawn."""

    def __init__(
        self,
        group_names: Sequence[str],
        num_sequences: Sequence[int],
        seed: int,
        weighted: dict[int, WeightedStores] | None = None,
    ):
        """Args:
        group_names: [G]; a group's order depends on its name, not on its place.
        num_sequences: [G], sequences of each group, at least 1.
        seed: of the orders.
        weighted: by number of the group, those whose stores have weights.
        """
        self._seed = seed
        self._group_keys = np.array([name_key(name) for name in group_names], dtype=np.uint64)
        sizes, keys = [np.array(num_sequences, dtype=np.int64)], [self._group_keys]
        starts = [np.zeros(len(num_sequences), dtype=np.int64)]
        self._cycles: dict[int, tuple[int, np.ndarray]] = {}
        for group, stores in (weighted or {}).items():
            self._cycles[group] = sum(map(len, sizes)), _cycle_ends(stores.weights)
            sizes.append(np.array(stores.num_sequences, dtype=np.int64))
            keys.append(make_key(self._group_keys[group : group + 1], np.arange(1, len(sizes[-1]) + 1)))
            starts.append(np.cumsum(sizes[-1]) - sizes[-1])
        self._sizes = np.concatenate(sizes)
        self._keys = make_key(seed, _SEQUENCE, np.concatenate(keys))
        self._starts = np.concatenate(starts)

    def sequences(self, groups: np.ndarray, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch and number of the sequence that is a group's n-th row.

        Args:
            groups: [N], group of each row.
            ordinals: [N], n of each row.
        Returns: how often the stream (group or weighted store) had been read through before, and the
            sequence's number in its group; int64 [N] each.
        """
        streams = groups
        if self._cycles:
            streams, ordinals = groups.copy(), ordinals.copy()
            for group in self._cycles:
                rows = np.flatnonzero(groups == group)
                streams[rows], ordinals[rows] = self._stores(group, ordinals[rows])
        sizes = self._sizes[streams]
        epochs, places = np.divmod(ordinals, sizes)
        keys = mix(self._keys[streams] ^ epochs.astype(np.uint64))
        images = permute(places, sizes, keys)
        return epochs, images + self._starts[streams] if self._cycles else images

    def _stores(self, group: int, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stream that holds each row of a weighted group, and the row's number in that stream."""
        first_stream, ends = self._cycles[group]
        cycles, places = np.divmod(ordinals, CYCLE_ROWS)
        keys = make_key(self._seed, _STORE, self._group_keys[group : group + 1], cycles)
        places = permute(places, np.array([CYCLE_ROWS]), keys)
        stores = np.searchsorted(ends, places, side="right")
        counts = np.diff(ends, prepend=0)
        return first_stream + stores, cycles * counts[stores] + places - (ends - counts)[stores]


def fixed_sample(group_name: str, num_sequences: int, num_wanted: int) -> np.ndarray:
    """A fixed choice of a group's sequences, the same in every run: [min(num_wanted, num_sequences)]."""
    count = min(num_wanted, num_sequences)
    return permute(np.arange(count), np.array([num_sequences]), make_key(name_key(group_name)))


def name_key(name: str) -> int:
    """A number below 2^64 that stands for a group's name in keys."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _cycle_ends(weights: Sequence[float]) -> np.ndarray:
    """Where each store's rows end in a cycle, by largest remainder; every store has at least one row."""
    shares = np.array(weights, dtype=np.float64) / np.sum(weights) * (CYCLE_ROWS - len(weights))
    counts = np.floor(shares)
    missing = CYCLE_ROWS - len(weights) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return np.cumsum(counts + 1).astype(np.int64)
