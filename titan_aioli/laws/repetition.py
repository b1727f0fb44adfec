"""What repeated data are worth: laws of effective shares in place of shares.

Effective shares sum to less than 1: the rest of a run reads what is worth nothing any more. Laws rest on
shares that sum to 1, or they have no constant. So the rest is one more share, which counts as that of the
group worth least to the target. It has no parameter of its own: a sweep that repeats little says next to
nothing about it, and the planned run would be far outside of what was tried.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


def effective_mixtures(proportions: ArrayLike, epochs: ArrayLike, tau: float) -> Array:
    """The effective shares and the rest, which sum to 1, [..., G + 1]; arguments as in `effective_shares`."""
    shares = effective_shares(proportions, epochs, tau)
    return np.concatenate([shares, 1.0 - shares.sum(axis=-1, keepdims=True)], axis=-1)


def fit_effective(fit: Callable[..., Any], mixtures: Array, losses: Array, near: Any = None) -> Any:
    """The law of effective mixtures closest to a table of runs, in which the rest is worth the least.

    Args:
        fit: (shares [N, G], losses [N, 1]) -> a law of one target; with `near`, its law of the target first.
        mixtures: [N, G + 1], see `effective_mixtures`.
        losses: [N, M], final losses, nats per token.
        near: a law of effective mixtures that the fit starts from.
    Returns: a law whose theta is [M, G + 1].
    """
    laws = []
    for k, group in enumerate(_least_worth(mixtures, losses)):
        start = () if near is None else (_one_target(near, k),)
        found = fit(*start, _rest_to(group, mixtures), losses[:, [k]])
        laws.append(found._replace(theta=np.append(found.theta, found.theta[:, [group]], axis=1)))
    return type(laws[0])(*(np.concatenate(parts) for parts in zip(*laws, strict=True)))


def _one_target(law: Any, k: int) -> Any:
    """The law of target k of laws of effective mixtures, as one of G shares."""
    one = type(law)(*(part[[k]] for part in law))
    return one._replace(theta=one.theta[:, :-1])


def _rest_to(group: int, mixtures: Array) -> Array:
    """Mixtures [N, G + 1] in which the rest is of one group, [N, G]."""
    shares = mixtures[:, :-1].copy()
    shares[:, group] += mixtures[:, -1]
    return shares


def _least_worth(mixtures: Array, losses: Array) -> Array:
    """[M], the group that is worth least to each target, by linear laws.

    For each group there is a law in which the rest counts as its share. Of the laws by which that group is
    worth least indeed, the one that fits best says it.
    """
    others, errors = [], []
    for group in range(mixtures.shape[1] - 1):
        shares = _rest_to(group, mixtures)
        theta = np.linalg.lstsq(shares, losses, rcond=None)[0]
        others.append(theta.argmax(axis=0) != group)
        errors.append(np.square(shares @ theta - losses).sum(axis=0))
    return np.lexsort((errors, others), axis=0)[0]


class RepeatedLaw(NamedTuple):
    """A law of effective mixtures as a law of the proportions of one run; not convex in general."""

    law: Law
    """Of effective shares and the rest, G + 1."""
    epochs_of_all: Array
    """[G], R / N_j: epochs of each group if the run trained on nothing else."""
    tau: float
    """As in `effective_shares`."""

    @property
    def is_convex(self) -> bool:
        return False

    def predict(self, proportions: Array) -> Array:
        """Losses [..., M] at proportions [..., G]."""
        return self.law.predict(self._mixtures(proportions))

    def gradient(self, proportions: Array, weights: Array) -> Array:
        """Gradient [G] of sum_i weights_i L_i at one mixture [G]; weights [M]."""
        slope = np.exp(-proportions * self.epochs_of_all / self.tau)
        gradient = self.law.gradient(self._mixtures(proportions), weights)
        return (gradient[:-1] - gradient[-1]) * slope

    def _mixtures(self, proportions: Array) -> Array:
        return effective_mixtures(proportions, proportions * self.epochs_of_all, self.tau)
