"""Aioli and Skill-It with targets that are not the groups."""

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import AIOLI_CASES, drive, golden_aioli, linear_world
from titan_aioli.methods import Objective, build_method
from titan_aioli.methods.aioli.learn_params import normalized
from titan_aioli.testing.methods import check_method


@pytest.mark.parametrize("num_targets", [1, 3, 20])
@pytest.mark.parametrize("num_groups", [2, 3, 7])
def test_exact_linear_law_of_any_number_of_targets_is_recovered(num_groups, num_targets):
    A = np.random.default_rng(num_groups).normal(0.02, 0.01, (num_targets, num_groups))
    method = build_method("aioli", num_groups, num_targets, one_hot_factor=0.6, num_sweeps=3)
    world = linear_world(A, np.full(num_targets, 5.0))
    for state in drive(method, num_groups, world, num_rounds=2, num_targets=num_targets):
        np.testing.assert_allclose(state.solved_A, A, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.normalized_A, normalized(A), rtol=1e-9)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("case", AIOLI_CASES, ids=[case["name"] for case in AIOLI_CASES])
def test_one_target_has_the_row_that_the_released_code_finds_for_it(case, target):
    inputs, outputs = case["inputs"], case["outputs"]
    if inputs["diagonal"]:
        pytest.skip("one row has no diagonal")
    method = golden_aioli(inputs)
    state = method.init(inputs["k"], 1)
    for round_ in range(inputs["rounds"]):
        state = method.update(state, np.array(inputs["loss_at_round_start"][round_])[[target]])
        for losses in inputs["loss_after_segment"][round_]:
            state = method.update(state, np.array(losses)[[target]])
        for name in ("raw_A", "solved_A"):
            expected = [outputs[name][round_][target]]
            np.testing.assert_allclose(getattr(state, name), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"pooling": 0.5, "mixtures": "opposite", "shrink": True}])
def test_equal_weights_spelled_out_give_the_same_bits(options):
    def proportions(objective):
        rng = np.random.default_rng(0)
        method = build_method("aioli", 3, num_sweeps=2, objective=objective, **options)
        states = drive(method, 3, lambda *_: rng.uniform(2, 3, 3), num_rounds=4)
        return np.array([state.proportions for state in states])

    plain = proportions(None)
    for weights in ([1, 1, 1], [0.1, 0.1, 0.1], [7.0, 7.0, 7.0]):
        np.testing.assert_array_equal(proportions(Objective(weights=weights)), plain)


@pytest.mark.parametrize("options", [{}, {"pooling": 0.5}])
def test_a_watched_target_and_a_quiet_guard_change_nothing(options):
    A = np.array([[0.03, -0.01, 0.0], [0.02, 0.01, 0.0], [-0.04, 0.02, 0.0]])

    def last(rows, objective):
        method = build_method("aioli", 3, len(rows), num_sweeps=2, objective=objective, **options)
        world = linear_world(A[rows], np.full(len(rows), 5.0))
        return drive(method, 3, world, num_rounds=3, num_targets=len(rows))[-1]

    alone = last([0, 1], None)
    watched = last([0, 1, 2], Objective(weights=[1, 1, 0]))
    guard = last([0, 1, 2], Objective(tolerances=[None, None, 10.0]))
    for state in (watched, guard):
        np.testing.assert_allclose(state.proportions, alone.proportions, rtol=1e-12)
        np.testing.assert_array_equal(state.normalized_A[2], 0)


def broken_from(world, broken, value=np.inf):
    """A world in which the loss of one target is not finite after its first evaluation."""
    finite = [None]

    def observe(phase, losses, round_):
        shown = finite[0] = world(phase, finite[0], round_)
        return np.where(np.arange(len(shown)) == broken, np.nan if losses is None else value, shown)

    return observe


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": False},
        {"pooling": 0.5, "pool_training": True, "shrink": True, "mixtures": "centred"},
    ],
)
def test_a_watched_target_may_have_any_loss_and_a_guard_may_not(options):
    A = np.array([[0.03, -0.01, 0.0], [0.02, 0.01, 0.0], [-0.04, 0.02, 0.0]])

    def last(rows, objective, wrapped=lambda world: world):
        method = build_method("aioli", 3, len(rows), num_sweeps=2, objective=objective, **options)
        world = wrapped(linear_world(A[rows], np.full(len(rows), 5.0)))
        return drive(method, 3, world, num_rounds=3, num_targets=len(rows))[-1]

    alone = last([0, 1], None)
    watched = last([0, 1, 2], Objective(weights=[1, 1, 0]), lambda world: broken_from(world, 2))
    np.testing.assert_allclose(watched.proportions, alone.proportions, rtol=1e-9)
    np.testing.assert_allclose(watched.stderr, alone.stderr, rtol=1e-6, atol=1e-9)
    guard = last([0, 1, 2], Objective(tolerances=[None, None, 10.0]), lambda world: broken_from(world, 2))
    np.testing.assert_allclose(guard.proportions, 1 / 3)


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_skill_it_looks_at_no_loss_of_a_watched_target(combine):
    graph = [[0.5, 0.1, 0.3], [0.1, 0.4, 0.2]]

    def last(losses, **given):
        objective = Objective(combine=combine, **given)
        method = build_method("skill_it", 2, 3, graph=graph, steps_per_round=1, objective=objective)
        state = method.init(2, 3)
        for _ in range(3):
            state = method.update(state, np.array(losses))
        return state.proportions

    first = last([3.0, 1.0, np.inf], weights=[1, 1, 0])
    np.testing.assert_array_equal(first, last([3.0, 1.0, 7.0], weights=[1, 1, 0]))
    assert first[0] > 0.55
    start = build_method("skill_it", 2, 3, graph=graph, objective={"tolerances": [None, None, 1.0]}).init(
        2, 3
    )
    np.testing.assert_array_equal(last([3.0, 1.0, np.inf], tolerances=[None, None, 1.0]), start.proportions)


def test_a_guard_that_worsens_beyond_its_tolerance_counts():
    A = np.array([[0.03, 0.0], [-0.03, 0.02]])  # what helps the target hurts the guard
    objective = Objective(tolerances=[None, 0.05], weights=[1.0, 20.0])
    method = build_method("aioli", 2, 2, num_sweeps=1, eta=2.0, objective=objective)
    states = drive(method, 2, linear_world(A, np.array([5.0, 1.0])), num_rounds=6)
    weights = [method.report(state)["target_weights"][1] for state in states]
    assert weights[0] == 0 and 20.0 in weights
    first = weights.index(20.0)
    assert states[first - 1].proportions[0] > 0.5
    assert states[first].proportions[0] < states[first - 1].proportions[0]


def test_worst_gives_weight_to_the_target_that_improves_least():
    A = np.array([[0.06, 0.0], [0.0, 0.01]])  # the first target is easy, the second is hard

    def last(objective):
        method = build_method("aioli", 2, 2, num_sweeps=1, eta=0.5, objective=objective)
        return drive(method, 2, linear_world(A, np.full(2, 5.0)), num_rounds=10)[-1]

    mean, worst = last(Objective()), last(Objective(combine="worst"))
    assert mean.proportions[1] < 0.1 < 0.7 < worst.proportions[1]


def test_units_change_what_a_row_counts():
    A = np.array([[0.02, 0.0], [0.0, 0.02]])

    def last(objective):
        method = build_method("aioli", 2, 2, num_sweeps=1, objective=objective)
        return drive(method, 2, linear_world(A, np.array([4.0, 2.0])), num_rounds=1)[-1]

    assert last(Objective()).proportions[0] == pytest.approx(0.5)
    relative = last(Objective(relative=True)).normalized_A
    np.testing.assert_allclose(relative, [[1 / 3, 0], [0, 2 / 3]], atol=1e-12)
    np.testing.assert_allclose(
        last(Objective(scales=[3.0, 1.0])).normalized_A, [[0.75, 0], [0, 0.25]], atol=1e-12
    )
    assert Objective(weights=[1, 3], scales=[2.0, 1.0]).value(np.array([4.0, 2.0])) == pytest.approx(3.5)
    assert Objective(relative=True).value(np.array([4.0, 1.0])) == pytest.approx(2.0)
    assert Objective(weights=[1, 0]).value(np.array([4.0, np.nan])) == 4.0


@pytest.mark.parametrize("unit", [{}, {"scales": [2.0, 1.0, 3.0, 1.0]}, {"relative": True}])
def test_the_gradient_is_that_of_the_value(unit):
    objective = Objective(weights=[3.0, 1.0, 0.0, 1.0], tolerances=[None, None, None, 0.1], **unit)
    losses, step = np.array([4.0, 2.0, 5.0, 3.0]), 1e-6 * np.eye(4)
    slopes = [(objective.value(losses + d) - objective.value(losses - d)) / 2e-6 for d in step]
    np.testing.assert_allclose(objective.gradient(losses), slopes, atol=1e-8)
    assert (objective.gradient(losses)[:2] > 0).all() and (objective.gradient(losses)[2:] == 0).all()


def test_skill_it_uses_a_graph_from_groups_to_targets():
    graph = [[0.5, 0.1, 0.0], [0.1, 0.1, 0.4]]
    method = build_method("skill_it", 2, 3, graph=graph, eta=1.0, window=1, steps_per_round=1)
    state = method.update(method.init(2, 3), np.array([1.0, 2.0, 0.5]))
    expected = np.exp([0.7, 0.5])
    np.testing.assert_allclose(state.proportions, expected / expected.sum())
    weighted = replace(method, objective=Objective(weights=[0, 0, 1]))
    state = weighted.update(weighted.init(2, 3), np.array([1.0, 2.0, 0.5]))
    expected = np.exp([0.0, 0.2])
    np.testing.assert_allclose(state.proportions, expected / expected.sum())


@pytest.mark.parametrize(
    "objective",
    [
        Objective(weights=[1, 2, 0, 1, 1]),
        Objective(relative=True, tolerances=[None, 0.1, None, None, None]),
        Objective(combine="worst", scales=[1.0, 0.5, 2.0, 1.0, 1.0]),
    ],
    ids=["weights", "relative and guard", "worst"],
)
@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("name", ["aioli", "skill_it"])
def test_the_contract_with_targets(name, num_groups, objective):
    short = {"num_sweeps": 1, "steps_per_mixture": 1, "steps_per_round": 100}
    if name == "skill_it":
        graph = np.random.default_rng(0).uniform(0, 1, (num_groups, 5)).tolist()
        short = {"steps_per_round": 2, "steps_per_evaluation": 1, "graph": graph}
    method = build_method(name, num_groups, 5, objective=objective, **short)
    check_method(method, num_groups, num_targets=5)


@pytest.mark.parametrize(
    "hyperparameters, words",
    [
        ({"objective": {"weights": [1, 1]}}, "2 numbers for 3 targets"),
        ({"objective": {"weights": [0, 0, 0]}}, "at least one"),
        ({"objective": {"tolerances": [0.1, 0.1, 0.1]}}, "at least one target that is no guard"),
        ({"objective": {"scales": [1, 0, 1]}}, "objective.scales is 0"),
        ({"objective": {"combine": "best"}}, "choose mean or worst"),
        ({"diagonal": True, "one_hot_factor": 0.7}, "has no diagonal"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(hyperparameters, words):
    with pytest.raises(ValueError, match=words):
        build_method("aioli", 2, 3, **hyperparameters)


def test_skill_it_without_a_graph_needs_targets_that_are_the_groups():
    with pytest.raises(ValueError, match="3 targets for 2 groups"):
        build_method("skill_it", 2, 3)
