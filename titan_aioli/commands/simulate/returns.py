"""Worlds with diminishing returns and a memory, in the noise and the curvature of small models.

    L_k = F_k(t) - B sum_j theta_kj log r_j + D

r [G] is the mixture that the model remembers: an average of what it was trained on, the last 60 steps at the
peak learning rate. theta_k is the best mixture for group or target k, and B how much it matters. F falls
whatever the mixture is. D is what looking has cost: it grows with the square of the strength of
perturbations. All that training does is in proportion to the learning rate: a clock that runs at the
learning rate over its peak (10 percent of the run warm-up, then a cosine to a tenth) is the world's time.

Every constant was measured on models of 0.7M parameters in runs of 1,000 steps of 16 x 64 tokens. In a longer
or shorter run, the memory and the noise of a step are the same, F and D keep to the share of the run.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from titan_aioli.commands.simulate.world import World
from titan_aioli.proportions import pulled, uniform

Array = np.ndarray
Kind = Literal["gap", "even", "lawless"]

WARM_UP, LEAST_RATE = 0.1, 0.1
MEMORY = 60.0
"""Steps at the peak learning rate after which what the model remembers of a mixture counts 1 / e."""
BENEFIT = (0.2, 0.3)
"""Range of B, nats."""
FALL = 2.4
"""Nats that F falls by in a run that is all at the peak learning rate (0.0024 in each of 1,000 steps)."""
FIRST_FALL, FIRST_SHARE = 0.32, 0.03
"""F falls by 0.32 nats more early on, with this share of the run as its time constant: by 0.2 within it."""
LOSS_NOISE, NOISE_STEPS = 0.024, 8
"""Standard deviation of the drop of one target's loss in so many steps at the peak learning rate, nats.
`WALKS` of it stays in the losses, `EVALUATIONS` of it is new in each evaluation."""
WALKS, EVALUATIONS = 0.7, 0.5
ALIGNMENT_NOISE, SCALE_NOISE = 0.5, 0.3
"""Standard deviations of the noise of a measurement of alignments by aioli_gradients, in 10 percent of the
compute: of each group's, over the mean of their sizes, and of the logarithm of a factor that all share."""
SHARED = 0.018
"""Share of that variance that all targets have in common: the mean of eight has a noise of 0.009."""
LOOKING_COST, LOOKING_LEFT = 0.025, (0.16, 0.48)
"""Nats at the end of the run for a pull of 0.4 to one group at a time between these shares of it."""
LOOKING_PULL = 0.4
LOOKING_MEMORY = 0.13
"""Time after which what looking has cost counts 1 / e, in runs at the peak learning rate: two thirds are
forgotten in the third of the run that follows."""
OWN_SHARE = 0.9
"""Share of the group itself in its best mixture; the rest is even."""
EVEN_SHARE = 0.12
"""Share in a target's best mixture that is even; the rest is drawn sparse."""
CONCENTRATION = 2.0
"""Sum of the parameters of the Dirichlet distribution that it is drawn from: a few groups have nearly all."""
LEAST_REMEMBERED = 0.01
"""A group that is remembered less than this share of an even one counts as if it were that much."""


class Model(NamedTuple):
    """What a world's model has become."""

    step: int
    remembered: Array
    """[G], r."""
    damage: float
    """D, nats."""


class Clock(NamedTuple):
    """The learning rate of a run, at the end of each of its steps and before the first, [T + 1]."""

    rate: Array
    """Learning rate of the step over its peak."""
    time: Array
    """Its sum up to there: steps at the peak."""
    looked: Array
    """Its integral with the weight with which the damage of looking is remembered, see `damage`."""
    memory: float
    """LOOKING_MEMORY, in steps at the peak."""

    @classmethod
    def of_run(cls, num_steps: int) -> "Clock":
        """The schedule of a run: warm-up, then a cosine."""
        done, warm_up = np.arange(1, num_steps + 1), max(1.0, WARM_UP * num_steps)
        way = np.clip((done - 1 - warm_up) / max(1.0, num_steps - warm_up), 0.0, 1.0)
        falling = LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + np.cos(np.pi * way))
        rate = np.concatenate([[0.0], np.minimum(done / warm_up, falling)])
        time, memory = np.cumsum(rate), LOOKING_MEMORY * num_steps
        return cls(rate, time, np.cumsum(rate * rate * np.exp(time / memory)) / memory, memory)

    def damage(self, start: int, stop: int, before: float, each: float) -> float:
        """What looking has cost at step `stop`.

        Args:
            before: what it had cost at step `start`.
            each: what it costs at the peak learning rate if one looks for long, nats.
        """
        left = np.exp(-self.time[stop] / self.memory)
        new = each * left * (self.looked[stop] - self.looked[start])
        return float(before * left * np.exp(self.time[start] / self.memory) + new)

    def damage_of_a_pull(self) -> float:
        """What a pull of 1 costs at the peak learning rate if it lasts, so that LOOKING_COST comes out."""
        start, stop = (round(share * (len(self.time) - 1)) for share in LOOKING_LEFT)
        at_stop = self.damage(start, stop, 0.0, LOOKING_PULL**2)
        return LOOKING_COST / self.damage(stop, len(self.time) - 1, at_stop, 0.0)


@dataclass(frozen=True)
class ReturnsWorld(World):
    """Diminishing returns; `noise` is a factor on the measured noise (a batch 8 times as large: 0.7)."""

    kind: Kind = field(default="gap", kw_only=True)
    """gap: every target has a sparse best mixture; even: all mixtures are as in gap, but the best is even;
    lawless: the mixture does not matter (B = 0)."""

    def __post_init__(self):
        super().__post_init__()
        if self.num_steps < 2:
            raise ValueError(f"num_steps is {self.num_steps}: a world with law returns needs at least 2")
        self.refuse_many_losses("returns", "a best mixture for each of")

    @property
    def title(self) -> str:
        return f"returns law ({self.kind}), noise x {self.noise:g}"

    @property
    def start(self) -> Model:
        return Model(0, uniform(self.num_groups), 0.0)

    @cached_property
    def clock(self) -> Clock:
        return Clock.of_run(self.num_steps)

    @cached_property
    def benefit(self) -> float:
        """B, nats."""
        return 0.0 if self.kind == "lawless" else np.random.default_rng((self.seed, 6)).uniform(*BENEFIT)

    @cached_property
    def theta(self) -> Array:
        """[G + K, G], the best mixture of each group and target."""
        n, even = self.num_groups, uniform(self.num_groups)
        if self.kind == "even":
            return np.tile(even, (n + self.num_targets, 1))
        rng = np.random.default_rng((self.seed, 7))
        groups = OWN_SHARE * np.eye(n) + (1 - OWN_SHARE) * even
        sparse = rng.dirichlet(CONCENTRATION * even, self.num_targets)
        return np.concatenate([groups, (1 - EVEN_SHARE) * sparse + EVEN_SHARE * even])

    @property
    def best(self) -> Array:
        """[G], the best static mixture for all that the mixture is for."""
        return self.theta[self.aimed_at].mean(axis=0)

    def train(
        self, model: Model, proportions: Array, step: int, num_steps: int, centre: Array | None = None
    ) -> Model:
        stop, clock = step + num_steps, self.clock
        kept = np.exp(-(clock.time[stop] - clock.time[step]) / MEMORY)
        remembered = proportions + kept * (model.remembered - proportions)
        each = 0.0 if centre is None else self._damage_of_a_pull * _squared_pull(proportions, centre)
        return Model(stop, remembered, clock.damage(step, stop, model.damage, each))

    def losses(self, model: Model) -> Array:
        fallen = FALL * self.clock.time[model.step] / self.num_steps
        fallen += FIRST_FALL * -np.expm1(-model.step / (FIRST_SHARE * self.num_steps))
        value = self.benefit * (self.theta @ np.log(self._counted(model)))
        return self._first_losses - fallen - value + model.damage

    def present_A(self, model: Model, step: int) -> Array:
        after = self.train(model, model.remembered, step, min(1, self.num_steps - step))
        level = (self.losses(model) - self.losses(after))[:, None]
        speed = -self.benefit * np.expm1((self.clock.time[step] - self.clock.time[after.step]) / MEMORY)
        return level + speed * (self.theta / self._counted(model) - 1.0)

    def signal_to_noise(self, strength: float, num_steps: int) -> float:
        """How much more a stretch pulled to the best group lowers the loss, over the noise of its drop.

        At even proportions and the peak learning rate; of the mean over what the mixture is for.

        Args:
            strength: of the pull.
            num_steps: of the stretch.
        """
        if self.noise == 0:
            return np.inf
        even, kept = uniform(self.num_groups), np.exp(-num_steps / MEMORY)
        remembered = pulled(even, int(np.argmax(self.best)), (1 - kept) * strength)
        signal = self.benefit * (self.best @ np.log(remembered / even))
        count = self.aimed_at.stop - self.aimed_at.start
        of_mean = np.sqrt((1 - SHARED) / count + SHARED)
        of_drop = np.sqrt(WALKS**2 * num_steps / NOISE_STEPS + 2 * EVALUATIONS**2)
        return float(signal / (self.noise * LOSS_NOISE * of_mean * of_drop))

    def errors(self, rows: slice, number: int, step: int) -> Array:
        """Of a given step always the same, as those of an evaluation on given sequences are."""
        return self.noise * self._noise[step, rows]

    def alignment(self, helps: Array, noise: Array, number: int) -> Array:
        rng = np.random.default_rng((self.seed, 9, number))
        each, shared = rng.standard_normal(len(helps)), rng.standard_normal()
        error = self.noise * ALIGNMENT_NOISE * np.abs(helps).mean() * each
        return np.exp(self.noise * SCALE_NOISE * shared) * helps + error

    @cached_property
    def _first_losses(self) -> Array:
        return self.random(0, 5.5, 6.5)

    @cached_property
    def _damage_of_a_pull(self) -> float:
        return self.clock.damage_of_a_pull()

    @cached_property
    def _noise(self) -> Array:
        """[T + 1, G + K], nats: a random walk with a step for every step, and a part of its own."""
        rng, count = np.random.default_rng((self.seed, 8)), self.num_groups + self.num_targets
        walk, own = rng.standard_normal((2, self.num_steps + 1, 1 + count)) * self.clock.rate[:, None]
        noise = WALKS / np.sqrt(NOISE_STEPS) * np.cumsum(walk, axis=0) + EVALUATIONS * own
        return LOSS_NOISE * (np.sqrt(1 - SHARED) * noise[:, 1:] + np.sqrt(SHARED) * noise[:, :1])

    def _counted(self, model: Model) -> Array:
        return np.maximum(model.remembered, LEAST_REMEMBERED / self.num_groups)


def _squared_pull(proportions: Array, centre: Array) -> float:
    """Square of the strength with which one group, the one whose share changes most, is pulled to or from."""
    moved = proportions - centre
    group = np.argmax(np.abs(moved))
    whole = np.eye(len(centre))[group] - centre
    return float(moved @ moved / (whole @ whole)) if moved[group] else 0.0
