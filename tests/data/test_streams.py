"""The order of sequences: every store read through, its weight held in every cycle, any row alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_aioli.data.group import Group
from titan_aioli.data.streams import CYCLE_ROWS, Streams, WeightedStores, fixed_sample
from titan_aioli.proportions import normalize
from titan_aioli.stores.tokens import TokenStore


@given(
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=5), data=st.data(), start=st.integers(0, 10**9)
)
@settings(max_examples=40, deadline=None)
def test_store_weights_hold_in_every_cycle_and_each_store_is_read_through(sizes, data, start):
    weights = data.draw(st.lists(st.floats(0.05, 5), min_size=len(sizes), max_size=len(sizes)))
    streams = Streams(["g"], [sum(sizes)], 5, {0: WeightedStores(sizes, weights)})
    first = start // CYCLE_ROWS * CYCLE_ROWS
    epochs, sequences = streams.sequences(np.zeros(2 * CYCLE_ROWS, int), first + np.arange(2 * CYCLE_ROWS))
    stores = np.searchsorted(np.cumsum(sizes), sequences, side="right")
    for cycle in (stores[:CYCLE_ROWS], stores[CYCLE_ROWS:]):
        realised = np.bincount(cycle, minlength=len(sizes)) / CYCLE_ROWS
        shares = normalize(weights)
        bounds = np.maximum(2, len(sizes) * shares) / CYCLE_ROWS
        assert (abs(realised - shares) <= bounds + 1e-12).all()
    pairs = set(zip(epochs.tolist(), sequences.tolist(), strict=True))
    assert len(pairs) == 2 * CYCLE_ROWS  # no sequence twice in an epoch of its store
    one, other = (streams.sequences(np.zeros(1, int), np.array([first + n])) for n in (0, 17))
    assert (one[1][0], other[1][0]) == (sequences[0], sequences[17])  # any row alone


def test_more_stores_than_a_cycle_has_rows_are_refused():
    store = TokenStore("s", np.zeros(5, np.uint16))
    assert Group("web", [store] * 4096, 4, [1.0] * 4096).weighted
    with pytest.raises(ValueError, match="group 'web' has 4097 stores with store_weights: at most 4096"):
        Group("web", [store] * 4097, 4, [1.0] * 4097)


def test_the_fixed_sample_is_without_repeats_and_bounded():
    assert sorted(fixed_sample("g", 7, 100)) == list(range(7))
    assert len(set(fixed_sample("g", 1000, 64).tolist())) == 64


def test_windows_of_the_fixed_sample_follow_each_other_and_begin_again():
    whole = fixed_sample("g", 7, 7).tolist()
    assert fixed_sample("g", 7, 3, first=3).tolist() == whole[3:6]
    assert fixed_sample("g", 7, 3, first=6).tolist() == [whole[6], *whole[:2]]
