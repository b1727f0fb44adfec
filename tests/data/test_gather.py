"""Sequences of many stores in one call: the tokens that were written, whatever the stores are made of."""

import numpy as np
import pytest

from titan_aioli.data import gather
from titan_aioli.data.gather import SequenceReader
from titan_aioli.data.group import Group
from titan_aioli.stores.tokens import ChunkedTokens, TokenStore

NUMBERS = np.arange(64)
SEQ_LEN = 8
KINDS = {
    "uint16": NUMBERS.astype(np.uint16),
    "another uint16": NUMBERS.astype(np.uint16) + 100,
    "int32": NUMBERS.astype(np.int32),
    "not aligned": np.frombuffer(b"\0" + NUMBERS.astype("<u4").tobytes(), dtype="<u4", offset=1),
    "in chunks": ChunkedTokens([NUMBERS[:5], NUMBERS[5:30], NUMBERS[30:]]),
    "too short": NUMBERS[:SEQ_LEN],
}


def read_all(groups):
    """[N, S + 1], every sequence of every group in a shuffled order, and the group and number of each."""
    pairs = [(group, number) for group in range(len(groups)) for number in range(groups[group].num_sequences)]
    which = np.random.default_rng(0).permutation(np.array(pairs))
    reader = SequenceReader(groups)
    out = np.empty((len(which), SEQ_LEN + 1), dtype=np.int64)
    reader.read(*reader.locate(which[:, 0], which[:, 1]), out)
    return out, which


@pytest.mark.parametrize("max_view_bytes", [gather.MAX_VIEW_BYTES, 1], ids=["views", "row by row"])
def test_stores_of_any_kind_and_place_are_read_alike(monkeypatch, max_view_bytes):
    monkeypatch.setattr(gather, "MAX_VIEW_BYTES", max_view_bytes)
    stores = [TokenStore(name, tokens) for name, tokens in KINDS.items()]
    groups = [Group("two", stores[:2], SEQ_LEN), Group("three", stores[2:5], SEQ_LEN)]
    groups.append(Group("a short store", [stores[5], stores[0]], SEQ_LEN))
    rows, which = read_all(groups)
    expected = np.empty(SEQ_LEN + 1, dtype=np.int64)
    for row, (group, number) in zip(rows, which, strict=True):
        groups[group].read(number, expected)
        assert row.tolist() == expected.tolist() == list(range(row[0], row[0] + SEQ_LEN + 1))
    starts = [sorted(rows[which[:, 0] == group, 0].tolist()) for group in range(3)]
    seven = [*range(0, 56, 8)]
    assert starts == [seven + [100 + start for start in seven], sorted(3 * seven), seven]


def test_a_number_outside_a_store_is_refused():
    reader = SequenceReader([Group("a", [TokenStore("a", NUMBERS)], SEQ_LEN)])
    for number in (-1, 7):
        with pytest.raises(AssertionError, match="not in the group"):
            reader.locate(np.zeros(1, int), np.array([number]))
