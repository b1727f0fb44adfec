"""DoReMi on numbers worked by hand (the released numbers: tests/golden)."""

import numpy as np
import pytest

from titan_aioli.methods import build_method
from titan_aioli.proportions import softmax


def test_doremi_keeps_the_score_of_an_absent_group_and_clips_at_zero():
    method = build_method("doremi", 3, smoothing=0.0)
    state = method.update(method.init(3), np.array([0.5, -2.0, np.nan]))
    np.testing.assert_allclose(state.scores, [0.5, 0.0, 1e-6])
    state = method.update(state, np.array([np.nan, np.nan, 0.25]))
    np.testing.assert_allclose(state.scores, [0.5, 0.0, 0.25])
    np.testing.assert_allclose(state.proportions, softmax(np.array([1.0, 0.0, 0.25 + 1e-6])))


def test_doremi_averages_its_weights():
    method = build_method("doremi", 2, mu=0.5)
    states = [method.init(2)]
    for _ in range(3):
        states.append(method.update(states[-1], np.array([1.0, 0.0])))
    np.testing.assert_allclose(
        states[-1].average, np.mean([state.proportions for state in states[1:]], axis=0)
    )


@pytest.mark.parametrize(("smoothing", "bad"), [(1e-3, [np.inf, 0.0]), (0.0, [1e308, 0.0])])
def test_after_a_skipped_update_the_average_has_the_weights_once_more(smoothing, bad):
    method = build_method("doremi", 2, mu=2.0, smoothing=smoothing)
    states = [method.init(2)]
    for observed in ([1.0, 0.0], [1.0, 0.0], bad, bad, [0.0, 0.5]):
        states.append(method.update(states[-1], np.array(observed)))
    assert method.report(states[3])["note"].startswith("the proportions stay as they are")
    assert np.array_equal(states[4].proportions, states[2].proportions)
    np.testing.assert_allclose(
        states[-1].average, np.mean([state.proportions for state in states[1:]], axis=0)
    )


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"smoothing": 2.0}, "doremi.smoothing is 2.0"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("doremi", 2, **hyperparameters)
