"""The regression behind Aioli's standard errors and its options beyond the paper."""

from itertools import islice

import numpy as np
import pytest

from tests.methods.helpers import drive, linear_world
from titan_aioli.methods import build_method
from titan_aioli.methods.aioli.regression import training_observation
from titan_aioli.methods.walk import walk


@pytest.mark.parametrize(
    "options",
    [
        {"mixtures": "centred"},
        {"mixtures": "opposite"},
        {"pooling": 0.5},
        {"pooling": 0.5, "pool_training": True},
    ],
)
@pytest.mark.parametrize("num_groups", [2, 3, 7])
def test_a_regression_gives_an_exact_linear_law_back_whatever_the_mixtures(num_groups, options):
    A = np.random.default_rng(num_groups).normal(0.02, 0.01, (num_groups, num_groups))
    if "pooling" in options:  # the same order in every round, so that the drops have the same spread
        options = {**options, "orders": [list(range(num_groups)) * 3] * 3}
    method = build_method("aioli", num_groups, one_hot_factor=0.6, num_sweeps=3, **options)
    for state in drive(method, num_groups, linear_world(A, np.full(num_groups, 5.0)), num_rounds=3):
        np.testing.assert_allclose(state.solved_A, A, rtol=0, atol=1e-9)
        np.testing.assert_allclose(state.stderr, 0, atol=1e-5)


@pytest.mark.parametrize("mixtures, segments", [("one_hot", 9), ("centred", 9), ("opposite", 18)])
def test_mixtures_of_a_sweep_are_on_the_simplex_and_balanced(mixtures, segments):
    method = build_method("aioli", 3, num_sweeps=3, eta=3.0, mixtures=mixtures)
    A = np.array([[0.03, 0.01, 0.0], [0.02, 0.01, 0.0], [0.0, 0.02, 0.0]])
    seen, losses = [], np.full(3, 5.0)

    def observe(stretch):
        nonlocal losses
        losses = losses - A @ stretch.phase.proportions
        return losses

    for _, _, phase, state in islice(walk(method, 3, observe), 2 * segments + 3):
        if phase.name == "learn_params" and state.round == 1:
            seen.append((phase.proportions, state.proportions))
    swept, centre = np.array([mixture for mixture, _ in seen]), seen[0][1]
    assert len(swept) == segments and (swept >= 0).all() and np.ptp(centre) > 0.05
    np.testing.assert_allclose(swept.sum(axis=1), 1)
    if mixtures == "opposite":
        np.testing.assert_allclose(swept.mean(axis=0), centre, atol=1e-12)


def test_the_standard_error_is_that_of_repeated_rounds():
    A, noise, rng = np.full((3, 3), 0.02), 0.004, np.random.default_rng(0)

    def observe(phase, losses, round_):
        start = np.full(3, 5.0) if losses is None else losses
        return start - A @ phase.proportions * phase.num_steps / 4 - rng.normal(0, noise, 3)

    method = build_method("aioli", 3, num_sweeps=4, normalize=False)
    trained = drive(method, 3, observe, num_rounds=300)
    sums = np.array([state.solved_A.sum(axis=0) for state in trained])
    spread = (sums - sums.mean(axis=1, keepdims=True)).std(axis=0)
    errors = np.sqrt(np.mean([state.stderr**2 for state in trained], axis=0))
    np.testing.assert_allclose(errors, spread, rtol=0.15)


def test_pooling_forgets_the_past_by_its_weight():
    def rounds(pooling):
        rng = np.random.default_rng(1)

        def observe(phase, losses, round_):
            return (np.full(3, 5.0) if losses is None else losses) - rng.normal(0, 0.01, 3)

        method = build_method("aioli", 3, num_sweeps=2, pooling=pooling, normalize=False)
        return drive(method, 3, observe, num_rounds=40)

    trained, alone = rounds(0.9), rounds(0.0)
    # 6 segments less level and trend, summed with weights 1, 0.9, 0.81, ...
    np.testing.assert_allclose(trained[-1].pooled_freedom, 4 * (1 - 0.9**40) / 0.1)
    assert trained[-1].stderr.mean() < 0.6 * np.mean([state.stderr for state in alone])


def test_pooling_learns_from_rounds_whose_drops_are_ten_times_smaller():
    """Drops and their noise are 0.1 of those of the first round from the second on, as after warm-up."""
    A = np.array([[0.03, 0.01, 0.0], [0.02, 0.01, 0.0], [0.0, 0.02, 0.0]])
    sums = A.sum(axis=0) - A.sum() / 3

    def errors(pooling):
        rng = np.random.default_rng(3)

        def observe(phase, losses, round_):
            start, scale = np.full(3, 5.0) if losses is None else losses, 1.0 if round_ == 0 else 0.1
            return start - scale * (A @ phase.proportions * phase.num_steps / 4 + rng.normal(0, 0.01, 3))

        method = build_method("aioli", 3, num_sweeps=4, eta=1e-9, pooling=pooling)
        found = [s.solved_A.sum(axis=0) for s in drive(method, 3, observe, num_rounds=40)]
        return [np.abs(f - f.mean() - 0.1 * sums).max() for f in found]

    assert np.mean(errors(0.9)[5:]) < 0.5 * np.mean(errors(None)[5:])
    assert np.mean(errors(0.9)[1:5]) < 1.2 * np.mean(errors(None)[1:5])


def test_the_step_shrinks_where_A_is_noise_and_not_where_it_is_clear():
    scales = {}
    for noise in (1e-6, 1.0):
        rng = np.random.default_rng(2)
        A = np.array([[0.03, 0.01, 0.0], [0.02, 0.01, 0.0], [0.0, 0.02, 0.0]])

        def observe(phase, losses, round_, rng=rng, A=A, noise=noise):
            start = np.full(3, 5.0) if losses is None else losses
            return start - A @ phase.proportions * phase.num_steps / 4 - rng.normal(0, 0.03 * noise, 3)

        method = build_method("aioli", 3, shrink=True)
        scales[noise] = [state.step_scale for state in drive(method, 3, observe, num_rounds=20)]
    assert min(scales[1e-6]) > 0.999
    assert np.mean(scales[1.0]) < 0.6


def test_too_few_segments_for_a_regression_leave_the_proportions_and_say_so():
    method = build_method("aioli", 3, num_sweeps=1, pooling=0.9)
    world = linear_world(np.diag([0.03, 0.02, 0.01]), np.full(3, 5.0))
    first, _, third = drive(method, 3, world, num_rounds=3)
    assert "too few segments" in method.report(first)["note"] and np.ptp(first.proportions) == 0
    assert "note" not in method.report(third) and np.ptp(third.proportions) > 0


def errors_along_the_proportions(pool_training, falls_to, seed):
    """Of the column sums in 100 rounds; the level of the drops falls by a factor from round to round."""
    A = np.array([[0.03, 0.01, 0.0], [0.02, 0.01, 0.0], [0.0, 0.02, 0.0]])
    rng = np.random.default_rng(seed)

    def observe(phase, losses, round_):
        start, segments = np.full(3, 5.0) if losses is None else losses, phase.num_steps / 4
        level = 0.5 * falls_to ** (round_ + 0.5 * (phase.name == "train"))
        return start - segments * (A @ phase.proportions + level) - rng.normal(0, 0.02, 3)

    options = {"pooling": 0.8, "pool_training": pool_training, "eta": 1.0, "normalize": False}
    trained = drive(build_method("aioli", 3, **options), 3, observe, num_rounds=120)[20:]
    directions = np.array([state.proportions - 1 / 3 for state in trained])
    errors = np.array([(state.solved_A - A).sum(axis=0) for state in trained])
    return (errors * directions).sum(axis=1) / np.linalg.norm(directions, axis=1)


@pytest.mark.parametrize("falls_to", [1.0, 0.9])
def test_training_phases_add_to_what_is_known(falls_to):
    """Along the line from the mixture of LearnParams, uniform on average, to what is trained on."""
    with_training, without = (
        np.sqrt(np.mean([errors_along_the_proportions(p, falls_to, seed) ** 2 for seed in range(5)]))
        for p in (True, False)
    )
    assert with_training < 0.85 * without


def test_a_training_phase_counts_little_where_the_level_falls():
    mixture, before, after = np.array([0.5, 0.5]), np.full(2, 100.0), np.full(2, 40.0)
    levels = (np.concatenate([mixture, before]), np.concatenate([mixture, after]))
    row = training_observation(
        np.concatenate([[0.9, 0.1], after]), levels, 1.0, num_segments=40, num_learned=12
    )
    off_level = 60 / np.log(100 / 40) - 40  # the mean of 100 * 0.4**t over t from 0 to 1, less 40
    np.testing.assert_allclose(row, np.array([0.4, -0.4, -off_level, -off_level]) / (60 / 12**0.5), rtol=1e-3)


def test_a_training_phase_of_a_steady_level_counts_as_its_noise_says():
    levels = (np.array([0.5, 0.5, 100.0, -1.0]),) * 2
    row = training_observation(
        np.array([0.9, 0.1, 101.0, -1.0]), levels, 1.0, num_segments=40, num_learned=12
    )
    np.testing.assert_allclose(row, np.array([0.4, -0.4, 1.0, 0.0]) / (1 / 40 + 1 / 12) ** 0.5)


def test_a_training_phase_whose_loss_is_no_number_is_left_out():
    """The LearnParams after it starts from a new evaluation, and counts."""
    method = build_method("aioli", 3, pooling=0.8, pool_training=True)
    world = linear_world(np.diag([0.03, 0.02, 0.01]), np.full(3, 5.0))
    (last,) = drive(method, 3, world, num_rounds=1)
    state = last._replace(round=1, measured_drop=np.full(3, np.nan), level=np.full(6, np.nan))
    ended = method._end_learn_params(state)
    assert np.isfinite(ended.solved_A).all() and ended.pooled_freedom == 0.8 * last.pooled_freedom + 10
