"""Skill-It on numbers worked by hand (the released numbers: tests/golden)."""

import numpy as np
import pytest

from titan_aioli.methods import build_method
from titan_aioli.methods.skill_it import skill_graph
from titan_aioli.proportions import softmax


def test_skill_graph_has_the_trained_group_in_its_rows():
    # training on group 0 alone halves its own loss and takes a quarter off group 1's
    graph = skill_graph(np.array([4.0, 8.0]), np.array([[2.0, 6.0], [4.0, 4.0]]))
    np.testing.assert_allclose(graph, [[0.5, 0.25], [0.0, 0.5]])


def test_skill_it_evaluates_at_its_cadence_and_updates_once_a_round():
    method = build_method("skill_it", 2, steps_per_round=6, steps_per_evaluation=2, window=2, eta=1.0)
    state, steps = method.init(2), []
    for losses in ([1.0, 0.0], [0.0, 0.0], [2.0, 0.0]):
        assert state.round == 0
        steps.append(method.phase(state).num_steps)
        state = method.update(state, np.array(losses))
    assert steps == [2, 2, 2] and state.round == 1
    # identity graph, the last two evaluations: weights exp(0 + 2) and exp(0)
    np.testing.assert_allclose(state.proportions, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])


def test_skill_it_at_the_start_of_an_interval_sees_losses_one_interval_old():
    method = build_method("skill_it", 2, steps_per_round=4, steps_per_evaluation=2, evaluate="start", eta=1.0)
    state = method.init(2)
    assert method.phase(state).name == "measure" and method.phase(state).num_steps == 0
    for losses in ([1.0, 0.0], [1.0, 0.0], [100.0, 0.0]):
        state = method.update(state, np.array(losses))
    np.testing.assert_allclose(state.proportions[0], 1 / (1 + np.exp(-2)))  # not yet the 100


def test_skill_it_stays_where_it_is_while_every_loss_was_skipped():
    graph = [[1.0, 0.5], [0.25, 1.0]]
    method = build_method("skill_it", 2, graph=graph, evaluate="start", eta=1.0)
    state = method.init(2)
    for losses in ([np.nan, 3.0], [3.0, 3.0]):  # the second is what the next update sees
        state = method.update(state, np.array(losses))
    np.testing.assert_array_equal(state.proportions, method.init(2).proportions)
    state = method.update(state, np.array([2.0, 2.0]))
    np.testing.assert_allclose(state.proportions, softmax(3.0 * np.sum(graph, axis=1)))


def test_skill_it_halves_ones_off_the_diagonal_on_request():
    graph = [[1.0, 1.0], [0.25, 1.0]]
    first = [
        build_method("skill_it", 2, graph=graph, halve_ones=halve).init(2).proportions
        for halve in (False, True)
    ]
    np.testing.assert_allclose(first[0], softmax(0.2 * np.array([2.0, 1.25])))
    np.testing.assert_allclose(first[1], softmax(0.2 * np.array([1.5, 1.25])))


def test_skill_it_halves_ones_of_targets_that_are_no_groups():
    method = build_method("skill_it", 2, 3, graph=[[1.0, 0.5, 1.0], [0.25, 1.0, 0.0]], halve_ones=True)
    np.testing.assert_allclose(method.init(2, 3).proportions, softmax(0.2 * np.array([2.0, 1.25])))


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"graph": [[1, 2]]}, r"skill_it.graph has shape \[1, 2\]: it must be 2 lists"),
        ({"graph": [1, 2], "halve_ones": True}, r"skill_it.graph is \[1, 2\]: it must be a list of lists"),
        ({"graph": [[1], [1, 2]]}, "skill_it.graph is no table: its lists differ in length"),
        ({"graph": [[1, 2], [3, float("nan")]]}, "finite"),
        ({"steps_per_evaluation": 3, "steps_per_round": 4}, "steps_per_evaluation is 3: it must divide"),
        ({"evaluate": "never"}, "choose end or start"),
    ],
)
def test_skill_it_refuses_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("skill_it", 2, **hyperparameters)
