"""A synthetic world whose mixing law is known: what a method is first tried on.

The world stands for the model and the data: it is told a mixture and a number of steps, and its losses fall
by the law. It gives every kind of observation that a method can ask for. No torch; a phase costs a
few vectors of length G.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from titan_aioli.methods import MixingMethod, build_method
from titan_aioli.methods.walk import Stretch, walk
from titan_aioli.proportions import uniform

Array = np.ndarray
LawName = Literal["linear", "decaying", "drifting"]
RANK = 3
"""Rank of the off-diagonal part of A: 10,000 groups need no [G, G] matrix."""
CURVE_POINTS = 50
"""Number of points of the loss curve of a run that is one long phase."""


class Matrix(NamedTuple):
    """A [G + K, G]: loss drop of a group, or of a target, per step and unit of proportion of a group.

    Row i is own_i at the group nearest to it, which for a group is itself, plus (taken given^T)_i.
    """

    own: Array
    """[G + K], what the nearest group does for it, nats."""
    nearest: Array
    """[G + K] int."""
    taken: Array
    """[G + K, RANK], how much it learns of each of a few things."""
    given: Array
    """[G, RANK], how much training on a group teaches of each."""

    def times(self, proportions: Array) -> Array:
        """A p [G + K]."""
        return self.own * proportions[self.nearest] + self.taken @ (self.given.T @ proportions)

    def column_sums(self, rows: Array) -> Array:
        """sum_i rows_i A_ij [G]; rows [G + K]."""
        at_nearest = np.bincount(self.nearest, rows * self.own, minlength=len(self.given))
        return at_nearest + self.given @ (self.taken.T @ rows)

    def dense(self) -> Array:
        """A [G + K, G], row = group or target whose loss drops."""
        A = self.taken @ self.given.T
        A[np.arange(len(A)), self.nearest] += self.own
        return A


@dataclass(frozen=True)
class World:
    """G groups and K targets, their losses at the start, and the law by which training lowers them.

    Losses are arrays [G + K], groups first. Without targets the groups are what the mixture is for.

    Laws: `linear`: A is the same for the whole run, so LearnParams can find it exactly; `decaying`: row i of
    A shrinks with what is left to learn of group i (as in a static log-linear law); `drifting`: A moves in a
    straight line to that of another world.
    """

    num_groups: int
    num_steps: int
    """Length of the run."""
    law: LawName = "linear"
    noise: float = 0.0
    """Standard deviation of each number observed, nats per token."""
    seed: int = 0
    total_drop: float = 2.0
    """Mean drop of the groups' losses over the run on the stratified mixture, nats per token (at first
    speed)."""
    num_targets: int = 0

    def __post_init__(self):
        for name, smallest in (("num_groups", 1), ("num_steps", 1), ("noise", 0.0), ("num_targets", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {smallest}")

    @property
    def start(self) -> Array:
        """[G + K], losses before the first step, nats per token."""
        return self._uniform(0, 4.0, 6.0)

    @property
    def floor(self) -> Array:
        """[G + K], losses that a `decaying` world never falls below."""
        return self._uniform(1, 0.5, 2.0)

    @property
    def aimed_at(self) -> slice:
        """Where in a vector of losses those stand that the mixture is for."""
        return slice(self.num_groups if self.num_targets else 0, None)

    def _uniform(self, use: int, low: float, high: float) -> Array:
        """[G + K], random numbers; those of the groups do not depend on the number of targets."""
        sizes = {(self.seed, use): self.num_groups, (self.seed, use, 1): self.num_targets}
        return np.concatenate([np.random.default_rng(key).uniform(low, high, n) for key, n in sizes.items()])

    def matrix(self, end: bool = False) -> Matrix:
        """A at the start (or, of a drifting world, at the end) of the run, before anything decays."""
        rng, n = np.random.default_rng((self.seed, 2 + end)), self.num_groups
        own, taken = rng.uniform(0.2, 2.0, n), rng.uniform(0.0, 1.0, (n, RANK))
        given = rng.uniform(0.0, 1.0, (n, RANK)) ** 2
        rng, k = np.random.default_rng((self.seed, 2 + end, 1)), self.num_targets
        own = np.concatenate([own, rng.uniform(0.2, 2.0, k)])
        taken = np.concatenate([taken, rng.uniform(0.0, 1.0, (k, RANK))])
        nearest = np.concatenate([np.arange(n), np.random.default_rng((self.seed, 5)).integers(0, n, k)])
        A = Matrix(own, nearest, taken / n, given)
        scale = self.total_drop / self.num_steps / A.times(uniform(n))[:n].mean()
        return Matrix(own * scale, nearest, A.taken * scale, given)

    def train(self, losses: Array, proportions: Array, step: int, num_steps: int) -> Array:
        """Losses [G + K] after `num_steps` on one mixture, from `step` on; exact, not stepwise."""
        drop = num_steps * self.matrix().times(proportions)
        if self.law == "decaying":
            left = losses - self.floor
            return self.floor + left * np.exp(-drop / (self.start - self.floor))
        if self.law == "drifting":
            moved = (step + 0.5 * num_steps) / self.num_steps
            drop = (1 - moved) * drop + moved * num_steps * self.matrix(end=True).times(proportions)
        return losses - drop

    def present_A(self, losses: Array, step: int) -> Array:
        """A [G + K, G] of the law at a step and its losses, nats per step and unit of proportion."""
        A = self.matrix().dense()
        if self.law == "decaying":
            return A * ((losses - self.floor) / (self.start - self.floor))[:, None]
        if self.law == "drifting":
            moved = step / self.num_steps
            return (1 - moved) * A + moved * self.matrix(end=True).dense()
        return A

    def observe(
        self, kind: str, before: Array, after: Array, proportions: Array, number: int
    ) -> Array | None:
        """What a method that observes `kind` is given after a phase; see `MixingMethod.observes`.

        Args:
            before: [G + K], losses when the phase began.
            after: [G + K], losses when it was over.
            proportions: [G], of the phase; a group at 0 has no training loss.
            number: of the observation, which decides its noise.
        """
        seen = after[self.aimed_at] if kind == "validation" else after[: self.num_groups]
        noise = self.noise * np.random.default_rng((self.seed, 4, number)).standard_normal(len(seen))
        if kind == "nothing":
            return None
        if kind == "validation":
            return seen + noise
        if kind == "gradients":
            left = (
                (after - self.floor) / (self.start - self.floor)
                if self.law == "decaying"
                else np.ones_like(after)
            )
            is_aimed_at = np.zeros(len(after))
            is_aimed_at[self.aimed_at] = 1.0
            helps = self.matrix().column_sums(left * is_aimed_at)
            ones = np.ones(self.num_groups)
            return np.column_stack([helps / helps.max() + noise, ones, ones])
        mean = 0.5 * (before + after)[: self.num_groups]
        train = np.where(proportions > 0, mean + noise, np.nan)
        return train - self._reference() if kind == "excess" else train

    def _reference(self) -> Array:
        """[G], losses of a reference model: those of a stratified run at its end."""
        return self.train(self.start, uniform(self.num_groups), 0, self.num_steps)[: self.num_groups]

    def graph(self) -> Array:
        """Skill-It's graph [G, K] (or [G, G]): relative drops of runs on each group alone, at first speed."""
        drops = self.matrix().dense()[self.aimed_at] * self.num_steps
        return (drops / self.start[self.aimed_at, None]).T


class Trace(NamedTuple):
    """What happened in P phases."""

    steps: Array
    """[P + 1], where each phase began, and the last step."""
    phases: list[str]
    """[P]."""
    proportions: Array
    """[P, G]."""
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
    losses, before, after_steps = world.start, world.start, 0
    steps, phases, proportions, errors = [0], [], [], []
    loss_steps, history = [0], [losses]
    taken = -(-world.num_steps // CURVE_POINTS)

    def observe(stretch: Stretch) -> Array | None:
        return world.observe(method.observes, before, losses, stretch.phase.proportions, len(phases))

    num_targets = world.num_targets or None
    for step, num_steps, phase, state in walk(
        method, world.num_groups, observe, world.num_steps, num_targets
    ):
        if phases and "solved_A" in (report := method.report(state)):
            A_star = world.present_A(losses, step)[world.aimed_at] * after_steps
            errors.append((step, _matrix_error(report["solved_A"], A_star)))
        if step == world.num_steps or len(phases) == max_entries:
            break
        before, after_steps, end = losses, phase.num_steps, step + num_steps
        for start in range(step, end, taken):
            stop = min(start + taken, end)
            losses = world.train(losses, phase.proportions, start, stop - start)
            loss_steps.append(stop)
            history.append(losses)
        steps.append(end)
        phases.append(phase.name)
        proportions.append(phase.proportions)
    return Trace(
        np.array(steps), phases, np.array(proportions), np.array(loss_steps), np.array(history), errors
    )


def evaluation_budget(
    num_groups: int, sequences: list[int], sweeps: list[int], noise: float, repeats: int = 8, seed: int = 0
) -> Array:
    """Error of Aioli's first A against what its evaluations cost, [len(sweeps), len(sequences)].

    Args:
        num_groups: G.
        sequences: held-out sequences of a group in one evaluation.
        sweeps: values of num_sweeps.
        noise: standard deviation of a loss difference measured on one sequence, nats per token.
        repeats: worlds over which the error (relative, Frobenius norm) is averaged.
    """
    errors = np.zeros((len(sweeps), len(sequences), repeats))
    for i, num_sweeps in enumerate(sweeps):
        method = build_method("aioli", num_groups, num_sweeps=num_sweeps)
        quiet = World(
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
