"""Many sequences of many token stores, copied in one call.

The rows of a batch lie in different memory maps, and at 4 kB per row the Python around a copy costs as much
as the copy. But all maps lie in one address space: in an array that starts at the lowest map and spans them
all, any sequence of any store is one index. NumPy therefore gathers a whole batch in one call and then widens
it to int64. The cost of a row does not depend on the number of groups or stores.

Only memory inside the maps is ever touched: every index is computed from the number of a sequence, and
numbers outside a store are refused first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from titan_aioli.data.group import Group

MAX_VIEW_BYTES = 2**62
"""Upper bound on the size of an array in NumPy, which counts overlapping rows in full."""


class SequenceReader:
    """Reads sequences of groups by number; keeps every store mapped."""

    def __init__(self, groups: Sequence[Group]):
        self.seq_len = groups[0].seq_len
        self._sizes = np.array([group.num_sequences for group in groups])
        self._group_starts = np.cumsum(self._sizes) - self._sizes
        counts = np.concatenate([group.store_sequences for group in groups])
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        tokens = [store.tokens for group in groups for store in group.stores]
        self._views, self._kinds, self._bases = _views(tokens, counts, self.seq_len + 1)

    def locate(self, groups: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each sequence's view and its index in that view, in the shape of the input."""
        assert (sequences >= 0).all() and (sequences < self._sizes[groups]).all(), "not in the group"
        numbers = self._group_starts[groups] + sequences
        stores = np.searchsorted(self._ends, numbers, side="right")
        return self._kinds[stores], self._bases[stores] + (numbers - self._starts[stores]) * self.seq_len

    def read(self, kinds: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        """Copy the sequences at these places [N] into `out` [N, S + 1] int64."""
        if len(self._views) == 1:
            out[:] = self._views[0][places]
            return
        for kind in np.unique(kinds):
            rows = np.flatnonzero(kinds == kind)
            out[rows] = self._views[kind][places[rows]]


class _SlicedRows:
    """A store that is not one aligned array in memory: its rows are copied one by one."""

    def __init__(self, tokens: Any, length: int):
        self._tokens, self._length = tokens, length

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return np.stack([self._tokens[start : start + self._length] for start in places.tolist()])


def _views(stores: list[Any], counts: np.ndarray, length: int) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """One view per dtype, over all stores of that dtype: its item i is the `length` tokens from token i on.

    Stores that are not one aligned array get a `_SlicedRows` each instead.

    Args:
        stores: the tokens of every store.
        counts: [stores], number of sequences in each; stores with none get no view.
    Returns: the views, and for every store the number of its view and the index of its first token there.
    """
    views, kinds, bases = [], np.zeros(len(stores), dtype=np.int64), np.zeros(len(stores), dtype=np.int64)
    by_dtype: dict[np.dtype, list[int]] = {}
    for number in np.flatnonzero(counts):
        tokens = stores[number]
        if isinstance(tokens, np.ndarray) and tokens.flags.c_contiguous and tokens.flags.aligned:
            by_dtype.setdefault(tokens.dtype, []).append(int(number))
        else:
            kinds[number] = len(views)
            views.append(_SlicedRows(tokens, length))
    for dtype, numbers in by_dtype.items():
        addresses = np.array([stores[number].__array_interface__["data"][0] for number in numbers])
        lowest = int(np.argmin(addresses))
        ends = addresses + [stores[number].nbytes for number in numbers]
        span = int(ends.max() - addresses[lowest]) // dtype.itemsize - length + 1
        if span * length * dtype.itemsize > MAX_VIEW_BYTES:  # memory far apart and very long sequences
            for number in numbers:
                kinds[number] = len(views)
                views.append(_SlicedRows(stores[number], length))
            continue
        kinds[numbers], bases[numbers] = len(views), (addresses - addresses[lowest]) // dtype.itemsize
        first = stores[numbers[lowest]]
        views.append(as_strided(first, (span, length), 2 * (dtype.itemsize,), writeable=False))
    return views, kinds, bases
