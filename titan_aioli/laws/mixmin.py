"""MixMin: the mixture whose ensemble of single-group models gives the target text the highest likelihood.

It needs no law: one model per group, each trained on that group alone, and how likely each of them finds
every held-out sequence of the targets. The problem is convex and takes milliseconds.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from titan_aioli.files import read_json, write_json
from titan_aioli.laws.plan import Plan, Planned
from titan_aioli.laws.table import RunTable
from titan_aioli.proportions import bounded, normalize_or_uniform, uniform

Array = np.ndarray

MAX_STEPS, TOLERANCE = 10_000, 1e-6
"""Of expectation maximisation: it stops when no mixture can be better by more than the tolerance, in nats per
sequence."""
HELD_OUT_EVERY = 5
"""Every fifth sequence is held out of the fit, and says how well the ensemble predicts."""


class Likelihoods(NamedTuple):
    """How likely the models of G groups find the sequences of K targets."""

    groups: list[str]
    targets: list[str]
    log_likelihoods: list[Array]
    """[K] of [n_k, G], log P_i(x) of every sequence x of target k under the model of group i, nats."""
    num_tokens: list[Array]
    """[K] of [n_k], tokens of x that count."""

    def part(self, held_out: bool) -> "Likelihoods":
        """The sequences that are held out, or the others."""
        chosen = [np.arange(len(n)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 for n in self.num_tokens]
        kept = [mask if held_out else ~mask for mask in chosen]
        return self._replace(
            log_likelihoods=[x[mask] for x, mask in zip(self.log_likelihoods, kept, strict=True)],
            num_tokens=[n[mask] for n, mask in zip(self.num_tokens, kept, strict=True)],
        )


def mixmin(likelihoods: Likelihoods, weights: Array | None = None, caps: Array | None = None) -> Array:
    """argmin over p of sum_k w_k mean_x of -log(sum_i p_i P_i(x)) per token of x.

    Source: Thudi et al. 2025, arXiv:2502.10510, for one target and no caps; here targets are averaged by
    their weights. The paper takes at most 100 steps of exponentiated gradient of size 1 from uniform. The
    gradient of a loss per token is of the order of 1 / tokens, so that these end near uniform where sequences
    are long. Here it is expectation maximisation in which a sequence counts w_k / (n_k tokens of x): it needs
    no step size, and with caps a step is still exact: it ends with the projection in KL divergence.

    Args:
        likelihoods: of sequences that the fit may see.
        weights: [K], how much each target counts. None: all the same.
        caps: [G], largest share of each group. None: none.
    Returns: [G], on the simplex.
    Raises: ValueError: the caps sum to less than 1.
    """
    w = normalize_or_uniform(weights, len(likelihoods.targets))
    num_groups = len(likelihoods.groups)
    most = np.ones(num_groups) if caps is None else caps
    p = bounded(uniform(num_groups), most=most)
    relative, counts = _sequences(likelihoods, w, most)
    for _ in range(MAX_STEPS):
        gains = (counts / (relative @ p)) @ relative  # minus the gradient per sequence; p @ gains is 1
        if gains @ _best_corner(gains, most) - 1 < TOLERANCE:
            break
        p = bounded(p * gains, most=most)
    return p


def ensemble_losses(p: Array, likelihoods: Likelihoods) -> Array:
    """[K], mean over the sequences of -log(sum_i p_i P_i(x)) per token; nan for a target without any."""
    pairs = zip(likelihoods.log_likelihoods, likelihoods.num_tokens, strict=True)
    return np.array([-np.mean(_log_mean(p, x) / n) if len(n) else np.nan for x, n in pairs])


def plan_by_mixmin(
    table: RunTable, likelihoods: Likelihoods, weights: Array | None = None, caps: Array | None = None
) -> Planned:
    """The plan; its predicted losses are those of the ensemble on the sequences held out of the fit.

    Args:
        table: of the runs, on whose targets the weights are.
        likelihoods: of the models of single groups.
        weights, caps: as in `mixmin`.
    Raises: ValueError: table and likelihoods are of other groups or targets.
    """
    for kind, ours, others in (
        ("groups", table.groups, likelihoods.groups),
        ("targets", table.evaluated, likelihoods.targets),
    ):
        if list(ours) != list(others):
            raise ValueError(f"the table has the {kind} {ours}, the likelihoods are of {others}")
    p = mixmin(likelihoods.part(held_out=False), weights, caps)
    losses = ensemble_losses(p, likelihoods.part(held_out=True))
    settings = {"weights": weights, "anchor": None, "anchor_strength": 0.0, "caps": caps}
    made = Plan("mixmin", table.groups, p, table.evaluated, losses, None, {}, settings, table.digest)
    return Planned(made, None, table.losses, np.full_like(table.losses, np.nan))


def write_likelihoods(path: Path, likelihoods: Likelihoods) -> None:
    """Write the file that read_likelihoods reads."""
    names = ("log_likelihoods", "num_tokens")
    by_target = {
        target: dict(zip(names, values, strict=True))
        for target, *values in zip(
            likelihoods.targets, likelihoods.log_likelihoods, likelihoods.num_tokens, strict=True
        )
    }
    write_json(path, {"groups": likelihoods.groups, "targets": by_target}, indent=0)


def read_likelihoods(path: Path) -> Likelihoods:
    """What `titan-aioli sweep --single-groups` wrote.

    Raises: ValueError: there is no such file, or it is another.
    """
    if not path.is_file():
        raise ValueError(
            f"mixmin needs {path}, which `titan-aioli sweep --single-groups` writes: run it first"
        )
    content = read_json(path, "likelihoods made by `titan-aioli sweep --single-groups`")
    try:
        groups, targets = list(content["groups"]), dict(content["targets"])
        values = [np.array(t["log_likelihoods"], np.float64) for t in targets.values()]
        tokens = [np.array(t["num_tokens"], np.float64) for t in targets.values()]
        if not all(
            np.isfinite(x).all() and x.shape == (len(n), len(groups)) and (n > 0).all()
            for x, n in zip(values, tokens, strict=True)
        ):
            raise ValueError("numbers that are not finite, or of another shape")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no likelihoods of single groups ({error!r})") from None
    return Likelihoods(groups, list(targets), values, tokens)


def _log_mean(p: Array, log_likelihoods: Array) -> Array:
    """log(sum_i p_i P_i(x)) [n] of sequences [n, G]."""
    return np.asarray(logsumexp(log_likelihoods, axis=1, b=p))


def _sequences(likelihoods: Likelihoods, w: Array, most: Array) -> tuple[Array, Array]:
    """P_i(x) over the largest of x [n, G], and how much x counts [n], of the sequences that count at all.

    The counts, w_k / (n_k tokens of x), sum to 1; P_i(x) is 0 for groups that may have no share.
    """
    pairs = zip(w, likelihoods.num_tokens, strict=True)
    counts = np.concatenate([w_k / (len(n) * n) for w_k, n in pairs])
    logs = np.concatenate(likelihoods.log_likelihoods)[counts > 0]
    logs = np.where(most > 0, logs, -np.inf)
    return np.exp(logs - logs.max(axis=1, keepdims=True)), counts[counts > 0] / counts.sum()


def _best_corner(gains: Array, most: Array) -> Array:
    """[G], the mixture below `most` of the largest gains @ p: the groups that gain most are at their cap."""
    order = np.argsort(-gains)
    before = np.cumsum(most[order]) - most[order]
    corner = np.zeros(len(gains))
    corner[order] = np.clip(1 - before, 0.0, most[order])
    return corner
