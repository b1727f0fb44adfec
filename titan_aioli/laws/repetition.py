"""What repeated data are worth: laws of effective shares in place of shares."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from titan_aioli.laws.optimum import Law

Array = np.ndarray


def effective_shares(proportions: ArrayLike, epochs: ArrayLike, tau: float) -> Array:
    """N_j tau (1 - exp(-e_j / tau)) / R for every group: the share that repeated tokens are worth.

    N_j are the tokens of group j, R those of the run, e_j = p_j R / N_j its epochs. It is p_j where e_j is
    far below tau, and never above N_j tau / R. The sum may be below 1.

    Source: the form of Muennighoff et al. 2023, arXiv:2305.16264, in which each repetition is worth less.

    Args:
        proportions: [..., G].
        epochs: [..., G], how often each group is read at these proportions.
        tau: epochs after which repeating is worth 1/e of new data, above 0.
    Returns: [..., G].
    """
    proportions, epochs = np.asarray(proportions, np.float64), np.asarray(epochs, np.float64)
    repeated = np.maximum(epochs, 1e-12) / tau
    return proportions * -np.expm1(-repeated) / repeated


class RepeatedLaw(NamedTuple):
    """A law of effective shares as a law of the proportions of one run; not convex in general."""

    law: Law
    """Fitted to effective shares."""
    epochs_of_all: Array
    """[G], R / N_j: epochs of each group if the run trained on nothing else."""
    tau: float
    """As in `effective_shares`."""

    @property
    def is_convex(self) -> bool:
        return False

    def predict(self, proportions: Array) -> Array:
        """Losses [..., M] at proportions [..., G]."""
        return self.law.predict(self._shares(proportions))

    def gradient(self, proportions: Array, weights: Array) -> Array:
        """Gradient [G] of sum_i weights_i L_i at one mixture [G]; weights [M]."""
        slope = np.exp(-proportions * self.epochs_of_all / self.tau)
        return self.law.gradient(self._shares(proportions), weights) * slope

    def _shares(self, proportions: Array) -> Array:
        return effective_shares(proportions, proportions * self.epochs_of_all, self.tau)
