"""For authors of mixing methods: quick hyperparameters, and the contract that a method must keep."""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np

from titan_aioli.methods import METHODS, MixingMethod, build_method
from titan_aioli.methods.protocol import PHASES, over_targets, shape_observed
from titan_aioli.methods.walk import Stretch, walk

SHORT: dict[str, dict[str, Any]] = {
    "aioli": {"num_sweeps": 1, "steps_per_mixture": 1, "steps_per_round": 100},
    "aioli_bayes": {"num_steps": 200, "steps_per_stretch": 1, "prior_odds": 0.9, "looking": (0.0, 0.75)},
    "aioli_gradients": {"num_steps": 20, "steps_per_update": 1, "misfit": 0.0},
    "skill_it": {"steps_per_round": 2, "steps_per_evaluation": 1},
    "target_excess": {"steps_per_round": 2},
    "ado": {"warmup_updates": 4, "ignored_updates": 1, "num_bins": 8, "steps_per_update": 1},
}
"""Hyperparameters by method that make rounds short: a few dozen phases hold several updates."""

OBSERVING = [name for name, method in METHODS.items() if method.observes != "nothing"]
"""Names of the methods that observe something."""


def recorded_schedule(num_groups: int) -> list[list[Any]]:
    """What `replay` is given: a measurement of no step, LearnParams, two phases of training."""
    swept = np.full(num_groups, 0.25 / max(num_groups - 1, 1))
    swept[0] = 1 - swept[1:].sum()
    even, shares = [1 / num_groups] * num_groups, swept.tolist()
    return [
        [0, "measure", 0, even],
        [0, "learn_params", 0, shares],
        [4, "train", 0, even],
        [8, "train", 1, shares],
    ]


def short_method(name: str, num_groups: int) -> MixingMethod:
    """The named method with short rounds."""
    schedule = {"schedule": recorded_schedule(num_groups)} if name == "replay" else {}
    hyperparameters: dict[str, Any] = {**SHORT.get(name, {}), **schedule}
    return build_method(name, num_groups, **hyperparameters)


def draw_observation(
    method: MixingMethod, num_groups: int, rng: np.random.Generator, num_targets: int | None = None
) -> np.ndarray | None:
    """A random observation of the kind that the method asks for."""
    if method.observes == "nothing":
        return None
    return rng.uniform(0.5, 4.0, shape_observed(method, num_groups, num_targets))


def random_walk(
    method: MixingMethod, num_groups: int, num_phases: int, seed: int = 0, num_targets: int | None = None
) -> list[Stretch]:
    """The first phases of a run that observes random losses."""
    rng = np.random.default_rng(seed)
    phases: Iterator[Stretch] = walk(
        method,
        num_groups,
        lambda _: draw_observation(method, num_groups, rng, num_targets),
        num_targets=num_targets,
    )
    return list(islice(phases, num_phases))


def check_method(
    method: MixingMethod, num_groups: int, num_phases: int = 40, num_targets: int | None = None
) -> None:
    """Check all that the controller and the checkpoints rely on; fails with an AssertionError.

    In every phase the proportions are on the simplex; no input is changed; the same observations give the
    same states; the state is plain arrays of constant shape and survives a save. Call it for 1 group too.

    Args:
        method: built for `num_groups`; best with few updates between two changes of the proportions.
        num_groups: G.
        num_phases: phases that are walked.
        num_targets: K, that the method was built for. None: the targets are the groups.
    """
    seen = random_walk(method, num_groups, num_phases, num_targets=num_targets)
    again_seen = random_walk(method, num_groups, num_phases, num_targets=num_targets)
    first, last_round = method.init(num_groups, num_targets), 0
    num_observed = num_groups if num_targets is None else num_targets
    for stretch, again in zip(seen, again_seen, strict=True):
        assert_on_the_simplex(stretch.phase.proportions, num_groups)
        assert_on_the_simplex(method.result(stretch.state), num_groups)
        assert stretch.phase.name in PHASES and stretch.phase.num_steps >= 0
        assert stretch.state.round - last_round in (0, 1), "rounds count up from 0"
        for name, vector in method.metrics(stretch.state).items():
            length = num_observed if name in over_targets(method) else num_groups
            assert np.shape(vector) == (length,), (
                f"metric {name} has shape {np.shape(vector)}, not [{length}]"
            )
        assert_same_shapes(first, stretch.state)
        assert_same_state(stretch.state, again.state)
        last_round = stretch.state.round
    rng = np.random.default_rng(0)
    for stretch, following in pairwise(seen):
        observation = draw_observation(method, num_groups, rng, num_targets)
        _check_update(method, stretch.state, observation, following.state)


def _check_update(method: MixingMethod, state: Any, observation: np.ndarray | None, expected: Any) -> None:
    """One update of a saved and loaded state changes nothing in place and gives the expected state."""
    loaded = _saved_and_loaded(state)
    before = None if observation is None else observation.copy()
    method.phase(loaded).proportions[:] = -1  # what a caller does with it is the caller's business
    following = method.update(loaded, observation)
    for read in (method.report, method.metrics, method.result):
        read(following)
    assert_same_state(loaded, state)
    np.testing.assert_array_equal(observation, before)  # pyright: ignore[reportArgumentType]
    assert_same_state(following, expected)


def _saved_and_loaded(state: Any) -> Any:
    """The state after a round trip through plain arrays."""
    fields = {}
    for name, value in state._asdict().items():
        saved = np.asarray(value)
        assert saved.dtype.kind in "bif", f"{name} is {saved.dtype}: not a plain number or array of them"
        fields[name] = saved.copy() if isinstance(value, np.ndarray) else type(value)(saved)
    return type(state)(**fields)


def assert_on_the_simplex(proportions: np.ndarray, num_groups: int) -> None:
    """[G] float64, finite, not negative, of sum 1."""
    assert proportions.shape == (num_groups,) and proportions.dtype == np.float64
    assert np.isfinite(proportions).all() and (proportions >= 0).all()
    assert abs(proportions.sum() - 1) < 1e-9


def assert_same_state(one: Any, other: Any) -> None:
    """Two states of one type with the same values."""
    assert type(one) is type(other)
    for name, left, right in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def assert_same_shapes(one: Any, other: Any) -> None:
    """Two states whose fields have the same shapes and dtypes."""
    for name, left, right in zip(one._fields, one, other, strict=True):
        assert np.shape(left) == np.shape(right), name
        assert np.asarray(left).dtype == np.asarray(right).dtype, name
