"""ADO: loss curves of bounded size, the law through them, and the policy by hand."""

import numpy as np
import pytest

from tests.methods.helpers import state_after
from titan_aioli.methods import build_method
from titan_aioli.methods.ado import LossCurve, add_point, fit_power_law


def curve_of(losses_at, num_updates, num_groups, num_bins=16, first_update=1):
    curve = LossCurve(1, np.zeros((num_bins, 2)), np.zeros((num_bins, 2, num_groups)))
    for t in range(first_update, num_updates + 1):
        curve = add_point(curve, t, losses_at(t))
    return curve


def test_loss_curve_merges_neighbours_and_loses_nothing():
    curve = curve_of(lambda t: np.array([1.0, 2.0 if t % 2 else np.nan]), 21, 2, num_bins=8)
    assert curve.updates_per_bin == 4
    np.testing.assert_array_equal(curve.bin_updates[:, 0], [4, 4, 4, 4, 4, 1, 0, 0])
    assert curve.bin_updates[:, 1].sum() == 21 * 22 / 2
    np.testing.assert_array_equal(curve.bin_losses[:, :, 1].sum(axis=0), [11, 22])


def test_power_law_of_an_exact_curve_is_found():
    # alphas on the grid; 15 updates fit into the bins one by one
    law = fit_power_law(curve_of(lambda t: np.array([2.0 + 3.0 * t**-0.3, 1.0 + 0.5 * t**-0.75]), 15, 2))
    np.testing.assert_allclose(law, [[2.0, 1.0], [3.0, 0.5], [0.3, 0.75]], rtol=1e-6)


def test_power_law_survives_merging_and_noise():
    rng = np.random.default_rng(0)
    curve = curve_of(
        lambda t: 2.0 + 3.0 * t**-0.4 + rng.normal(0, 0.01, 1), 2000, 1, num_bins=64, first_update=50
    )
    _, beta, alpha = fit_power_law(curve)[:, 0]
    assert alpha * beta * 2000 ** (-alpha - 1) == pytest.approx(0.4 * 3.0 * 2000**-1.4, rel=0.1)


def test_power_law_of_a_rising_or_unseen_group_is_flat_or_unknown():
    law = fit_power_law(curve_of(lambda t: np.array([1.0 + t, np.nan]), 10, 2))
    assert law[1, 0] == 0.0 and np.isnan(law[:, 1]).all()


def test_ado_trains_on_its_prior_and_then_on_the_group_that_learns_fastest():
    def losses(t):
        return np.array([2.0 + 3.0 * t**-0.5, 2.0 + 0.3 * t**-0.5, 2.5])

    method = build_method("ado", 3, prior=[1, 1, 2], warmup_updates=20, min_share=0.05)
    np.testing.assert_allclose(state_after(method, losses, 19, 3).proportions, [0.25, 0.25, 0.5])
    later = state_after(method, losses, 200, 3)
    assert later.proportions[0] > 0.25 > later.proportions[1] >= 0.05
    assert later.credit[0] > later.credit[1]


def test_ado_policy_by_hand():
    """One group learns, both with the same prior: rho = (1, 0), lifted to the least share."""
    method = build_method("ado", 2, warmup_updates=5, ignored_updates=0, min_share=0.1, gamma2=0.5)
    state = state_after(method, lambda t: np.array([1.0 + t**-0.5, 1.0]), 5, 2)
    np.testing.assert_allclose(state.proportions, 0.5 * np.array([0.9, 0.1]) + 0.5 * 0.5, atol=1e-9)
    np.testing.assert_allclose(state.average, np.array([0.5, 0.5]) + (state.proportions - 0.5) / 6, atol=1e-9)
    np.testing.assert_allclose(state.credit, 0.1 * state.proportions + 0.9 * 0.5, atol=1e-9)


def test_ado_prefers_the_group_that_has_the_credit():
    """Two groups with the same curve: rho is in proportion to credit ** s, here 0.8 : 0.4."""
    method = build_method("ado", 2, warmup_updates=5, ignored_updates=0, gamma2=1.0)
    state = state_after(method, lambda t: np.full(2, 1.0 + t**-0.5), 4, 2)._replace(
        credit=np.array([0.64, 0.16])
    )
    state = method.update(state, np.full(2, 1.0 + 5**-0.5))
    np.testing.assert_allclose(state.proportions, [2 / 3, 1 / 3], atol=1e-9)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"warmup_updates": 12}, "ado.warmup_updates is 12: .* at least 13"),
        ({"num_bins": 9}, "ado.num_bins is 9"),
        ({"gamma1": 0.0}, "ado.gamma1 is 0.0"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("ado", 2, **hyperparameters)
