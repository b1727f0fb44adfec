"""A mixture that counts with what repetition will cost before it is seen.

A row of a group that has been read e times is worth

    v(e) = exp(-max(0, e - 1) / tau)

of a new one. Source: Muennighoff et al. 2023, arXiv:2305.16264, section 3, where the law is that of a whole
run and tau (R*) is 15.
"""

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import wrightomega

Array = np.ndarray


def kept_worth(before: Array, after: Array, tau: float) -> Array:
    """v(after) / v(before) [G], of groups that had been read `before` and now `after` times, [G]."""
    return np.exp((np.maximum(before - 1.0, 0.0) - np.maximum(after - 1.0, 0.0)) / tau)


def lasting_mixture(values: Array, power: float, epochs: Array, ahead: Array, tau: float) -> Array:
    """The mixture theta [G] with which all groups are worth the same at the end of the run, where

        values_j v(epochs_j + ahead_j theta_j) / v(epochs_j) / theta_j^power = level

    for every group that has a value. Where nothing is read again, theta is values^(1 / power), renormalised;
    else theta of each group follows from the level by Lambert's W, and the level from their sum.

    Args:
        values: [G], what a row of each group is worth now at a share of 1, at least 0, one of them above.
        power: with which the value of a group falls as its share grows, above 0.
        epochs: [G], of each group so far.
        ahead: [G], of each group in the rest of the run if that were on nothing else.
        tau: of v.
    """
    new = np.maximum(1.0 - epochs, 0.0)  # of an epoch
    endless = (values / values.max()) ** (1.0 / power)
    endless /= endless.sum()
    if (ahead * endless <= new).all():
        return endless
    used = values > 0
    theta = np.zeros(len(values))
    theta[used] = _solved(np.log(values[used]), power, new[used], ahead[used], tau)
    return theta / theta.sum()


def _solved(log_values: Array, power: float, new: Array, ahead: Array, tau: float) -> Array:
    """theta of groups that all have a value; see above."""
    falls = ahead / (tau * power)

    def shares(log_level: float) -> Array:
        log_share = (log_values - log_level) / power
        share = np.exp(np.minimum(log_share, 0.0))
        again = ahead * share > new
        log_share[again] += new[again] / (tau * power)
        share[again] = wrightomega(log_share[again] + np.log(falls[again])).real / falls[again]
        return share

    highest = power * np.logaddexp.reduce(log_values / power)  # with it the sum is 1 or less
    lowest = highest - max(0.0, (ahead - new).max()) / tau
    found = root_scalar(
        lambda log_level: shares(log_level).sum() - 1.0, bracket=(lowest - 1.0, highest + 1.0)
    )
    return shares(found.root)
