"""One contract for every method: what the controller relies on, checked on each entry of METHODS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from titan_aioli.methods import METHODS, OBSERVES, UNTIL_END, Guarded, build_method

GUARDED = "guarded "  # every method also runs with all guards on
NAMES = [*METHODS, *(GUARDED + name for name in METHODS)]
# Short rounds, so that a few dozen phases hold several updates.
SHORT = {
    "aioli": {"num_sweeps": 1, "steps_per_mixture": 1},
    "skill_it": {"steps_per_round": 2, "steps_per_evaluation": 1},
    "ado": {"warmup_updates": 4, "ignored_updates": 1, "num_bins": 8},
}


def recorded_schedule(num_groups):
    """What `replay` is given: a measurement of no step, LearnParams, two stretches of training."""
    swept = np.full(num_groups, 0.25 / max(num_groups - 1, 1))
    swept[0] = 1 - swept[1:].sum()
    even, shares = [1 / num_groups] * num_groups, swept.tolist()
    return [
        [0, "measure", 0, even],
        [0, "learn_params", 0, shares],
        [4, "train", 0, even],
        [8, "train", 1, shares],
    ]


def short(name, num_groups):
    bare = name.removeprefix(GUARDED)
    settings = {"schedule": recorded_schedule(num_groups)} if bare == "replay" else SHORT.get(bare, {})
    method = build_method(bare, num_groups, **settings)
    if name == bare:
        return method
    guarded = Guarded(method, min_share=0.1 / num_groups, max_change=0.05, anchor_strength=0.25)
    guarded.check(num_groups)
    return guarded


def shape_observed(method, num_groups):
    """Shape of one observation, as protocol.py states it."""
    return {"nothing": (), "gradients": (num_groups, 3)}.get(method.observes, (num_groups,))


def observation(method, num_groups, rng):
    if method.observes == "nothing":
        return None
    return rng.uniform(0.5, 4.0, shape_observed(method, num_groups))


def assert_on_the_simplex(proportions, num_groups):
    assert proportions.shape == (num_groups,) and proportions.dtype == np.float64
    assert np.isfinite(proportions).all() and (proportions >= 0).all()
    assert abs(proportions.sum() - 1) < 1e-9


def run(method, num_groups, num_updates, state=None, seed=0):
    """(state, proportions of every phase) after feeding random losses."""
    rng = np.random.default_rng(seed)
    state = method.init(num_groups) if state is None else state
    seen = []
    for _ in range(num_updates):
        seen.append(method.phase(state).proportions)
        state = method.update(state, observation(method, num_groups, rng))
    return state, np.array(seen)


def assert_same_state(one, other):
    assert type(one) is type(other)
    for name, left, right in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("num_groups", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_on_the_simplex_in_every_phase(name, num_groups):
    _, seen = run(short(name, num_groups), num_groups, num_updates=40)
    for proportions in seen:
        assert_on_the_simplex(proportions, num_groups)


@pytest.mark.parametrize("name", METHODS)
def test_default_hyperparameters_work_for_any_number_of_groups(name):
    for num_groups in (1, 2, 64):
        method = build_method(name, num_groups)
        phase = method.phase(method.init(num_groups))
        assert phase.name in ("measure", "learn_params", "train", "prior")
        assert phase.num_steps == UNTIL_END or 0 <= phase.num_steps < 100_000
        assert method.observes in OBSERVES


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_untouched(name):
    method, rng = short(name, 3), np.random.default_rng(0)
    state = method.init(3)
    for _ in range(20):
        seen = observation(method, 3, rng)
        before = type(state)(*(np.copy(value) for value in state))
        seen_before = None if seen is None else seen.copy()
        method.phase(state).proportions[:] = -1  # what a caller does with it is the caller's business
        following = method.update(state, seen)
        method.report(following)
        assert_same_state(state, before)
        np.testing.assert_array_equal(seen, seen_before)
        state = following


@pytest.mark.parametrize("name", NAMES)
def test_deterministic(name):
    method = short(name, 4)
    one, seen_one = run(method, 4, num_updates=30)
    other, seen_other = run(short(name, 4), 4, num_updates=30)
    np.testing.assert_array_equal(seen_one, seen_other)
    assert_same_state(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_save_as_plain_arrays_at_every_update(name):
    method = short(name, 3)
    whole, _ = run(method, 3, num_updates=25, seed=1)
    rng, state = np.random.default_rng(1), method.init(3)
    for _ in range(25):
        saved = {field: np.asarray(value) for field, value in state._asdict().items()}
        assert all(value.dtype.kind in "bif" for value in saved.values())
        kinds = {field: type(value) for field, value in method.init(3)._asdict().items()}
        loaded = {
            field: value.copy() if kinds[field] is np.ndarray else kinds[field](value)
            for field, value in saved.items()
        }
        state = method.update(type(state)(**loaded), observation(method, 3, rng))
    assert_same_state(state, whole)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_the_state_depend_on_the_number_of_groups_alone(name):
    method = short(name, 3)
    state, _ = run(method, 3, num_updates=25)
    for field, first, later in zip(state._fields, method.init(3), state, strict=True):
        assert np.shape(first) == np.shape(later), field
        assert np.asarray(first).dtype == np.asarray(later).dtype, field


@pytest.mark.parametrize("name", NAMES)
def test_rounds_count_up_from_zero(name):
    method, rng = short(name, 2), np.random.default_rng(0)
    state, rounds = method.init(2), []
    for _ in range(30):
        rounds.append(state.round)
        state = method.update(state, observation(method, 2, rng))
    assert rounds[0] == 0 and set(np.diff(rounds)) <= {0, 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in NAMES if short(name, 1).observes != "nothing"])
def test_what_is_not_finite_never_reaches_the_proportions(name, bad):
    method, rng = short(name, 3), np.random.default_rng(0)
    state, notes = method.init(3), []
    for number in range(60):
        seen = observation(method, 3, rng)
        if 20 <= number < 40:
            seen[1] = bad
        state = method.update(state, seen)
        assert_on_the_simplex(method.phase(state).proportions, 3)
        notes.append(method.report(state).get("note", ""))
    nan_is_absence = np.isnan(bad) and method.observes in ("train", "excess")
    assert nan_is_absence or any(note.endswith("groups 1") for note in notes)
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
