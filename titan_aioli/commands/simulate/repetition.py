"""A world in which data run out: groups of limited size, whose tokens are worth less each time they are read.

    L_k = FLOOR + FALL (1 + sum_j t_kj u_j / EARLY)^(-POWER)
    u_j = N_j tau (1 - exp(-e_j / tau)),   e_j = what was read of group j / N_j

t [G + K, G] is what training on a group is worth to a group or target, 1 where most. u_j is the form of
Muennighoff et al. 2023, arXiv:2305.16264, whose fit has tau = 15. Tokens are counted in those of a step.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from titan_aioli.commands.simulate.world import World
from titan_aioli.laws.repetition import effective_shares
from titan_aioli.proportions import uniform

Array = np.ndarray
FLOOR, FALL, POWER = 1.5, 4.5, 0.3
EARLY = 20.0
"""Steps on the best group after which (1 - 2^-0.3) of FALL is gone, 19 percent."""
TAU = 15.0
SIZES = (1 / 80, 1.0)
"""Range of N_j, log-uniform, in runs: the smallest would be read 80 times in a run on nothing else."""
OTHERS = 0.3
"""Most that another group is worth to a group."""
CONCENTRATION = 2.0
"""Sum of the parameters of the Dirichlet distribution that a target's row of t is drawn from, before it is
scaled: a few groups are worth nearly all."""


@dataclass(frozen=True)
class RepetitionWorld(World):
    """Limited groups; the model is what it has read of each, [G], and `noise` is in nats per token."""

    data_steps: int | None = field(default=None, kw_only=True)
    """Steps of the run that the sizes of the groups are drawn for. None: of this run, so that a shorter run
    has groups that are smaller by as much."""

    def __post_init__(self):
        super().__post_init__()
        self.refuse_many_losses("repetition", "what each group is worth to each of")

    @property
    def title(self) -> str:
        return f"repetition law, noise {self.noise:g}"

    @property
    def start(self) -> Array:
        return np.zeros(self.num_groups)

    @cached_property
    def sizes(self) -> Array:
        """[G], N_j in tokens of a step."""
        low, high = np.log(SIZES)
        drawn = np.random.default_rng((self.seed, 9)).uniform(low, high, self.num_groups)
        return np.exp(drawn) * (self.data_steps or self.num_steps)

    @property
    def epochs_of_all(self) -> list[float]:
        return (self.num_steps / self.sizes).tolist()

    @cached_property
    def worth(self) -> Array:
        """[G + K, G], t."""
        n, rng = self.num_groups, np.random.default_rng((self.seed, 10))
        groups = rng.uniform(0.0, OTHERS, (n, n))
        np.fill_diagonal(groups, 1.0)
        sparse = rng.dirichlet(CONCENTRATION * uniform(n), self.num_targets)
        return np.concatenate([groups, sparse / sparse.max(axis=1, keepdims=True)])

    def train(
        self, model: Array, proportions: Array, step: int, num_steps: int, centre: Array | None = None
    ) -> Array:
        return model + num_steps * proportions

    def losses(self, model: Array) -> Array:
        effective = effective_shares(model, model / self.sizes, TAU)
        return FLOOR + FALL * (1 + self.worth @ effective / EARLY) ** -POWER

    def present_A(self, model: Array, step: int) -> Array:
        effective = effective_shares(model, model / self.sizes, TAU)
        slope = FALL * POWER * (1 + self.worth @ effective / EARLY) ** (-POWER - 1)
        return slope[:, None] * self.worth / EARLY * np.exp(-model / self.sizes / TAU)

    def errors(self, rows: slice, number: int, step: int) -> Array:
        rng = np.random.default_rng((self.seed, 11, number))
        return self.noise * rng.standard_normal(rows.stop - rows.start)
