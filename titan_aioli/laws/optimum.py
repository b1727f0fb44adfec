"""The mixture that a fitted law predicts to be best, near a prior and within what the data allow."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from titan_aioli.proportions import bounded, normalize, normalize_or_uniform, uniform

Array = np.ndarray
SMALLEST_SHARE = 1e-300  # so that 0 log 0 is 0


class Law(Protocol):
    """What `optimal_mixture` needs of a law."""

    def predict(self, proportions: Array) -> Array: ...

    def gradient(self, proportions: Array, weights: Array) -> Array: ...


def repetition_caps(group_tokens: ArrayLike, training_tokens: float, max_epochs: float) -> Array:
    """Largest share of each group so that none is repeated more than `max_epochs` times, [G].

    Args:
        group_tokens: [G], tokens of each group.
        training_tokens: tokens of the whole run.
        max_epochs: passes over a group, above 0; about 4 cost little (Muennighoff et al. 2023,
            arXiv:2305.16264).
    """
    return np.minimum(1.0, max_epochs * np.asarray(group_tokens, dtype=np.float64) / training_tokens)


def optimal_mixture(
    law: Law,
    num_groups: int,
    weights: ArrayLike | None = None,
    anchor: ArrayLike | None = None,
    anchor_strength: float = 0.0,
    caps: ArrayLike | None = None,
) -> Array:
    """argmin over p of sum_i weights_i L_i(p) + anchor_strength * KL(p || anchor), with p <= caps.

    Convex for both laws, so one start is enough. `anchor_strength` 0 and no caps give the minimum of Ye et
    al. 2024, arXiv:2403.16952; the released code of arXiv:2411.05735 finds it by Nelder-Mead over logits, to
    about four digits.

    Args:
        law: fitted, of M evaluated groups.
        num_groups: G.
        weights: [M], how much each evaluated group counts. None: all the same.
        anchor: [G], prior, all positive. None: uniform.
        anchor_strength: nats per nat of KL divergence; 0: none.
        caps: [G], largest share of each group; see `repetition_caps`.
    Returns: [G], on the simplex.
    Raises: ValueError: the caps sum to less than 1, or the anchor has a group without share.
    """
    prior = normalize_or_uniform(anchor, num_groups, "anchor")
    if anchor_strength > 0 and prior.min() <= 0:
        raise ValueError(f"anchor[{prior.argmin()}] is 0: a KL anchor needs a positive share for every group")
    most = np.ones(num_groups) if caps is None else np.asarray(caps, dtype=np.float64)
    if most.sum() < 1:
        raise ValueError(
            f"the caps sum to {most.sum():.4g}, below 1: no mixture keeps them; train on fewer tokens, allow "
            "more repeats or add data"
        )
    start = bounded(0.5 * prior + 0.5 * uniform(num_groups), most=most)
    w = normalize_or_uniform(weights, law.predict(start).shape[-1])
    found = minimize(
        _objective(law, w, np.log(np.maximum(prior, SMALLEST_SHARE)), anchor_strength),
        start,
        jac=True,
        method="SLSQP",
        bounds=list(zip(np.zeros(num_groups), most, strict=True)),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    return bounded(normalize(np.clip(found.x, 0.0, most), "the optimum"), most=most)


def _objective(
    law: Law, w: Array, log_prior: Array, strength: float
) -> Callable[[Array], tuple[float, Array]]:
    """Value and gradient of sum_i w_i L_i(p) + strength KL(p || prior), divided by 1 + strength.

    The division keeps both of the order of 1, which the solver's line search relies on.
    """
    scale = 1.0 + strength

    def objective(p: Array) -> tuple[float, Array]:
        log_ratio = np.log(np.maximum(p, SMALLEST_SHARE)) - log_prior
        value = w @ law.predict(p) + strength * (p @ log_ratio)
        gradient = law.gradient(p, w) + strength * (log_ratio + 1.0)
        return float(value) / scale, gradient / scale

    return objective
