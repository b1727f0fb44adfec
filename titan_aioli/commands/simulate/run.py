"""A run of a method in a synthetic world, phase by phase, as the controller does it."""

from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.commands.simulate.linear import LinearWorld
from titan_aioli.commands.simulate.world import World
from titan_aioli.methods import METHODS, MixingMethod, build_method
from titan_aioli.methods.walk import Stretch, walk

Array = np.ndarray
CURVE_POINTS = 50
"""Number of points of the loss curve of a run that is one long phase."""


def method_for(name: str, world: World, settings: dict[str, Any]) -> MixingMethod:
    """The named method with what a run would tell it: steps, groups, their sizes, targets, a graph.

    Args:
        settings: hyperparameters; they take precedence.
    """
    of_the_run = {"num_steps": world.num_steps, "epochs_of_all": world.epochs_of_all}
    asked_for = {field.name for field in fields(METHODS[name])} if name in METHODS else set()
    known: dict[str, Any] = {key: value for key, value in of_the_run.items() if key in asked_for}
    if name == "skill_it" and world.num_targets:
        known["graph"] = world.graph().tolist()
    return build_method(name, world.num_groups, world.num_targets or None, **{**known, **settings})


class Trace(NamedTuple):
    """What happened in P phases."""

    steps: Array
    """[P + 1], where each phase began, and the last step."""
    phases: list[str]
    """[P]."""
    proportions: Array
    """[P, G], what was trained on."""
    centres: Array
    """[P, G] (and one more where the run ends with an update), the method's own proportions, which a phase of
    LearnParams perturbs."""
    loss_steps: Array
    """[T], steps at which the losses are known: the ends of phases, and some steps inside long ones."""
    losses: Array
    """[T, G + K], true losses at `loss_steps`, the first before training, the last at the end."""
    matrix_errors: list[tuple[int, float]]
    """(step, |A - A*| / |A*| in Frobenius norm) after each LearnParams; only of methods that estimate A."""


def simulate_run(method: MixingMethod, world: World, max_entries: int = 1_000_000) -> Trace:
    """Run a method in a world, phase by phase, as the controller does.

    Args:
        method: built for the world's numbers of groups and targets.
        max_entries: phases after which to give up; a method that only ever measures would not end.
    """
    before, model, after_steps = world.start, world.start, 0
    seen = _Seen([0], [], [], [], [0], [world.losses(model)], [])

    def observe(stretch: Stretch) -> Array | None:
        number, end = len(seen.phases), stretch.step + stretch.num_steps
        return world.observe(method.observes, before, model, stretch.phase.proportions, number, end)

    targets = world.num_targets or None
    for step, num_steps, phase, state in walk(method, world.num_groups, observe, world.num_steps, targets):
        if seen.phases and "solved_A" in (report := method.report(state)):
            A_star = world.present_A(model, step)[world.aimed_at] * after_steps
            seen.matrix_errors.append((step, _matrix_error(report["solved_A"], A_star)))
        seen.centres.append(state.proportions)
        if step == world.num_steps or len(seen.phases) == max_entries:
            break
        before, after_steps = model, phase.num_steps
        centre = state.proportions if phase.name == "learn_params" else None
        for start, stop in _pieces(step, step + num_steps, -(-world.num_steps // CURVE_POINTS)):
            model = world.train(model, phase.proportions, start, stop - start, centre)
            seen.loss_steps.append(stop)
            seen.losses.append(world.losses(model))
        seen.steps.append(step + num_steps)
        seen.phases.append(phase.name)
        seen.proportions.append(phase.proportions)
    return seen.trace()


class _Seen(NamedTuple):
    """A trace that grows: what Trace has, as lists."""

    steps: list[int]
    phases: list[str]
    proportions: list[Array]
    centres: list[Array]
    loss_steps: list[int]
    losses: list[Array]
    matrix_errors: list[tuple[int, float]]

    def trace(self) -> Trace:
        arrays = {name: np.array(part) for name, part in self._asdict().items()}
        return Trace(**{**arrays, "phases": self.phases, "matrix_errors": self.matrix_errors})


def _pieces(start: int, end: int, longest: int) -> list[tuple[int, int]]:
    """A phase in pieces: its loss curve has a point at the end of each."""
    return [(step, min(step + longest, end)) for step in range(start, end, longest)]


def evaluation_budget(
    num_groups: int, sequences: list[int], sweeps: list[int], noise: float, repeats: int = 8, seed: int = 0
) -> Array:
    """Error of Aioli's first A against what its evaluations cost, [len(sweeps), len(sequences)].

    Args:
        num_groups: G.
        sequences: held-out sequences of a group in one evaluation.
        sweeps: values of num_sweeps.
        noise: standard deviation of a loss measured on one sequence, nats per token; that of a difference of
            two is sqrt(2) times as large.
        repeats: worlds over which the error (relative, Frobenius norm) is averaged.
    """
    errors = np.zeros((len(sweeps), len(sequences), repeats))
    for i, num_sweeps in enumerate(sweeps):
        method = build_method("aioli", num_groups, num_sweeps=num_sweeps)
        quiet = LinearWorld(
            num_groups, num_steps=100 * num_groups * num_sweeps, total_drop=0.2 * num_groups * num_sweeps
        )
        for j, num_sequences in enumerate(sequences):
            for repeat in range(repeats):
                world = replace(quiet, noise=noise / np.sqrt(num_sequences), seed=seed + repeat)
                entries = 1 + num_groups * num_sweeps
                errors[i, j, repeat] = simulate_run(method, world, entries).matrix_errors[0][1]
    return errors.mean(axis=2)


def _matrix_error(A: Any, A_star: Array) -> float:
    return float(np.linalg.norm(A - A_star) / np.linalg.norm(A_star))
