"""Mixing laws: fits that find known laws, their optimum, and covers (released numbers: test_golden.py)."""

import numpy as np
import pytest

from titan_aioli.laws import (
    LinearLaw,
    LogLinearLaw,
    dirichlet_cover,
    fit_linear,
    fit_log_linear,
    fit_olmix,
    merge_closest,
    mse,
    optimal_mixture,
    r2,
    repetition_caps,
    similarity,
)

# L_1 = 2 + exp(1 - 2 p_1), L_2 = 1 + exp(0.5 - 1 p_2), written with theta . p
TWO = LogLinearLaw(b=np.array([2.0, 1.0]), theta=np.array([[-1.0, 1.0], [0.5, -0.5]]))


def test_log_linear_predicts_irreducible_loss_plus_exponential():
    np.testing.assert_allclose(TWO.predict(np.array([1.0, 0.0])), [2 + np.exp(-1), 1 + np.exp(0.5)])
    np.testing.assert_allclose(TWO.predict(np.eye(2))[1], [2 + np.exp(1), 1 + np.exp(-0.5)])


def test_fit_of_exact_losses_gives_the_law_back():
    P = dirichlet_cover(2, 6)
    law = fit_log_linear(P, TWO.predict(P))
    np.testing.assert_allclose(law.b, TWO.b, atol=1e-6)
    np.testing.assert_allclose(law.theta, TWO.theta, atol=1e-6)


def test_several_starts_never_end_far_above_the_noise():
    """A single start fails on half of such problems (two groups, nine noisy runs)."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        P = rng.dirichlet([1, 1], size=9)
        a, m = rng.uniform(0.5, 1.5, 2), np.diag(rng.uniform(-3, -1, 2)) + rng.uniform(-0.5, 0.5, (2, 2))
        L = rng.uniform(2, 3, 2) + a * np.exp(P @ m) + rng.normal(0, 0.003, (9, 2))
        assert mse(L, fit_log_linear(P, L).predict(P)) < 2e-5


def test_linear_fit_gives_the_mixing_matrix_back():
    A = np.array([[0.3, 0.1], [0.0, 0.2]])
    P = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(-fit_linear(P, -P @ A.T).theta, A, atol=1e-12)


def test_huber_fit_shrugs_off_an_outlier():
    P = np.column_stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)])
    losses = P @ [[2.0], [3.0]]
    losses[4] += 5
    before = P.copy()
    np.testing.assert_allclose(fit_linear(P, losses, huber_delta=0.001).theta, [[2, 3]], atol=0.01)
    assert (before == P).all()
    assert abs(fit_linear(P, losses).theta - [[2, 3]]).max() > 0.1


def test_tables_that_cannot_determine_a_law_are_refused():
    two_runs, three = np.array([[0.5, 0.5], [0.25, 0.75]]), np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match=r"2 runs are too few for the log-linear law of 2 groups.* 3 runs"):
        fit_log_linear(two_runs, np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"the 4 runs are on 2 mixtures, too few .* at least 3 diff"):
        fit_log_linear(np.tile(two_runs, (2, 1)), np.random.default_rng(0).uniform(2, 3, (4, 2)))
    with pytest.raises(ValueError, match="span only 1 of 2 dimensions"):
        fit_linear(three, np.ones((3, 2)))
    with pytest.raises(ValueError, match="losses: run 1, column 0 is nan"):
        fit_linear(three, np.array([[1, 1], [np.nan, 1], [1, 1]]))
    with pytest.raises(ValueError, match="same number of runs"):
        fit_linear(three, np.ones((2, 2)))


@pytest.mark.parametrize("fit", [fit_linear, fit_log_linear, fit_olmix])
@pytest.mark.parametrize(
    ("shares", "rank"),
    [
        ([[0.6, 0.2, 0.2]] * 12, 1),
        (
            np.round([[0.75 * q, 1 - q, 0.25 * q] for q in np.linspace(0.1, 0.9, 12)], 7),
            2,
        ),  # a keeps 3 : 1 to c
        ([[q, 1 - q, 0.0] for q in np.linspace(0.1, 0.9, 12)], 2),  # c is never trained on
    ],
)
def test_mixtures_that_leave_a_direction_untried_are_refused(fit, shares, rank):
    with pytest.raises(ValueError, match=f"the mixtures of the 12 runs span only {rank} of 3 dimensions"):
        fit(np.array(shares), np.full((12, 1), 3.0))


def test_a_group_of_small_shares_is_tried_as_well_as_others():
    P = dirichlet_cover(3, 6) * [1e-5, 1, 1]  # effective shares of a group that is soon used up
    theta = np.array([[500.0, 1.0, 2.0]])
    np.testing.assert_allclose(fit_linear(P, P @ theta.T).theta, theta, rtol=1e-6)


def test_optimum_of_two_groups_in_closed_form():
    # d/dp of exp(1 - 2p) + exp(0.5 - (1 - p)) is 0 at 2 exp(1 - 2p) = exp(p - 0.5): p = (1.5 + log 2) / 3
    p = (1.5 + np.log(2)) / 3
    np.testing.assert_allclose(optimal_mixture(TWO, 2), [p, 1 - p], atol=1e-6)


def test_weights_say_which_evaluated_groups_count():
    np.testing.assert_allclose(optimal_mixture(TWO, 2, weights=[0, 1]), [0, 1], atol=1e-9)


def test_anchor_pulls_the_optimum_to_the_prior():
    prior, free = [0.2, 0.8], optimal_mixture(TWO, 2)
    shares = [optimal_mixture(TWO, 2, anchor=prior, anchor_strength=s)[0] for s in (1e-6, 0.5, 5, 1e4)]
    assert shares[0] == pytest.approx(free[0], abs=1e-4) and shares[-1] == pytest.approx(0.2, abs=1e-3)
    assert sorted(shares, reverse=True) == shares
    with pytest.raises(ValueError, match=r"anchor\[0\] is 0"):
        optimal_mixture(TWO, 2, anchor=[0, 1], anchor_strength=1)


def test_linear_law_with_an_anchor_is_a_softmax_of_the_anchor():
    # minimise c . p + s KL(p || a): p_j in proportion to a_j exp(-c_j / s)
    law, a = LinearLaw(np.array([[1.0, 2.0, 4.0]])), np.array([0.5, 0.3, 0.2])
    expected = a * np.exp(-np.array([1, 2, 4]) / 0.7)
    found = optimal_mixture(law, 3, anchor=a, anchor_strength=0.7)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)


def test_caps_hold_and_the_rest_is_optimal():
    law = LinearLaw(np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(optimal_mixture(law, 3, caps=[0.5, 0.3, 1.0]), [0.5, 0.3, 0.2], atol=1e-9)
    with pytest.raises(ValueError, match="caps sum to 0"):
        optimal_mixture(law, 3, caps=[0.3, 0.3, 0.3])


def test_caps_that_sum_to_1_leave_one_mixture():
    """7, 2 and 1 tokens for a run of 10, each read once: in floats the caps sum to less than 1."""
    caps = repetition_caps([7, 2, 1], 10, max_epochs=1)
    assert caps.sum() < 1
    found = optimal_mixture(LinearLaw(np.array([[1.0, 2.0, 3.0]])), 3, caps=caps)
    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], rtol=1e-12)


def test_repetition_caps_count_epochs():
    # 1000 tokens of training: 100 tokens may fill 40 % in 4 epochs, 10 tokens 4 %
    np.testing.assert_allclose(repetition_caps([100, 10, 900], 1000, max_epochs=4), [0.4, 0.04, 1.0])


def test_fidelity_by_hand():
    observed, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    assert mse(observed, predicted) == pytest.approx(1 / 3)
    assert r2(observed, predicted) == pytest.approx(1 - 1 / 2)
    assert np.isnan(r2(np.ones(3), np.ones(3)))


def test_similarity_compares_column_sums():
    A = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])  # column sums 1, 3, 1 against 3, 1, 1
    found = similarity(A, np.array([[3.0, 1.0, 1.0], [0, 0, 0]]))
    assert found.cosine == pytest.approx(7 / 11)
    assert found.spearman == pytest.approx(-0.5)  # ranks 1.5, 3, 1.5 against 3, 1.5, 1.5
    assert similarity(A, 2 * A).mean == pytest.approx(1)
    assert np.isnan(similarity(np.ones((2, 2)), A[:, :2]).spearman)


@pytest.mark.parametrize("alpha", [0.001, 1e308])
def test_shares_too_small_or_large_for_floats_are_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*, too far from 1: .* set 0.05 to 1e6"):
        dirichlet_cover(2, 6, alpha)
    for allowed in (0.05, 1e6):
        assert np.allclose(dirichlet_cover(2, 6, allowed).sum(axis=1), 1)


def test_cover_is_on_the_simplex_and_more_even_than_a_sample():
    def closest(points):
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return distance[np.triu_indices(len(points), 1)].min()

    cover, sample = dirichlet_cover(3, 12, seed=1), dirichlet_cover(3, 12, oversample=0, seed=1)
    assert cover.shape == (12, 3) and np.allclose(cover.sum(axis=1), 1)
    assert closest(cover) > 3 * closest(sample)
    with pytest.raises(ValueError, match="num_points is 0"):
        dirichlet_cover(3, 0)


def test_the_closest_points_are_merged_first():
    points = merge_closest([[0.0, 1.0], [0.5, 0.5], [0.1, 0.9], [1.0, 0.0]], 3)
    np.testing.assert_allclose(points, [[0.5, 0.5], [1.0, 0.0], [0.05, 0.95]])
