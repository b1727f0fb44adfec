"""The mixture that a fitted law predicts to be best, near a prior and within what the data allow."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from titan_aioli.proportions import bounded, normalize, normalize_or_uniform

Array = np.ndarray
SMALLEST_SHARE = 1e-300  # so that 0 log 0 is 0
ROUNDING = 1e-9  # of a sum of caps: 0.7 + 0.2 + 0.1 is below 1 in floats


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
    frozen: ArrayLike | None = None,
) -> Array:
    """argmin over p of sum_i weights_i L_i(p) + anchor_strength * KL(p || anchor), with p <= caps.

    Convex for laws in p, so one start is enough; laws in effective shares (repetition.py) are started from
    several points. `anchor_strength` 0 and no caps give the minimum of Ye et al. 2024, arXiv:2403.16952; the
    released code of arXiv:2411.05735 finds it by Nelder-Mead over logits, to about four digits. With natural
    shares as the anchor, strength 0.05 and caps of 4 epochs it is the proposal of Olmix, arXiv:2602.12237.

    Args:
        law: fitted, of M evaluated groups.
        num_groups: G.
        weights: [M], how much each evaluated group counts. None: all the same.
        anchor: [G], prior, all positive. None: uniform.
        anchor_strength: nats per nat of KL divergence; 0: none.
        caps: [G], largest share of each group; see `repetition_caps`.
        frozen: [G], shares that the groups above 0 keep relative to each other; see `blocks`.
    Returns: [G], on the simplex.
    Raises: ValueError: no mixture keeps the caps, or the anchor has a group without share.
    """
    prior = normalize_or_uniform(anchor, num_groups, "anchor")
    if anchor_strength > 0 and prior.min() <= 0:
        raise ValueError(f"anchor[{prior.argmin()}] is 0: a KL anchor needs a positive share for every group")
    basis = blocks(frozen, num_groups)
    most = _most(basis, np.ones(num_groups) if caps is None else np.asarray(caps, dtype=np.float64))
    starts = [bounded(normalize(q, "start"), most=most) for q in _starts(basis, prior, law)]
    w = normalize_or_uniform(weights, law.predict(basis @ starts[0]).shape[-1])
    objective = _objective(law, w, np.log(np.maximum(prior, SMALLEST_SHARE)), anchor_strength, basis)
    ends = [_minimum(objective, start, most) for start in starts]
    return basis @ min(ends, key=lambda q: objective(q)[0])


def blocks(frozen: ArrayLike | None, num_groups: int) -> Array:
    """The mixtures p = B q in which some groups keep their shares relative to each other, as B [G, G'].

    Source: mixture reuse of Olmix, arXiv:2602.12237: groups whose data did not change count as one.

    Args:
        frozen: [G], relative shares, 0 for groups that are free. None: all are.
        num_groups: G.
    Returns: a column for each free group, and first one for those that are frozen; q is on the simplex where
        p is.
    """
    if frozen is None:
        return np.eye(num_groups)
    shares = normalize(frozen, "frozen")
    return np.column_stack([shares, np.eye(num_groups)[:, shares == 0]])


def _most(basis: Array, caps: Array) -> Array:
    """[G'], largest q so that B q <= caps.

    Raises: ValueError: they sum to less than 1.
    """
    with np.errstate(divide="ignore"):
        most = np.minimum(1.0, np.min(np.where(basis > 0, caps[:, None] / basis, np.inf), axis=0))
    total = most.sum()
    if total < 1 - ROUNDING:
        raise ValueError(
            f"the caps sum to {total:.9g}, below 1: no mixture keeps them; train on fewer tokens, allow "
            "more repeats or add data"
        )
    return most / min(total, 1.0)


def _starts(basis: Array, prior: Array, law: Law) -> list[Array]:
    """Weights [G'] that a search starts from: the prior and uniform; near each corner if it is not convex."""
    num_blocks = basis.shape[1]
    inside = 0.5 * ((basis > 0).T @ prior) + 0.5 / num_blocks
    return [inside] + [0.1 * inside + 0.9 * q for q in np.eye(num_blocks) if not is_convex(law)]


def is_convex(law: Law) -> bool:
    """Whether the losses of a law are convex in the proportions; laws say so where they are not."""
    return getattr(law, "is_convex", True)


def _minimum(objective: Callable[[Array], tuple[float, Array]], start: Array, most: Array) -> Array:
    """The minimum on the simplex below `most` that a search from one point [G'] ends in."""
    found = minimize(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=list(zip(np.zeros(len(start)), most, strict=True)),
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    return bounded(normalize(np.clip(found.x, 0.0, most), "the optimum"), most=most)


def _objective(
    law: Law, w: Array, log_prior: Array, strength: float, basis: Array
) -> Callable[[Array], tuple[float, Array]]:
    """Value and gradient in q [G'] of sum_i w_i L_i(p) + strength KL(p || prior) over 1 + strength, p = B q.

    The division keeps both of the order of 1, which the solver's line search relies on.
    """
    scale = 1.0 + strength

    def objective(q: Array) -> tuple[float, Array]:
        p = basis @ q
        log_ratio = np.log(np.maximum(p, SMALLEST_SHARE)) - log_prior
        value = w @ law.predict(p) + strength * (p @ log_ratio)
        gradient = law.gradient(p, w) + strength * (log_ratio + 1.0)
        return float(value) / scale, gradient @ basis / scale

    return objective
