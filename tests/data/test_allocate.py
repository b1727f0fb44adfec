"""Proportions to whole rows: largest remainder, no drift, the rows of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_aioli.data.allocate import allocate, allocate_steps
from titan_aioli.proportions import normalize


def test_largest_remainder_by_hand():
    counts, carry = allocate(np.array([0.5, 0.3, 0.2]), 8, np.zeros(3))  # asked: 4, 2.4, 1.6
    assert counts.tolist() == [4, 2, 2]
    assert carry == pytest.approx([0, 0.4, -0.4])


def test_the_remainder_is_given_in_the_next_step():
    carry, given_ = np.zeros(2), []
    for _ in range(4):
        counts, carry = allocate(np.array([0.25, 0.75]), 2, carry)
        given_.append(counts.tolist())
    assert np.sum(given_, axis=0).tolist() == [2, 6]


def test_a_group_with_proportion_zero_gets_no_row_even_if_owed():
    counts, carry = allocate(np.array([0.0, 1.0]), 4, np.array([0.9, -0.9]))
    assert counts.tolist() == [0, 4]
    assert carry == pytest.approx([0.9, -0.9])


@pytest.mark.parametrize("num_groups", [2, 7, 100])
@pytest.mark.parametrize("sparse", [False, True])
def test_realised_counts_stay_within_two_rows_of_what_was_asked(num_groups, sparse):
    """10^6 rows, proportions changed 1,000 times at random; groups drop to zero at random if sparse."""
    rng = np.random.default_rng(num_groups)
    carry, asked, realised = np.zeros(num_groups), np.zeros(num_groups), np.zeros(num_groups)
    worst, batch_size = 0.0, 125
    for _ in range(1000):
        proportions = rng.dirichlet(np.full(num_groups, rng.choice([0.3, 1.0, 10.0])))
        if sparse:
            proportions = proportions * (rng.random(num_groups) < 0.5)
            proportions[rng.integers(num_groups)] += 0.1
            proportions = proportions / proportions.sum()
        for _ in range(8):
            counts, carry = allocate(proportions, batch_size, carry)
            assert counts.sum() == batch_size and counts.min() >= 0
            asked += proportions * batch_size
            realised += counts
        worst = max(worst, np.abs(asked - realised).max())
    assert worst < 2


def allocate_by_definition(quota, batch_size, carry):
    """The whole rows that are owed, then each row on its own, to or from whom it is owed most or least."""
    target = quota + carry
    counts = np.maximum(0, target.astype(int))
    while counts.sum() < batch_size:
        counts[np.argmax(target - counts)] += 1
    while counts.sum() > batch_size:
        counts[np.argmin(np.where(counts > 0, target - counts, np.inf))] -= 1
    return counts, target - counts


@given(data=st.data(), num_groups=st.integers(1, 60), batch_size=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_rows_go_one_by_one_to_the_group_that_is_owed_most(data, num_groups, batch_size):
    some_weights = st.lists(
        st.sampled_from([0.001, 0.2, 1.0, 1.0, 30.0]), min_size=num_groups, max_size=num_groups
    )
    carry = np.zeros(num_groups)
    for weights in [data.draw(some_weights) for _ in range(3)]:
        proportions = normalize(weights)
        rows, end = allocate_steps(proportions, batch_size, carry, 5)
        for index in range(5):
            counts, carry = allocate_by_definition(proportions * batch_size, batch_size, carry)
            assert np.bincount(rows[index], minlength=num_groups).tolist() == counts.tolist()
        assert end.tolist() == carry.tolist()


@pytest.mark.parametrize(("num_groups", "batch_size"), [(300, 1), (300, 3), (300, 40), (1000, 8)])
def test_rows_of_many_groups_are_those_of_the_definition(num_groups, batch_size):
    """Most steps look at few candidates; where these are too few, all groups are looked at."""
    proportions = np.random.default_rng(0).dirichlet(np.full(num_groups, 0.5)) + 1e-12
    proportions /= proportions.sum()
    rows, end = allocate_steps(proportions, batch_size, np.zeros(num_groups), 300)
    carry = np.zeros(num_groups)
    for row in rows:
        counts, carry = allocate_by_definition(proportions * batch_size, batch_size, carry)
        assert np.bincount(row, minlength=num_groups).tolist() == counts.tolist()
    assert end.tolist() == carry.tolist()


def test_many_steps_at_once_are_single_steps_repeated():
    for num_groups in (3, 30):
        proportions = np.random.default_rng(0).dirichlet(np.ones(num_groups))
        rows, end = allocate_steps(proportions, 10, np.zeros(num_groups), 30)
        carry = np.zeros(num_groups)
        for index in range(30):
            counts, carry = allocate(proportions, 10, carry)
            assert np.bincount(rows[index], minlength=num_groups).tolist() == counts.tolist()
        assert end.tolist() == carry.tolist()
