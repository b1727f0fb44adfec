"""What the mixture has gained over its anchor, as measured: train on the anchor, then on the mixture again.

Each of the two is trained on until the model has all but forgotten the other. The law (law.py) says the same
gain from small perturbations; this needs no law, costs steps on the anchor, and shows what is there to see at
all with the noise of the run.

With k of the earlier mixture remembered after one of the two, and the gain g, the anchor lowers the drop of
the objective by (1 - k) g, and the mixture after it raises it by (1 - k)^2 g:

    g = (drop on the mixture - drop on the anchor) / ((1 - k) (2 - k))

Too small rather than too large: the more the learning rate has fallen the more slowly a model forgets, and a
loss curve that flattens takes a little too.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from titan_aioli.methods.aioli_bayes.looking import FORGETTING_STEPS, Looking

FORGETTINGS = 3.0
"""Length of each half of a comparison, in FORGETTING_STEPS."""
LEAST_DISTANCE = 0.02
"""With no share further than this from the anchor's there is nothing to compare."""


class Comparing(NamedTuple):
    """The comparisons of one run."""

    at: Sequence[float]
    """Shares of the run after which one is due, ascending."""
    looking: Looking

    @property
    def stretches(self) -> int:
        """Length of each half of a comparison, in stretches."""
        return max(1, math.ceil(FORGETTINGS * FORGETTING_STEPS / self.looking.steps))

    @property
    def kept(self) -> float:
        """Share of the mixture seen before a half that is remembered after it, at the peak learning rate."""
        return self.looking.kept**self.stretches

    def check(self) -> None:
        """Raises: ValueError: the times are not ascending shares of the run."""
        for before, share in pairwise((-1, *self.at)):
            if not 0 <= share < 1 or share <= before:
                raise ValueError(
                    f"aioli_bayes.compare_at is {list(self.at)}: it must be shares of the run, from 0 to "
                    "less than 1, ascending"
                )

    def outlook(self) -> dict[str, str]:
        """When and for how long, for `check`."""
        if not self.at:
            return {}
        times = ", ".join(f"{share:.0%}" for share in self.at)
        steps = self.stretches * self.looking.steps
        return {"compared": f"with the anchor after {times} of the run, {steps:,} steps on each of the two"}

    def is_due(self, stretch: int, compared: int, proportions: np.ndarray, anchor: np.ndarray) -> bool:
        """Whether to begin one: it is time, there is something to compare, and it ends before the run does.

        Args:
            stretch: stretches done, those of comparisons counted.
            compared: stretches of comparisons done.
            proportions, anchor: [G].
        """
        done, looking = compared // (2 * self.stretches), self.looking
        return (
            done < len(self.at)
            and stretch * looking.steps >= self.at[done] * looking.num_steps
            and stretch + 2 * self.stretches < looking.num_stretches
            and bool(np.abs(proportions - anchor).max() > LEAST_DISTANCE)
        )

    def measured(self, difference: float, noise: float) -> tuple[float, float]:
        """The gain that one comparison shows, and its standard error, nats.

        Args:
            difference: drop of the objective on the mixture, less that on the anchor, nats.
            noise: standard deviation of the noise of a drop, nats.
        """
        reach = (1.0 - self.kept) * (2.0 - self.kept)
        # the loss between the two drops counts twice in their difference: 6 times its variance, a drop has 2
        return difference / reach, math.sqrt(3.0) * noise / reach


def pooled(earlier: np.ndarray, measured: tuple[float, float]) -> np.ndarray:
    """[2], the mean gain of all comparisons, each weighted by its precision, and its standard error.

    Args:
        earlier: [2], the same of those before; an infinite standard error where there were none.
        measured: of one more.
    """
    (gain, error), (new_gain, new_error) = earlier, measured
    if math.isinf(error):
        return np.array(measured)
    share = error / math.hypot(error, new_error)
    return np.array([gain + share**2 * (new_gain - gain), share * new_error])
