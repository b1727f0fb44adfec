"""The mixture that counts with repetition: at the end of the run all groups are worth the same."""

import numpy as np
import pytest

from titan_aioli.methods.repetition import lasting_mixture

TAU = 15.0


def log_worth_at_the_end(theta, values, power, epochs, ahead):
    """The logarithm of what a row of each group is worth then, by the law itself."""
    again = np.maximum(epochs + ahead * theta - 1, 0) - np.maximum(epochs - 1, 0)
    return np.log(values) - again / TAU - power * np.log(theta)


@pytest.mark.parametrize("power", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("longest", [1.0, 40.0, 1e9])
def test_at_the_end_of_the_run_all_groups_are_worth_the_same(power, longest):
    rng = np.random.default_rng(0)
    for _ in range(100):
        values, ahead = rng.dirichlet(np.ones(6)), longest * rng.uniform(size=6) ** 3
        epochs = rng.uniform(0, 4, 6) * rng.integers(0, 2, 6)
        theta = lasting_mixture(values, power, epochs, ahead, TAU)
        assert theta.sum() == pytest.approx(1.0)
        worth = log_worth_at_the_end(theta, values, power, epochs, ahead)
        assert np.ptp(worth) < 1e-6 * max(1.0, np.abs(worth).max())


def test_without_repetition_it_is_the_law_s_best_mixture_whatever_the_groups_sizes():
    values, ahead = np.array([0.5, 0.3, 0.2]), np.array([1.2, 2.0, 0.9])  # none is read a second time
    best = values**2 / (values**2).sum()
    np.testing.assert_allclose(lasting_mixture(values, 0.5, np.zeros(3), ahead, TAU), best, rtol=1e-12)


def test_a_small_group_gets_less_the_more_often_it_was_read_before():
    values, ahead = np.array([3.0, 1.0, 1.0]), np.array([20.0, 0.5, 0.5])
    shares = [
        lasting_mixture(values, 0.5, np.array([epochs, 0.0, 0.0]), ahead, TAU)[0] for epochs in (0, 0.5, 1, 9)
    ]
    assert 0.82 > shares[0] > shares[1] > shares[2] > 1 / 3  # 9 of 11 without repetition
    assert shares[3] == pytest.approx(shares[2])  # what was lost before is in the values already


def test_a_group_without_value_gets_nothing_and_the_others_all():
    theta = lasting_mixture(np.array([0.0, 0.0, 2.0]), 0.5, np.zeros(3), np.full(3, 1e6), TAU)
    np.testing.assert_array_equal(theta, [0.0, 0.0, 1.0])
