"""A mixing law with diminishing returns, and how far a run's evidence supports one best mixture or another.

The law. A stretch of training on mixture q, by a model that has lately seen the mixture r, lowers the
objective by

    y = a + s . (q - r) + noise                s_j = beta (theta_j / p_j - 1)

around the proportions p: a is the level of the drops, s_j the slope on the share of group j, theta the best
mixture and beta the scale of the slopes. It is the linear law of Aioli, and it is the rate of the utility
beta sum_j theta_j log p_j: the value of a group falls as its share grows, and at p = theta nothing is left to
win. beta is the level of the drops (a group that the target does not need then has the slope -a: it gives
nothing), or more where a slope is below that.

The opinions. Under the first, the anchor is the best mixture: theta is known and only a is estimated. Under
each of the others theta may be anything: the slopes are normal around those of the first opinion, with a
standard deviation of `scale` times the noise of a stretch. There are several, since nobody knows beforehand
how large slopes are beside the noise. All are tracked by the same filter, a dynamic linear model with unknown
noise: its posterior is normal and inverse gamma, its predictions are Student's t, and the product of their
densities is an opinion's evidence. The ratio of two is a Bayes factor. Where the first opinion is right, the
probability that the Bayes factor of the others ever exceeds b is at most 1 / b, however often one looks
(Ville's inequality; exact for a fixed law and known unit).

Source: West and Harrison 1997, Bayesian Forecasting and Dynamic Models, sections 4.5 and 10.8 (the filter,
discounted noise) and 12.2 (several models at once). The law is this project's, see docs/methods.md.

Arrays are [M, ...], M = 1 + the number of scales, the first opinion first. Drops are in units of a running
estimate of their noise, `unit`: slopes, level and noise all shrink with the learning rate, so that in this
unit they hardly change.
"""

import math
from typing import NamedTuple

import numpy as np

LEVEL_STEP = 0.3
"""Standard deviation of the change of the level from one stretch to the next, in units of the noise."""
LEVEL_START = 10.0
"""Standard deviation of the level before the first stretch, in units of the noise."""
LEAST_LEVEL = 0.05
"""The level counts as at least this, in the unit, where beta is set from it."""
FREEDOM_START = 4.0
NOISE_DISCOUNT = 0.97
"""What the evidence on the size of the noise is multiplied by at each stretch."""


class Opinions(NamedTuple):
    """What each opinion has learned; slopes are those at the proportions that it was last `moved` to."""

    mean: np.ndarray
    """[M, 1 + G], level and slopes, in the unit."""
    cov: np.ndarray
    """[M, 1 + G, 1 + G], their covariance over the variance of the noise."""
    freedom: np.ndarray
    """[M], degrees of freedom of the noise."""
    noise: np.ndarray
    """[M], variance of the noise, in the unit squared."""
    log_evidence: np.ndarray
    """[M], logarithm of the Bayes factor to the first opinion."""


def first_opinions(num_groups: int, scales: np.ndarray) -> Opinions:
    """Before the first stretch.

    Args:
        num_groups: G.
        scales: [M], prior standard deviation of a slope over that of the noise; the first is 0.
    """
    num_opinions = len(scales)
    cov = np.zeros((num_opinions, 1 + num_groups, 1 + num_groups))
    cov[:, 0, 0] = LEVEL_START**2
    cov[:, 1:, 1:] = scales[:, None, None] ** 2 * np.eye(num_groups)
    return Opinions(
        mean=np.zeros((num_opinions, 1 + num_groups)),
        cov=cov,
        freedom=np.full(num_opinions, FREEDOM_START),
        noise=np.ones(num_opinions),
        log_evidence=np.zeros(num_opinions),
    )


def beta(mean: np.ndarray, proportions: np.ndarray) -> np.ndarray:
    """[M], scale of the slopes: the level, or what the lowest slope is below their mean, if that is more.

    Args:
        mean: [M, 1 + G].
        proportions: [G], p.
    """
    return np.maximum(np.maximum(mean[:, 0], LEAST_LEVEL), -_centred(mean[:, 1:], proportions).min(axis=1))


def best_mixture(mean: np.ndarray, proportions: np.ndarray) -> np.ndarray:
    """[M, G], theta of each opinion: p_j (1 + s_j / beta), with s centred so that p . s = 0.

    Args: as of `beta`.
    """
    theta = proportions * (1.0 + _centred(mean[:, 1:], proportions) / beta(mean, proportions)[:, None])
    theta = np.maximum(theta, 0.0)
    return theta / theta.sum(axis=1, keepdims=True)


def anchor_slopes(mean: np.ndarray, proportions: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """[G], the slopes at p under the first opinion: those of a law whose best mixture is the anchor."""
    return max(mean[0, 0], LEAST_LEVEL) * (anchor / proportions - 1.0)


def aged(
    opinions: Opinions,
    proportions: np.ndarray,
    anchor: np.ndarray,
    scales: np.ndarray,
    memory: float,
) -> Opinions:
    """The opinions a stretch later: the level may have moved, and slopes drift back to the first opinion's.

    Args:
        opinions: slopes at `proportions`.
        proportions, anchor: [G], p and what the first opinion takes for theta.
        scales: [M].
        memory: stretches after which what was learned of the slopes counts 1 / e.
    """
    mean, cov = opinions.mean.copy(), opinions.cov.copy()
    kept = math.exp(-1.0 / memory)
    slopes = anchor_slopes(mean, proportions, anchor)
    mean[:, 1:] = slopes + kept * (mean[:, 1:] - slopes)
    mean[0, 1:] = slopes
    cov[:, 1:, :] *= kept
    cov[:, :, 1:] *= kept
    cov[:, 1:, 1:] += (1.0 - kept**2) * scales[:, None, None] ** 2 * np.eye(len(proportions))
    cov[:, 0, 0] += LEVEL_STEP**2
    return opinions._replace(mean=mean, cov=cov)


def learned(opinions: Opinions, drop: float, difference: np.ndarray) -> tuple[Opinions, np.ndarray]:
    """The opinions after a stretch, and how far each was from the drop.

    Args:
        opinions: `aged`.
        drop: y, in the unit.
        difference: [G], q - r.
    Returns: the opinions, and the errors of their predictions [M], in the unit: less where slopes are not
        known yet, in proportion to what that adds to the spread of the prediction.
    """
    mean, cov, freedom, noise, log_evidence = opinions
    seen = np.concatenate([[1.0], difference])
    error = drop - mean @ seen
    gain = cov @ seen
    variance = gain @ seen + 1.0
    log_density = _log_density_t(error, noise * variance, freedom)
    more_freedom = NOISE_DISCOUNT * freedom + 1.0
    return (
        Opinions(
            mean=mean + (error / variance)[:, None] * gain,
            cov=cov - gain[:, :, None] * gain[:, None, :] / variance[:, None, None],
            freedom=more_freedom,
            noise=(NOISE_DISCOUNT * freedom * noise + error**2 / variance) / more_freedom,
            log_evidence=log_evidence + log_density - log_density[0],
        ),
        error / np.sqrt(variance),
    )


def moved(opinions: Opinions, proportions: np.ndarray, to: np.ndarray) -> Opinions:
    """The same opinions, with the slopes at other proportions: s'_j = (s_j + beta) p_j / p'_j - beta.

    Args:
        opinions: slopes at `proportions`.
        proportions, to: [G], p and p', positive.
    """
    if np.array_equal(proportions, to):
        return opinions
    mean, cov, ratio = opinions.mean.copy(), opinions.cov.copy(), proportions / to
    scale = beta(mean, proportions)[:, None]
    mean[:, 1:] = ratio * (_centred(mean[:, 1:], proportions) + scale) - scale
    change = ratio[:, None] * (np.eye(len(to)) - proportions)
    cov[:, 1:, :] = change @ cov[:, 1:, :]
    cov[:, :, 1:] = cov[:, :, 1:] @ change.T
    return opinions._replace(mean=mean, cov=cov)


def in_unit(opinions: Opinions, factor: float) -> Opinions:
    """The same opinions in a unit that is larger by a factor."""
    return opinions._replace(mean=opinions.mean / factor, noise=opinions.noise / factor**2)


def probabilities(log_evidence: np.ndarray, prior_odds: float) -> np.ndarray:
    """[M], posterior probability of each opinion.

    Args:
        log_evidence: [M].
        prior_odds: prior probability of all opinions but the first, together.
    """
    prior = np.full(len(log_evidence), prior_odds / (len(log_evidence) - 1))
    prior[0] = 1.0 - prior_odds
    log_posterior = np.log(prior) + log_evidence
    posterior = np.exp(log_posterior - log_posterior.max())
    return posterior / posterior.sum()


def worth(
    opinions: Opinions, posterior: np.ndarray, proportions: np.ndarray, anchor: np.ndarray
) -> tuple[float, float]:
    """What p is worth beyond the anchor, and its standard error: beta sum_j theta_j log(p_j / anchor_j).

    Args:
        opinions: slopes at `proportions`.
        posterior: [M], probability of each.
        proportions, anchor: [G], positive.
    Returns: in the unit: what the drop of one stretch would differ by.
    """
    per_slope = proportions * np.log(proportions / anchor)
    scale = beta(opinions.mean, proportions)
    means = (_centred(opinions.mean[:, 1:], proportions) + scale[:, None]) @ per_slope
    centred = per_slope - per_slope.sum() * proportions
    variances = opinions.noise * (opinions.cov[:, 1:, 1:] @ centred @ centred)
    mean = float(posterior @ means)
    return mean, math.sqrt(max(0.0, float(posterior @ (variances + (means - mean) ** 2))))


def _centred(slopes: np.ndarray, proportions: np.ndarray) -> np.ndarray:
    """[M, G], slopes less their mean p . s, which the drops do not show."""
    return slopes - (slopes @ proportions)[:, None]


def _log_density_t(error: np.ndarray, scale: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """[M], log density of Student's t with this squared scale [M], which no two opinions need share."""
    constant = np.array([math.lgamma((n + 1) / 2) - math.lgamma(n / 2) for n in freedom])
    spread = 0.5 * np.log(np.pi * freedom * scale)
    return constant - spread - 0.5 * (freedom + 1) * np.log1p(error**2 / (freedom * scale))
