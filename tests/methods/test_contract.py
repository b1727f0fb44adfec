"""One contract for every method: what the controller relies on, checked on each entry of METHODS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from titan_aioli.methods import METHODS, OBSERVES, UNTIL_END, Guarded, build_method
from titan_aioli.methods.odm import ODM
from titan_aioli.methods.protocol import shape_observed
from titan_aioli.testing.methods import (
    assert_on_the_simplex,
    check_method,
    draw_observation,
    random_walk,
    recorded_schedule,
    short_method,
)

GUARDED = "guarded "  # every method also runs with all guards on
NAMES = [*METHODS, *(GUARDED + name for name in METHODS)]


def short(name, num_groups):
    method = short_method(name.removeprefix(GUARDED), num_groups)
    if not name.startswith(GUARDED):
        return method
    guarded = Guarded(method, min_share=0.1 / num_groups, max_change=0.05, anchor_strength=0.25)
    guarded.check(num_groups)
    return guarded


@pytest.mark.parametrize("num_groups", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_contract(name, num_groups):
    check_method(short(name, num_groups), num_groups)


class InPlace(ODM):
    """A method that changes its state in place."""

    def update(self, state, observation):
        state.rewards[:] = observation
        return super().update(state, observation)


class OffTheSimplex(ODM):
    """A method whose proportions do not sum to 1."""

    def phase(self, state):
        phase = super().phase(state)
        return phase._replace(proportions=phase.proportions * 2)


@pytest.mark.parametrize("method", [InPlace(), OffTheSimplex()])
def test_the_contract_can_be_broken(method):
    with pytest.raises(AssertionError):
        check_method(method, 2)


def test_what_a_static_run_should_train_on_is_the_average_of_doremi_and_doge():
    for name in METHODS:
        method = short_method(name, 3)
        state = random_walk(method, 3, 10)[-1].state
        expected = state.average if name in ("doremi", "doge") else state.proportions
        np.testing.assert_array_equal(method.result(state), expected)


@pytest.mark.parametrize("name", METHODS)
def test_default_hyperparameters_work_for_any_number_of_groups(name):
    for num_groups in (1, 2, 64):
        method = build_method(name, num_groups)
        phase = method.phase(method.init(num_groups))
        assert phase.name in ("measure", "learn_params", "train", "prior")
        assert phase.num_steps == UNTIL_END or 0 <= phase.num_steps < 100_000
        assert method.observes in OBSERVES


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in NAMES if short(name, 1).observes != "nothing"])
def test_what_is_not_finite_never_reaches_the_proportions(name, bad):
    method, rng = short(name, 3), np.random.default_rng(0)
    state, notes = method.init(3), []
    for number in range(60):
        seen = draw_observation(method, 3, rng)
        if 20 <= number < 40:
            seen[1] = bad
        state = method.update(state, seen)
        assert_on_the_simplex(method.phase(state).proportions, 3)
        notes.append(method.report(state).get("note", ""))
    nan_is_absence = np.isnan(bad) and method.observes in ("train", "excess")
    assert nan_is_absence or any(note.endswith("what was observed is not finite") for note in notes)
    assert not notes[-1]
    assert np.isfinite(method.phase(state).proportions).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), num_groups=st.integers(1, 64))
def test_any_finite_losses_keep_the_proportions_on_the_simplex(name, data, num_groups):
    method = short(name, num_groups)
    finite = st.floats(allow_nan=False, allow_infinity=False)
    few = data.draw(
        st.lists(
            arrays(np.float64, shape_observed(method, num_groups), elements=finite), min_size=2, max_size=4
        )
    )
    state = method.init(num_groups)
    for number in range(num_groups + 4):
        phase = method.phase(state)
        assert_on_the_simplex(phase.proportions, num_groups)
        state = method.update(state, None if method.observes == "nothing" else few[number % len(few)])
    assert_on_the_simplex(method.phase(state).proportions, num_groups)


def test_unknown_method_and_unknown_hyperparameter_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown method 'aiolo': choose one of stratified, static, aioli"):
        build_method("aiolo", 2)
    with pytest.raises(ValueError, match="stratified has no hyperparameter 'eta'; it has: none"):
        build_method("stratified", 2, eta=1)


def test_static_is_by_proportions_by_size_or_uniform():
    def first(**hyperparameters):
        method = build_method("static", 2, **hyperparameters)
        return method.phase(method.init(2)).proportions

    np.testing.assert_allclose(first(proportions=[1, 3]), [0.25, 0.75])
    np.testing.assert_allclose(first(sizes=[1, 9], temperature=2.0), [0.25, 0.75])
    np.testing.assert_allclose(first(), [0.5, 0.5])
    with pytest.raises(ValueError, match="not both"):
        first(proportions=[1, 1], sizes=[1, 1])
    with pytest.raises(ValueError, match=r"static.proportions has 3 numbers for 2 groups"):
        first(proportions=[1, 1, 1])


def test_replay_has_the_recorded_phases_but_those_of_no_step():
    method = build_method("replay", 2, schedule=recorded_schedule(2))
    state, seen = method.init(2), []
    for _ in range(4):
        phase = method.phase(state)
        seen.append((phase.name, phase.num_steps, state.round, phase.proportions.tolist()))
        state = method.update(state, None)
    last = ("train", UNTIL_END, 1, [0.75, 0.25])
    assert seen == [("learn_params", 4, 0, [0.75, 0.25]), ("train", 4, 0, [0.5, 0.5]), last, last]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([3, "train", 0, [0.5, 0.5]], "entry 2: step is 3: it must be a whole number, at least 4"),
        ([9, "eat", 0, [0.5, 0.5]], "entry 2: phase is 'eat': choose measure or"),
        ([9, "train", 0, [0.5, 0.6]], "entry 2: proportions sum to 1.1"),
        ([9, "train", 0, [1.0]], "entry 2: proportions has 1 numbers for 2 groups"),
        ([9, "train"], "entry 2: 2 values, not step, phase, round, proportions"),
    ],
)
def test_replay_refuses_a_schedule_that_cannot_be(entry, message):
    with pytest.raises(ValueError, match=message):
        build_method("replay", 2, schedule=[[4, "train", 0, [0.5, 0.5]], entry])
