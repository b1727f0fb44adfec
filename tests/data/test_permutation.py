"""Keyed permutations: bijections, different for every key, and not merely shifted copies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_aioli.data.permutation import make_key, permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_point_of_the_range_is_hit_once(size, key):
    images = permute(np.arange(size), np.array([size]), make_key(key))
    assert sorted(images) == list(range(size))


def test_points_with_their_own_sizes_and_keys_are_permuted_on_their_own():
    sizes, keys = np.array([5, 900]), make_key(3, np.array([7, 8], dtype=np.uint64))
    together = permute(np.array([4, 4]), sizes, keys)
    alone = [permute(np.array([4]), sizes[i : i + 1], keys[i : i + 1])[0] for i in (0, 1)]
    assert together.tolist() == alone


def test_another_key_gives_another_order():
    orders = {tuple(permute(np.arange(50), np.array([50]), make_key(1, epoch))) for epoch in range(100)}
    assert len(orders) == 100


def test_a_range_of_a_trillion_needs_no_table():
    size = np.array([10**12])
    images = permute(np.arange(10**12 - 1000, 10**12), size, make_key(5))
    assert len(set(images.tolist())) == 1000
    assert 0.4e12 < images.mean() < 0.6e12


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_first_place_is_uniform_over_keys(size):
    firsts = [permute(np.array([0]), np.array([size]), make_key(k))[0] for k in range(3000)]
    assert abs(np.mean(firsts) / ((size - 1) / 2) - 1) < 0.06
