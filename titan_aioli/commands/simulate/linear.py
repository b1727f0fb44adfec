"""Worlds whose losses fall by a mixing matrix: the linear law of Aioli, and two in which it does not last."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from titan_aioli.commands.simulate.world import World
from titan_aioli.proportions import uniform

Array = np.ndarray
LinearLaw = Literal["linear", "decaying", "drifting"]
RANK = 3
"""Rank of the off-diagonal part of A: 10,000 groups need no [G, G] matrix."""


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
class LinearWorld(World):
    """The losses are the model: they fall by A p at every step; `noise` is in nats per token.

    Laws: `linear`: A is the same for the whole run, so LearnParams can find it exactly; `decaying`: row i of
    A shrinks with what is left to learn of group i (as in a static log-linear law); `drifting`: A moves in a
    straight line to that of another world.
    """

    law: LinearLaw = "linear"
    total_drop: float = 2.0
    """Mean drop of the groups' losses over the run on the stratified mixture, nats per token (at first
    speed)."""

    @property
    def title(self) -> str:
        return f"{self.law} law, noise {self.noise:g}"

    @property
    def start(self) -> Array:
        """[G + K], losses before the first step, nats per token."""
        return self.random(0, 4.0, 6.0)

    @property
    def floor(self) -> Array:
        """[G + K], losses that a `decaying` world never falls below."""
        return self.random(1, 0.5, 2.0)

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

    def train(
        self, model: Array, proportions: Array, step: int, num_steps: int, centre: Array | None = None
    ) -> Array:
        drop = num_steps * self.matrix().times(proportions)
        if self.law == "decaying":
            left = model - self.floor
            return self.floor + left * np.exp(-drop / (self.start - self.floor))
        if self.law == "drifting":
            moved = (step + 0.5 * num_steps) / self.num_steps
            drop = (1 - moved) * drop + moved * num_steps * self.matrix(end=True).times(proportions)
        return model - drop

    def losses(self, model: Array) -> Array:
        return model

    def present_A(self, model: Array, step: int) -> Array:
        A = self.matrix().dense()
        if self.law == "decaying":
            return A * self._left(model)[:, None]
        if self.law == "drifting":
            moved = step / self.num_steps
            return (1 - moved) * A + moved * self.matrix(end=True).dense()
        return A

    def helps(self, model: Array, step: int) -> Array:
        is_aimed_at = np.zeros(len(model))
        is_aimed_at[self.aimed_at] = 1.0
        left = self._left(model) if self.law == "decaying" else np.ones_like(model)
        helped = self.matrix().column_sums(left * is_aimed_at)
        if self.law == "drifting":
            moved = min(step, self.num_steps - 1) / self.num_steps
            return (1 - moved) * helped + moved * self.matrix(end=True).column_sums(is_aimed_at)
        return helped

    def errors(self, rows: slice, number: int, step: int) -> Array:
        rng = np.random.default_rng((self.seed, 4, number))
        return self.noise * rng.standard_normal(rows.stop - rows.start)

    def graph(self) -> Array:
        """Skill-It's graph, at first speed."""
        drops = self.matrix().dense()[self.aimed_at] * self.num_steps
        return (drops / self.start[self.aimed_at, None]).T

    def _left(self, losses: Array) -> Array:
        """[G + K], share of what there is to learn that is left."""
        return (losses - self.floor) / (self.start - self.floor)
