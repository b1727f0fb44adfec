"""A synthetic world whose mixing law is known: what a method is first tried on.

The world stands for the model and the data: it is told a mixture and a number of steps, and its losses fall
by the law. It gives every kind of observation that a method can ask for. No torch; a phase costs a
few vectors of length G.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from titan_aioli.proportions import uniform

Array = np.ndarray
MOST_LOSSES = 2_000
"""Of a world that holds a matrix over them."""


@dataclass(frozen=True)
class World(ABC):
    """G groups and K targets, and the law by which training lowers their losses.

    Losses are arrays [G + K], groups first. Without targets the groups are what the mixture is for. What the
    model has become is a value (`start`, `train`), so that a world can be asked about any run.
    """

    num_groups: int
    num_steps: int
    """Length of the run."""
    noise: float = field(default=0.0, kw_only=True)
    """How much what is observed differs from the losses; the law has the unit."""
    seed: int = field(default=0, kw_only=True)
    num_targets: int = field(default=0, kw_only=True)

    def __post_init__(self):
        for name, smallest in (("num_groups", 1), ("num_steps", 1), ("noise", 0.0), ("num_targets", 0)):
            value = getattr(self, name)
            if not (value >= smallest and np.isfinite(value)):
                raise ValueError(f"{name} is {value}: it must be finite and at least {smallest}")

    @property
    @abstractmethod
    def title(self) -> str:
        """The law and the noise, in words."""

    @property
    @abstractmethod
    def start(self) -> Any:
        """The model before the first step."""

    @abstractmethod
    def train(
        self, model: Any, proportions: Array, step: int, num_steps: int, centre: Array | None = None
    ) -> Any:
        """The model after `num_steps` on one mixture, from `step` on; exact, not stepwise.

        Args:
            proportions: [G], what is trained on.
            centre: [G], what `proportions` is a perturbation of; None: of nothing.
        """

    @abstractmethod
    def losses(self, model: Any) -> Array:
        """[G + K], without noise, nats per token."""

    @property
    def epochs_of_all(self) -> list[float] | None:
        """[G], epochs of each group if the run were on nothing else. None: groups have no end."""
        return None

    @abstractmethod
    def present_A(self, model: Any, step: int) -> Array:
        """A [G + K, G] of the law at a step, nats per step and unit of proportion."""

    def helps(self, model: Any, step: int) -> Array:
        """[G], what a step on each group takes off what the mixture is for, up to a factor."""
        return self.present_A(model, min(step, self.num_steps - 1))[self.aimed_at].sum(axis=0)

    @abstractmethod
    def errors(self, rows: slice, number: int, step: int) -> Array:
        """Noise of these rows of the losses, by seed, number of the observation and step."""

    def refuse_many_losses(self, law: str, what: str) -> None:
        """Raises: ValueError: too many groups and targets for a law that holds `what` for each of them."""
        if (count := self.num_groups + self.num_targets) > MOST_LOSSES:
            raise ValueError(
                f"a world with law {law} holds {what} {count} groups and targets: it takes at most "
                f"{MOST_LOSSES}; take fewer, or law decaying"
            )

    @property
    def aimed_at(self) -> slice:
        """Where in a vector of losses those stand that the mixture is for."""
        return slice(self.num_groups if self.num_targets else 0, self.num_groups + self.num_targets)

    def random(self, use: int, low: float, high: float) -> Array:
        """[G + K], random numbers; those of the groups do not depend on the number of targets."""
        sizes = {(self.seed, use): self.num_groups, (self.seed, use, 1): self.num_targets}
        return np.concatenate([np.random.default_rng(key).uniform(low, high, n) for key, n in sizes.items()])

    def observe(
        self, kind: str, before: Any, after: Any, proportions: Array, number: int, step: int
    ) -> Array | None:
        """What a method that observes `kind` is given after a phase; see `MixingMethod.observes`.

        Args:
            before: the model when the phase began.
            after: the model when it was over.
            proportions: [G], of the phase; a group at 0 has no training loss.
            number: of the observation.
            step: when the phase was over.
        """
        if kind == "nothing":
            return None
        rows = self.aimed_at if kind == "validation" else slice(0, self.num_groups)
        noise = self.errors(rows, number, step)
        if kind == "validation":
            return self.losses(after)[rows] + noise
        if kind == "alignment":
            return self.alignment(self.helps(after, step), noise, number)
        if kind == "gradients":
            helps, ones = self.helps(after, step), np.ones(self.num_groups)
            return np.column_stack([helps / helps.max() + noise, ones, ones])
        mean = 0.5 * (self.losses(before) + self.losses(after))[rows]
        train = np.where(proportions > 0, mean + noise, np.nan)
        return train - self._reference() if kind == "excess" else train

    def alignment(self, helps: Array, noise: Array, number: int) -> Array:
        """[G], what the gradients of the groups show of `helps` [G].

        Args:
            helps: what a step on each group takes off what the mixture is for.
            noise: [G], of the groups' losses.
            number: of the observation.
        """
        return helps + np.abs(helps).max() * noise

    def graph(self) -> Array:
        """Skill-It's graph [G, K] (or [G, G]): relative drops of runs on each group alone."""
        start = self.losses(self.start)
        ends = [
            self.losses(self.train(self.start, alone, 0, self.num_steps)) for alone in np.eye(self.num_groups)
        ]
        return ((start - np.array(ends)) / start)[:, self.aimed_at]

    def _reference(self) -> Array:
        """[G], losses of a reference model: those of a stratified run at its end."""
        end = self.train(self.start, uniform(self.num_groups), 0, self.num_steps)
        return self.losses(end)[: self.num_groups]
