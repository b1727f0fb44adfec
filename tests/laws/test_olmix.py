"""Olmix's fit and proposal, mixture reuse and effective shares, each against an independent computation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from titan_aioli.laws import (
    LinearLaw,
    LogLinearLaw,
    RepeatedLaw,
    dirichlet_cover,
    effective_shares,
    fit_olmix,
    optimal_mixture,
)
from titan_aioli.laws.optimum import blocks
from titan_aioli.laws.plan import make_plan, plan_mixture
from titan_aioli.laws.repetition import effective_mixtures
from titan_aioli.laws.table import RunTable

WITH_REST = LogLinearLaw(
    b=np.array([1.5, 2.0]), theta=np.array([[-1.0, 0.5, 0.0, 0.5], [0.3, -2.0, 0.1, 0.3]])
)
"""LAW of effective shares, in which the rest is worth what the group worth least is."""
LAW = LogLinearLaw(b=np.array([1.5, 2.0]), theta=np.array([[-1.0, 0.5, 0.0], [0.3, -2.0, 0.1]]))
NATURAL = np.array([0.7, 0.05, 0.25])


def table_of(law, P, noise=0.0, epochs=None):
    rng = np.random.default_rng(0)
    losses = law.predict(P if epochs is None else effective_mixtures(P, epochs, 4.0))
    names = ["web", "code", "law"][: P.shape[1]]
    targets = [f"t{k}" for k in range(len(law.theta))]
    noisy = losses + rng.normal(0, noise, losses.shape)
    return RunTable(names, P, targets, noisy, "", epochs=epochs)


def test_fit_of_exact_losses_gives_the_law_back():
    P = dirichlet_cover(3, 12)
    law = fit_olmix(P, LAW.predict(P))
    np.testing.assert_allclose(law.b, LAW.b, atol=1e-9)
    np.testing.assert_allclose(law.theta, LAW.theta, atol=1e-9)


def huber_sum(x, P, y, delta):
    """Written again from the definition: 0.5 r^2 up to delta, then delta (|r| - 0.5 delta)."""
    r = np.abs(np.exp(x[0]) + np.exp(P @ x[1:]) - y)
    return np.where(r <= delta, 0.5 * r**2, delta * (r - 0.5 * delta)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_fit_of_noisy_losses_is_the_least_huber_sum_that_a_wide_search_finds(seed):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(2), 11)
    y = 2.0 + np.exp(P @ rng.normal(-0.5, 1, 2)) + rng.normal(0, 0.02, 11)
    y[3] += 0.4  # an outlier, which counts linearly
    found = fit_olmix(P, y[:, None])
    ours = huber_sum(np.append(np.log(found.b[0]), found.theta[0]), P, y, 0.02)
    starts = [np.array([np.log(b), *a]) for b in (0.5, 1.5, 2, 2.4) for a in rng.normal(0, 1, (15, 2))]
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
    ends = [minimize(huber_sum, x, (P, y, 0.02), method="Nelder-Mead", options=options) for x in starts]
    assert ours <= min(end.fun for end in ends) * (1 + 1e-9)


def test_too_few_runs_and_losses_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"11 runs are too few for the olmix law of 3 groups: .* 12 in all"):
        fit_olmix(dirichlet_cover(3, 11), np.ones((11, 1)))
    with pytest.raises(ValueError, match="the smallest loss is 0"):
        fit_olmix(dirichlet_cover(3, 12), np.zeros((12, 1)))


def minimum_by_exponentiated_gradient(value_and_gradient, p, caps, steps=200_000, size=0.05):
    """The constrained minimum by mirror descent with a projection: nothing in common with the planner."""
    for _ in range(steps):
        _, gradient = value_and_gradient(p)
        wanted = p * np.exp(-size * (gradient - gradient @ p))
        new = project(wanted / wanted.sum(), caps)
        if np.abs(new - p).max() < 1e-13:
            break
        p = new
    return p


def project(p, caps):
    """In KL divergence onto p <= caps: groups above their cap are set to it, the others scaled up."""
    capped = np.zeros(len(p), dtype=bool)
    while (p > caps + 1e-15).any():
        capped |= p > caps
        p = np.where(capped, caps, p * (1 - caps[capped].sum()) / p[~capped].sum())
    return p


@pytest.mark.parametrize("caps", [np.ones(3), np.array([1.0, 0.1, 0.35])])
@pytest.mark.parametrize("strength", [0.05, 0.5])
def test_the_proposal_is_the_minimum_with_caps_and_kl(caps, strength):
    w = np.array([0.25, 0.75])

    def objective(p):
        terms = w * np.exp(LAW.theta @ p)
        return None, terms @ LAW.theta + strength * (np.log(p / NATURAL) + 1)

    expected = minimum_by_exponentiated_gradient(objective, project(NATURAL, caps), caps)
    found = optimal_mixture(LAW, 3, w, NATURAL, strength, caps)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert (found <= caps + 1e-12).all()


def test_a_plan_by_olmix_pulls_with_005_to_its_anchor_by_default():
    table = table_of(LAW, dirichlet_cover(3, 12))
    made = make_plan(table, "olmix", anchor=NATURAL, weights=np.array([1.0, 3.0]))
    expected = optimal_mixture(LAW, 3, [1, 3], NATURAL, 0.05)
    np.testing.assert_allclose(made.proportions, expected, atol=1e-5)
    assert made.settings["anchor_strength"] == 0.05 and made.settings["huber_delta"] == 0.02
    np.testing.assert_allclose(made.frontier.proportions[2], made.proportions, atol=1e-9)
    assert (np.diff(made.frontier.divergence) < 0).all() and (np.diff(made.frontier.objective) > 0).all()
    at_zero = made.frontier.proportions[0]
    divergence = sum(p * np.log(p / q) for p, q in zip(at_zero, NATURAL, strict=True) if p > 0)
    assert made.frontier.divergence[0] == pytest.approx(divergence)


def test_leaving_a_run_out_gives_what_a_fit_without_it_predicts():
    table = table_of(LAW, dirichlet_cover(3, 13), noise=0.01)
    left_out = plan_mixture(table, "olmix").left_out
    kept = np.arange(13) != 4
    law = fit_olmix(table.proportions[kept], table.losses[kept])
    np.testing.assert_allclose(left_out[4], law.predict(table.proportions[4]), atol=1e-6)


def test_frozen_groups_keep_their_ratio_and_the_rest_is_optimal():
    basis = blocks([3.0, 0.0, 1.0], 3)
    np.testing.assert_allclose(basis, [[0.75, 0], [0, 1], [0.25, 0]])
    found = optimal_mixture(LAW, 3, anchor=NATURAL, anchor_strength=0.05, frozen=[3.0, 0.0, 1.0])
    assert found[0] == pytest.approx(3 * found[2])
    shares = np.linspace(1e-4, 1 - 1e-4, 20001)  # one free number: look at all of them
    P = np.column_stack([shares, 1 - shares]) @ basis.T
    values = LAW.predict(P).mean(axis=1) + 0.05 * (P * np.log(P / NATURAL)).sum(axis=1)
    np.testing.assert_allclose(found, P[values.argmin()], atol=1e-4)


def test_caps_of_frozen_groups_bound_all_of_them():
    found = optimal_mixture(LAW, 3, weights=[1, 0], caps=[1.0, 1.0, 0.1], frozen=[3.0, 0.0, 1.0])
    np.testing.assert_allclose(found, [0.3, 0.6, 0.1], atol=1e-9)


def test_runs_that_keep_the_ratio_determine_the_law_of_fewer_groups():
    basis = blocks([3.0, 0.0, 1.0], 3)
    P = dirichlet_cover(2, 9) @ basis.T
    table = table_of(LAW, P)
    with pytest.raises(ValueError, match=r"9 runs span only 2 of 3 .* freeze the groups"):
        make_plan(table, "olmix")
    made = make_plan(table, "olmix", frozen=np.array([3.0, 0.0, 1.0]), anchor=NATURAL)
    expected = optimal_mixture(LAW, 3, None, NATURAL, 0.05, frozen=[3.0, 0.0, 1.0])
    np.testing.assert_allclose(made.proportions, expected, atol=1e-5)
    np.testing.assert_allclose(made.predicted_losses, LAW.predict(expected), atol=1e-6)


def test_effective_shares_by_hand():
    # 0.5 of 1000 tokens from 100: 5 epochs, worth 100 x 4 (1 - exp(-5 / 4)) tokens
    expected = 100 * 4 * (1 - np.exp(-5 / 4)) / 1000
    np.testing.assert_allclose(effective_shares([0.5, 0.5], [5.0, 1e-6], 4.0), [expected, 0.5], rtol=1e-6)
    assert effective_shares([0.0], [0.0], 4.0) == [0.0]


def test_the_law_of_effective_shares_has_its_own_gradient_and_optimum():
    law = RepeatedLaw(WITH_REST, np.array([2.0, 40.0, 8.0]), 4.0)
    p, w, step = np.array([0.5, 0.2, 0.3]), np.array([0.4, 0.6]), 1e-6
    numeric = [(law.predict(p + step * e) - law.predict(p - step * e)) @ w / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(law.gradient(p, w), numeric, rtol=1e-6)
    found = optimal_mixture(law, 3, w)
    grid = dirichlet_grid(200)
    assert law.predict(found) @ w <= (law.predict(grid) @ w).min() + 1e-9


def dirichlet_grid(n):
    return np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]) / n


def test_a_plan_of_effective_shares_follows_the_planned_run():
    P, of_all = dirichlet_cover(3, 14), np.array([2.0, 40.0, 8.0])
    table = table_of(WITH_REST, P, epochs=P * of_all)
    made = make_plan(table, "olmix", tau=4.0, epochs_of_all=of_all, anchor_strength=0.0)
    expected = optimal_mixture(RepeatedLaw(WITH_REST, of_all, 4.0), 3)
    np.testing.assert_allclose(made.proportions, expected, atol=1e-4)
    np.testing.assert_allclose(made.fit.held_out_mse, 0, atol=1e-9)
    with pytest.raises(ValueError, match=r"no columns epochs\.GROUP"):
        make_plan(table._replace(epochs=None), "olmix", tau=4.0, epochs_of_all=of_all)
    with pytest.raises(ValueError, match="need the tokens of every group and of the planned run"):
        make_plan(table, "olmix", tau=4.0)


@pytest.mark.parametrize("law", ["linear", "log_linear"])
def test_laws_of_effective_shares_keep_their_constant(law):
    """A linear loss is 4 less what the shares are worth; to each target one group is worth nothing."""
    P, of_all = dirichlet_cover(3, 24), np.array([100.0, 1.0, 1.0])
    truth = LinearLaw(np.array([[1.0, 2.0, 4.0, 4.0], [2.0, 4.0, 1.0, 4.0]]))
    truth = truth if law == "linear" else LogLinearLaw(np.ones(2), truth.theta / 4)
    made = make_plan(table_of(truth, P, epochs=P * of_all), law, tau=4.0, epochs_of_all=of_all)
    np.testing.assert_allclose(made.fit.r2, 1, atol=1e-9)
    whole_truth = RepeatedLaw(truth, of_all, 4.0)
    np.testing.assert_allclose(made.predicted_losses, whole_truth.predict(made.proportions), atol=1e-6)
    np.testing.assert_allclose(made.proportions, optimal_mixture(whole_truth, 3), atol=1e-5)


def test_sweeps_that_repeat_little_are_not_extrapolated_by_their_noise():
    """At most 0.02 epochs in the sweep: a parameter of the rest would be of the order of 10 nats off."""
    P, of_all = dirichlet_cover(3, 24), np.array([2.0, 40.0, 8.0])
    table = table_of(WITH_REST, P, noise=0.01, epochs=P * of_all / 2000)
    made = make_plan(table, "linear", tau=4.0, epochs_of_all=of_all)
    np.testing.assert_array_equal(made.parameters["theta"][:, -1], made.parameters["theta"].max(axis=1))
    assert (
        np.abs(made.predicted_losses - RepeatedLaw(WITH_REST, of_all, 4.0).predict(made.proportions)).max()
        < 0.5
    )
