"""ODM: numbers by hand."""

import numpy as np
import pytest

from tests.methods.helpers import state_after
from titan_aioli.methods import build_method
from titan_aioli.methods.odm import exploration
from titan_aioli.proportions import softmax


def test_odm_explores_evenly_first_and_ever_less_later():
    assert exploration(1, 4) == 0.25
    assert exploration(100, 4) == pytest.approx(np.sqrt(np.log(4) / 400))
    assert exploration(5, 1) == 0.0


def test_odm_rewards_are_losses_over_shares_and_the_policy_is_exp3():
    method = build_method("odm", 2, alpha=0.5)
    state = method.update(method.init(2), np.array([3.0, 1.0]))
    np.testing.assert_allclose(state.rewards, [3.0, 1.0])  # 0.5 * 0 + 0.5 * L / 0.5
    epsilon_1, epsilon_2 = 0.5, np.sqrt(np.log(2) / 4)
    expected = (1 - 2 * epsilon_2) * softmax(epsilon_1 * np.array([3.0, 1.0])) + epsilon_2
    np.testing.assert_allclose(state.proportions, expected)


def test_odm_prefers_the_group_of_high_loss_and_never_forgets_the_other():
    method = build_method("odm", 2, importance_weighted=False)
    state = state_after(method, lambda t: np.array([9.0, 1.0]), 50, 2)
    assert exploration(51, 2) <= state.proportions[1] < 0.5 < state.proportions[0]


def test_odm_absent_group_keeps_its_reward():
    method = build_method("odm", 2)
    state = state_after(method, lambda t: np.array([3.0, 1.0 if t == 1 else np.nan]), 3, 2)
    np.testing.assert_allclose(state.rewards[1], 0.1 * 1.0 / 0.5)


def test_odm_warms_up_on_its_prior():
    method = build_method("odm", 2, prior=[1, 3], warmup_updates=2)
    first = state_after(method, lambda t: np.array([3.0, 1.0]), 1, 2)
    np.testing.assert_allclose(first.proportions, [0.25, 0.75])
    assert first.rewards[0] > 0
    assert abs(state_after(method, lambda t: np.array([3.0, 1.0]), 2, 2).proportions[0] - 0.25) > 0.01


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"alpha": 1.0}, "odm.alpha is 1.0"),
        ({"prior": [1]}, "odm.prior has 1 numbers for 2 groups"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("odm", 2, **hyperparameters)
