"""Aioli against the released code's numbers, against an exact law, and at its edges."""

import numpy as np
import pytest

from tests.methods.helpers import AIOLI_CASES, drive, golden_aioli, linear_world
from titan_aioli.methods import build_method
from titan_aioli.methods.aioli.learn_params import normalized, solve_mixing_matrix


@pytest.mark.parametrize("case", AIOLI_CASES, ids=[case["name"] for case in AIOLI_CASES])
def test_golden_numbers_of_the_released_code(case):
    inputs, outputs = case["inputs"], case["outputs"]
    method = golden_aioli(inputs)
    state = method.init(inputs["k"])
    for round_ in range(inputs["rounds"]):
        state = method.update(state, np.array(inputs["loss_at_round_start"][round_]))
        mixtures = []
        for losses in inputs["loss_after_segment"][round_]:
            mixtures.append(method.phase(state).proportions)
            state = method.update(state, np.array(losses))
        if round_ == 0:
            np.testing.assert_allclose(mixtures, outputs["segment_proportions_round0"], atol=1e-12)
        expected = {
            "raw_A": outputs["raw_A"][round_],
            "solved_A": outputs["solved_A"][round_],
            "normalized_A": outputs["normalized_A"][round_],
            "proportions": outputs["proportions"][round_],
        }
        if inputs["ema"] is not None:
            expected["ema_A"] = outputs["ema_A"][round_]
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(state, name), value, rtol=1e-12, atol=1e-12, err_msg=name)
        assert method.phase(state).name == "train"


@pytest.mark.parametrize("num_groups", [2, 3, 7])
def test_exact_linear_law_gives_A_back(num_groups):
    A = np.random.default_rng(num_groups).normal(0.02, 0.01, (num_groups, num_groups))
    method = build_method("aioli", num_groups, one_hot_factor=0.6, num_sweeps=3)
    trained = drive(method, num_groups, linear_world(A, np.full(num_groups, 5.0)), num_rounds=2)
    for state in trained:
        np.testing.assert_allclose(state.solved_A, A, rtol=0, atol=1e-12)


def test_the_group_that_helps_most_is_trained_on_most():
    A = np.array([[0.03, 0.01], [0.02, 0.01]])  # column sums 0.05 and 0.02
    method = build_method("aioli", 2, eta=1.0)
    first, second = drive(method, 2, linear_world(A, np.array([4.0, 4.0])), num_rounds=2)
    # A / sum has columns 5/7 and 2/7; cumulative: weights exp(5/7), exp(2/7), then squared
    np.testing.assert_allclose(first.proportions[0], 1 / (1 + np.exp(-3 / 7)), rtol=1e-9)
    np.testing.assert_allclose(second.proportions[0], 1 / (1 + np.exp(-6 / 7)), rtol=1e-9)


def test_restart_begins_every_round_from_uniform_weights():
    A = np.array([[0.03, 0.01], [0.02, 0.01]])
    method = build_method("aioli", 2, eta=1.0, update="restart")
    first, second = drive(method, 2, linear_world(A, np.array([4.0, 4.0])), num_rounds=2)
    np.testing.assert_allclose(second.proportions, first.proportions, rtol=1e-9)


def test_ema_is_the_weight_on_the_past():
    A = [np.diag([0.4, 0.1]), np.diag([0.1, 0.4])]  # normalised: diagonals (0.8, 0.2), then (0.2, 0.8)

    def observe(phase, losses, round_):
        return (
            losses - A[round_] @ phase.proportions if phase.name == "learn_params" else np.array([4.0, 4.0])
        )

    method = build_method("aioli", 2, one_hot_factor=1.0, ema=0.25)
    second = drive(method, 2, observe, num_rounds=2)[1]
    # 0.75 * 0.2 + 0.25 * 0.8 = 0.35 and 0.75 * 0.8 + 0.25 * 0.2 = 0.65
    np.testing.assert_allclose(second.ema_A, np.diag([0.35, 0.65]), atol=1e-12)


def test_A_that_is_constant_leaves_the_proportions_and_says_so():
    method = build_method("aioli", 2)
    trained = drive(method, 2, lambda *_: np.array([3.0, 4.0]), num_rounds=1)[0]
    np.testing.assert_array_equal(trained.proportions, [0.5, 0.5])
    assert "A is constant" in method.report(trained)["note"]


def test_A_that_is_constant_but_for_rounding_leaves_the_proportions_too():
    """All losses rise by as much in every segment."""
    losses = iter(3.7 + 0.1 * np.arange(100))
    method = build_method("aioli", 3)
    trained = drive(method, 3, lambda *_: np.full(3, next(losses)), num_rounds=1)[0]
    assert 0 < np.ptp(trained.raw_A) < 1e-12 and trained.raw_A.max() < -0.01
    np.testing.assert_array_equal(trained.proportions, np.full(3, 1 / 3))
    assert "A is constant" in method.report(trained)["note"]


def test_nan_loss_leaves_the_proportions_names_the_group_and_later_rounds_recover():
    A = np.array([[0.03, 0.01], [0.02, 0.01]])
    method, world = build_method("aioli", 2, eta=1.0), linear_world(A, np.full(2, 4.0))

    def observe(phase, losses, round_):
        if phase.name == "learn_params" and round_ == 1:
            return np.array([4.0, np.nan])
        return world(phase, None if phase.name == "train" else losses, round_)

    first, second, third = drive(method, 2, observe, num_rounds=3)
    np.testing.assert_array_equal(second.proportions, first.proportions)
    assert method.report(second)["note"].endswith("what was observed is not finite")
    assert third.proportions[0] > first.proportions[0]
    assert "note" not in method.report(third)


def test_finite_losses_too_large_to_sum_leave_the_proportions_and_say_so():
    method = build_method("aioli", 2, num_sweeps=1, one_hot_factor=1.0, normalize=False)
    state = method.init(2)
    for losses in (
        [1e308, 1e308],
        [0.0, 0.0],
        [0.0, 0.0],
    ):  # a column of A is (1e308, 1e308): its sum overflows
        state = method.update(state, np.array(losses))
    np.testing.assert_array_equal(method.phase(state).proportions, [0.5, 0.5])
    assert "too large to compute with" in method.report(state)["note"]


def test_a_round_counts_learn_params_and_training():
    method = build_method("aioli", 3, num_sweeps=2, steps_per_mixture=5, steps_per_round=100)
    steps = {"measure": 0, "learn_params": 0, "train": 0}
    state = method.init(3)
    for _ in range(1 + 2 * 3 + 1):
        phase = method.phase(state)
        steps[phase.name] += phase.num_steps
        state = method.update(state, np.ones(3))
    assert steps == {"measure": 0, "learn_params": 30, "train": 70}


def test_predicted_drop_equals_the_measured_one_under_an_exact_law():
    A = np.array([[0.03, 0.01], [0.02, 0.01]])
    method, world = build_method("aioli", 2), linear_world(A, np.full(2, 4.0))
    state = drive(method, 2, world, num_rounds=1)[0]
    state = method.update(state, world(method.phase(state), state.losses, 0))
    report = method.report(state)
    np.testing.assert_allclose(report["predicted_drop"], report["measured_drop"], rtol=1e-9)
    assert set(method.metrics(state)) == {"mixing/predicted_drop", "mixing/measured_drop"}


def test_metrics_of_an_update_are_the_column_sums_of_A_and_their_errors():
    A = np.array([[0.03, 0.01], [0.02, 0.01]])
    method = build_method("aioli", 2)
    (trained,) = drive(method, 2, linear_world(A, np.full(2, 4.0)), num_rounds=1)
    metrics = method.metrics(trained)
    assert set(metrics) == {"aioli/column_sum", "aioli/stderr"}
    np.testing.assert_allclose(metrics["aioli/column_sum"], [5 / 7, 2 / 7], rtol=1e-9)


def test_sweep_orders_are_a_function_of_seed_and_round_and_can_be_given():
    method = build_method("aioli", 4, num_sweeps=2, seed=5)
    order = method.sweep_order(0, 4)
    assert order == method.sweep_order(0, 4) != method.sweep_order(1, 4)
    assert sorted(order[:4]) == sorted(order[4:]) == [0, 1, 2, 3]
    shuffled = build_method("aioli", 4, num_sweeps=2, seed=5, order="shuffled").sweep_order(0, 4)
    assert sorted(shuffled) == [0, 0, 1, 1, 2, 2, 3, 3]
    given = build_method("aioli", 2, num_sweeps=1, orders=[[1, 0]])
    assert given.sweep_order(0, 2) == [1, 0]
    assert sorted(given.sweep_order(1, 2)) == [0, 1]


def test_prior_is_trained_on_first_and_then_forgotten():
    method = build_method("aioli", 2, prior=[1, 3], prior_steps=7)
    state = method.init(2)
    phase = method.phase(state)
    assert (phase.num_steps, phase.name) == (7, "prior")
    np.testing.assert_allclose(phase.proportions, [0.25, 0.75])
    assert method.phase(method.update(state, np.ones(2))).name == "learn_params"
    np.testing.assert_array_equal(state.proportions, [0.5, 0.5])


@pytest.mark.parametrize("update_rule", ["cumulative", "restart"])
def test_rounds_that_start_from_the_prior_adjust_it(update_rule):
    method = build_method("aioli", 2, prior=[1, 3], prior_steps=7, start="prior", update_rule=update_rule,
                          num_sweeps=1, steps_per_mixture=1, steps_per_round=3, eta=2.0)  # fmt: skip
    state = method.init(2)
    np.testing.assert_allclose(state.proportions, [0.25, 0.75])
    while method.phase(state).name != "train":
        losses = np.array([4.0 - 0.1 * state.segment, 3.0 - 0.2 * state.segment])
        state = method.update(state, losses)
    expected = np.array([1, 3]) * np.exp(2.0 * state.normalized_A.sum(axis=0))
    np.testing.assert_allclose(state.proportions, expected / expected.sum())


def test_prior_of_no_steps_is_no_prior():
    method = build_method("aioli", 2, prior=[1, 3], prior_steps=0)
    assert method.phase(method.init(2)).name == "measure"


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"num_sweeps": 0}, "aioli.num_sweeps is 0"),
        ({"steps_per_mixture": 0}, "aioli.steps_per_mixture is 0"),
        ({"steps_per_mixture": 1.5}, "aioli.steps_per_mixture is 1.5"),
        ({"one_hot_factor": 0.5}, "aioli.one_hot_factor is 0.5: with 2 groups it must be above 1/2"),
        ({"one_hot_factor": 1.5}, "aioli.one_hot_factor is 1.5"),
        ({"steps_per_round": 32}, r"aioli.steps_per_round is 32, .* 4 x 4 x 2 = 32 steps"),
        ({"eta": 0}, "aioli.eta is 0"),
        ({"eta": float("nan")}, "aioli.eta is nan"),
        ({"ema": 1.0}, "aioli.ema is 1.0"),
        ({"update": "sideways"}, "choose cumulative or restart"),
        ({"order": "random"}, "choose per_sweep or shuffled"),
        ({"prior_steps": -1}, "aioli.prior_steps is -1"),
        ({"prior_steps": 5}, "no aioli.prior is given"),
        ({"start": "plan"}, "aioli.start is 'plan': choose uniform or prior"),
        ({"start": "prior"}, "aioli.prior is None: give every group a weight above 0"),
        ({"start": "prior", "prior": [1, 0]}, r"aioli.prior is \[1, 0\]: give every group"),
        ({"prior": [1, 2, 3]}, "3 numbers for 2 groups"),
        ({"prior": [1, -2]}, r"aioli.prior\[1\] is -2"),
        ({"orders": [[0, 1]]}, r"exactly num_sweeps = 4 times"),
        ({"mixtures": "random"}, "choose one_hot or centred or opposite"),
        ({"pooling": 1.0}, "aioli.pooling is 1.0"),
        ({"pool_training": True}, "aioli.pool_training is true but aioli.pooling is not set"),
        ({"shrink": True, "num_sweeps": 1}, "with shrink it must be at least 2, since 2 segments"),
        ({"shrink": True, "diagonal": True}, "aioli.diagonal is true: it cannot be combined with shrink"),
        ({"lp_rounds": 4}, "no hyperparameter 'lp_rounds'; it has: num_sweeps"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("aioli", 2, **hyperparameters)


def test_diagonal_at_one_hot_factor_one_warns():
    with pytest.warns(UserWarning, match="diagonal does nothing"):
        build_method("aioli", 2, diagonal=True, one_hot_factor=1.0)


def test_solve_inverts_the_perturbed_mixtures():
    # f = 0.75: a segment centred on 0 drops group 0 by 0.75 * 4 + 0.25 * 8 = 5, centred on 1 by 7
    np.testing.assert_allclose(solve_mixing_matrix(np.array([[5.0, 7.0], [5, 7]]), 0.75), [[4, 8], [4, 8]])
    np.testing.assert_allclose(
        solve_mixing_matrix(np.array([[3.0, 7.0], [5, 6]]), 0.75, diagonal=True), [[4, 0], [0, 8]]
    )


def test_normalized_shifts_only_if_an_entry_is_negative():
    np.testing.assert_allclose(normalized(np.array([[1.0, 3], [0, 4]])), [[0.125, 0.375], [0, 0.5]])
    np.testing.assert_allclose(normalized(np.array([[-1.0, 1], [0, 0]])), [[0, 0.5], [0.25, 0.25]])
    assert normalized(np.full((2, 2), -3.0)) is None
