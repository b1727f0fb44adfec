"""What methods share that start from an anchor: the anchor, the least share, a step towards a mixture."""

from collections.abc import Sequence

import numpy as np

from titan_aioli.methods.checks import require_number, require_weights
from titan_aioli.proportions import bounded, normalize_or_uniform, softmax


def check_anchor(
    method: str, anchor: Sequence[float] | None, least_share: float | None, num_groups: int
) -> None:
    """Refuse a least share or weights of an anchor that cannot work with this many groups.

    Raises: ValueError: names the hyperparameter, its value and what is allowed.
    """
    if least_share is not None:
        most = 1 / num_groups
        require_number(f"{method}.least_share", least_share, above=0, at_most=most, what="a least share")
    if anchor is not None:
        require_weights(f"{method}.anchor", anchor, num_groups)


def anchor_mixture(
    method: str, anchor: Sequence[float] | None, least_share: float | None, num_groups: int
) -> np.ndarray:
    """[G], the anchor, with no share below the least one; uniform without weights."""
    return at_least(normalize_or_uniform(anchor, num_groups, f"{method}.anchor"), least_share)


def at_least(proportions: np.ndarray, least_share: float | None) -> np.ndarray:
    """[G], the closest proportions with no share below the least one; None: a tenth of an even one."""
    return bounded(proportions, 0.1 / len(proportions) if least_share is None else least_share)


def stepped(proportions: np.ndarray, theta: np.ndarray, rate: float, least_share: float | None) -> np.ndarray:
    """p_j (theta_j / p_j)^rate / Z [G]: exponentiated gradient towards theta [G], both positive."""
    log_p = (1.0 - rate) * np.log(proportions) + rate * np.log(theta)
    return at_least(softmax(log_p), least_share)
