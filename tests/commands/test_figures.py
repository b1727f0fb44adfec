"""What figures and tables of several commands share."""

import numpy as np

from titan_aioli.commands.figures import MAX_DRAWN, first_and_last, largest, trained


def test_of_many_rows_the_first_and_the_last_are_kept():
    assert first_and_last(range(4), 4) == [0, 1, 2, 3]
    assert first_and_last(range(9), 4) == [0, 1, 7, 8]


def test_of_many_groups_those_with_the_largest_shares_are_drawn():
    shares = np.arange(MAX_DRAWN + 3.0)
    assert largest(shares).tolist() == list(range(3, MAX_DRAWN + 3))
    assert largest(shares[::-1]).tolist() == list(range(MAX_DRAWN))
    assert largest(np.array([0.5, 0.5])).tolist() == [0, 1]


def test_measuring_is_not_training():
    assert trained(["measure", "prior", "learn_params", "train"]) == [1, 3]
