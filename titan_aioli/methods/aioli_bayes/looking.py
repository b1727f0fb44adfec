"""How a run is cut into stretches, how far each is pulled to one group, and what can be seen that way.

Looking is not free. By the law, around the best mixture a stretch pulled to group j with strength s costs in
proportion to s^2 (1 / p_j - 1). So the strength is what it takes to see a difference beside the noise, up to
a bound; less to a group with a small share, in proportion to its root, so that it costs no more than another;
less where the evidence says that there is nothing to find, or what there is is known; and it falls to 0
towards the end of the run, where no time is left to use what is learned.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

STRETCHES = 128
STRETCHES_PER_GROUP = 16
"""A run has this many stretches for each group, and at least STRETCHES."""
SIGNAL = 1.0
"""Strength of a perturbation, times the level of the drops, over the noise of a stretch."""
LEAST_STRENGTH = 0.1
"""A perturbation of this strength costs next to nothing, so that less is not used for a small noise."""
LEAST_UNKNOWN = 1.0 / 3
"""Where nothing is found, or nothing is left to learn, the strength falls to this share."""
FORGETTING_STEPS = 28.0
"""Optimizer steps after which the model has forgotten all but 1 / e of the mixture that it was trained on
before: measured on small models (docs/study.md)."""


class Looking(NamedTuple):
    """The stretches of one run, numbered from 0."""

    num_groups: int
    num_steps: int
    """Optimizer steps of the run."""
    steps: int
    """Optimizer steps of a stretch."""
    strength: float
    """Largest share by which a stretch is pulled to one group."""
    window: Sequence[float]
    """Shares of the run between which stretches are pulled at full strength; before, not at all."""

    @property
    def num_stretches(self) -> int:
        return -(-self.num_steps // self.steps)

    @property
    def kept(self) -> float:
        """Share of the mixture seen before a stretch that the model remembers after it."""
        return math.exp(-self.steps / FORGETTING_STEPS)

    @property
    def first(self) -> int:
        """Number of the first stretch that is pulled, and learned from."""
        return math.ceil(self.window[0] * self.num_steps / self.steps)

    def strength_at(self, stretch: int, share: float, level_over_noise: float, unknown: float) -> float:
        """How far a stretch is pulled to one group, in [0, `strength`].

        Args:
            stretch: its number.
            share: that the group has without the pull.
            level_over_noise: drop of the objective in a stretch over the standard deviation of its noise.
            unknown: how much there is left to learn, 1 or more: all.
        """
        done, stop = stretch * self.steps / self.num_steps, self.window[1]
        if self.num_groups == 1 or stretch < self.first or done >= 1:
            return 0.0
        left = 1.0 if done < stop else (1.0 - done) / (1.0 - stop)
        wanted = min(self.strength, max(LEAST_STRENGTH, SIGNAL / max(level_over_noise, 1e-9)))
        for_share = math.sqrt(min(1.0, share * self.num_groups))
        return wanted * for_share * math.sqrt(left) * min(1.0, max(LEAST_UNKNOWN, unknown))

    def smallest_seen(self, prior_odds: float, scale: float) -> float:
        """The least difference that will probably be found: in the drop of a stretch pulled to one group.

        In standard deviations of the noise of a stretch. With x times the noise at each of n looks at every
        group, the expected log likelihood ratio is n x^2 / 2; it has to exceed the prior odds, and what the
        slopes of all groups cost that have to be learned. Twice that x, since looks get weaker while nothing
        is found: half to nine in ten were found in simulation. 0 where the prior odds alone suffice.

        Args:
            prior_odds: probability, before any evidence, that there is something to find.
            scale: prior standard deviation of a slope, over the noise of a stretch.
        """
        even = 1.0 / self.num_groups
        strengths = [self.strength_at(stretch, even, 0.0, 1.0) for stretch in range(self.num_stretches)]
        looks = max(1.0, sum(strength > 0 for strength in strengths) / self.num_groups)
        information = sum(strength**2 for strength in strengths) / self.num_groups
        learning = 0.5 * (self.num_groups - 1) * math.log1p(scale**2 * information)
        needed = max(0.0, math.log(1.0 / prior_odds - 1.0) + learning)
        return 2.0 * math.sqrt(2.0 * needed / looks)


def default_steps(num_steps: int, num_groups: int) -> int:
    """Optimizer steps of a stretch, of a run of `num_steps`."""
    return max(1, num_steps // max(STRETCHES, STRETCHES_PER_GROUP * num_groups))
