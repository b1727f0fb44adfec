"""The order of a group's sequences: its n-th row as a pure function of (seed, group, n).

A stream is a set of sequences that is reshuffled every epoch. A group is one stream; a group with
store_weights has one stream per store. Weights are realised in cycles of 4,096 rows: a cycle holds a whole
number of rows of each store, in an order keyed by (seed, group, cycle), so the store of row n and the number
of the row in that store can be computed from n. There is no counter, so nothing has to be saved.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from titan_aioli.data.permutation import make_key, mix, permute

CYCLE_ROWS = 4096
"""Number of rows of a cycle, and most stores with weights: one row of each cycle is every store's, the others
go by weight. So a share w of n stores is realised to less than max(2, n w) / 4,096."""
_SEQUENCE, _STORE = 2, 3  # domains of keys: no two uses share keys (schedule.py has 1)


class WeightedStores(NamedTuple):
    """A group whose stores are drawn by weight, not by size."""

    num_sequences: Sequence[int]
    """Sequences of each store, at least 1."""
    weights: Sequence[float]
    """Relative weights, positive, with any sum."""


class Streams:
    """The sequences of every group, in the order in which they are drawn."""

    def __init__(
        self,
        group_names: Sequence[str],
        num_sequences: Sequence[int],
        seed: int,
        weighted: dict[int, WeightedStores] | None = None,
    ):
        """Args:
        group_names: [G]; a group's order depends on its name, not on its index.
        num_sequences: [G], sequences of each group, at least 1.
        seed: seed of the orders.
        weighted: groups with store weights, by index.
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
        Returns: the epoch of the stream (complete passes before), and the number of the sequence in its
            group; int64 [N] each.
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
        """The stream of each row of a weighted group, and the number of the row in that stream."""
        first_stream, ends = self._cycles[group]
        cycles, places = np.divmod(ordinals, CYCLE_ROWS)
        keys = make_key(self._seed, _STORE, self._group_keys[group : group + 1], cycles)
        places = permute(places, np.array([CYCLE_ROWS]), keys)
        stores = np.searchsorted(ends, places, side="right")
        counts = np.diff(ends, prepend=0)
        return first_stream + stores, cycles * counts[stores] + places - (ends - counts)[stores]


def fixed_sample(group_name: str, num_sequences: int, num_wanted: int, first: int = 0) -> np.ndarray:
    """A sample of a group's sequences, the same in every run: [min(num_wanted, num_sequences)].

    Args:
        group_name: of the group; its sequences have a fixed order.
        num_sequences: of the group.
        num_wanted: at most all.
        first: place in that order, begun again at its end, of the first one.
    """
    places = (first + np.arange(min(num_wanted, num_sequences))) % num_sequences
    return permute(places, np.array([num_sequences]), make_key(name_key(group_name)))


def name_key(name: str) -> int:
    """A hash of a group's name below 2^64, for keys."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _cycle_ends(weights: Sequence[float]) -> np.ndarray:
    """[stores] int64, end of each store's places in a cycle, by largest remainder; each has at least one."""
    shares = np.array(weights, dtype=np.float64) / np.sum(weights) * (CYCLE_ROWS - len(weights))
    counts = np.floor(shares)
    missing = CYCLE_ROWS - len(weights) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return np.cumsum(counts + 1).astype(np.int64)
