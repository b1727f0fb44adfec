"""DoGE on numbers worked by hand (the released numbers: tests/golden)."""

import numpy as np
import pytest

from titan_aioli.methods import build_method
from titan_aioli.proportions import softmax


def test_doge_prefers_the_aligned_group_and_ignores_opposed_ones():
    # norms 0.5 and 0.5, held-out norm 1: scores 0.25 / 0.5 and -0.25 / 0.5, the latter clipped to 0
    method = build_method("doge", 2, mu=1.0, learning_rate=1.0)
    state = method.update(method.init(2), np.array([[0.25, 0.5, 1.0], [-0.25, 0.5, 1.0]]))
    np.testing.assert_allclose(state.scores, [0.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(state.proportions, softmax(np.array([0.5, 0.0])), rtol=1e-5)


def test_after_a_skipped_update_the_average_has_the_weights_once_more():
    method = build_method("doge", 2, mu=1.0, learning_rate=1.0)
    good, states = np.array([[0.25, 0.5, 1.0], [-0.25, 0.5, 1.0]]), [method.init(2)]
    for observed in (good, good, good * np.inf, good):
        states.append(method.update(states[-1], observed))
    assert np.array_equal(states[3].proportions, states[2].proportions)
    np.testing.assert_allclose(
        states[-1].average, np.mean([state.proportions for state in states[1:]], axis=0)
    )


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"mu": -1.0}, "doge.mu is -1.0"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build_method("doge", 2, **hyperparameters)
