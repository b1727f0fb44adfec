"""An update of the mixture as people see it: metrics by group, and a line on the console."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.methods.objective import Objective
from titan_aioli.methods.protocol import PHASES

OBSERVED = {
    "validation": "validation_loss",
    "sample": "sampled_validation_loss",
    "target": "target_loss",
    "target_sample": "sampled_target_loss",
    "train": "phase_train_loss",
    "excess": "excess_loss",
    "alignment": "alignment",
}
"""Name of the metric for what a run's method observes of each group or target.

The keys are the method's `observes`, and "sample": the held-out losses too, but on fewer sequences than the
log and the results use (see measure/held_out.py), so that the two are not taken for one curve. "target" and
"target_sample" are the same of targets that are not the groups.
"""
OF_TARGETS = ("target", "target_sample")
"""Keys of OBSERVED that stand for losses of targets that are not the groups."""
HELD_OUT = ("validation", "sample", *OF_TARGETS)
"""Keys of OBSERVED that stand for held-out losses."""


class Targets(NamedTuple):
    """What a run's log needs to know of its targets."""

    names: Sequence[str]
    """[K]."""
    objective: Objective
    unit: str = "nats"
    """`mixing.objective.unit`."""

    def shares(self) -> np.ndarray:
        """[K], share of each target in the objective."""
        return self.objective.shares(len(self.names))


def by_group(prefix: str, names: Sequence[str], values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """One metric for each group, `prefix/name`; groups without a finite value are left out."""
    return {f"{prefix}/{name}": float(v) for name, v in zip(names, values, strict=True) if np.isfinite(v)}


def update_metrics(
    names: Sequence[str],
    record: dict[str, Any],
    observes: str,
    learned: Mapping[str, np.ndarray],
    targets: Targets | None = None,
    over_targets: Collection[str] = (),
) -> dict[str, float]:
    """The metrics of an update: proportions, what was observed, what the method learned from it.

    Args:
        names: [G], the groups.
        record: of the ledger.
        observes: a key of OBSERVED.
        learned: vectors by the name of their metric, from the method's `metrics`.
        targets: None: the groups.
        over_targets: names of the metrics whose vectors are [K], not [G].
    """
    metrics = by_group("mixing/proportion", names, record["proportions"])
    metrics["mixing/round"] = record["round"]
    metrics["mixing/phase"] = PHASES.index(record["phase"])
    if (seen := _per_group(record)) is not None:
        observed = _observed_names(names, observes, targets)
        metrics.update(by_group(f"mixing/{OBSERVED[observes]}", observed, seen))
        if observes == "validation":
            metrics["mixing/validation_loss_mean"] = float(np.mean(seen))
        if targets is not None and observes in HELD_OUT:
            metrics[f"mixing/{'sampled_' * ('sample' in observes)}objective"] = targets.objective.value(seen)
    target_names = names if targets is None else targets.names
    if "probability" in record:
        metrics["aioli/probability"] = float(record["probability"])
    if "trust" in record:
        metrics["aioli/trust"] = float(record["trust"])
    for name in ("gain", "measured_gain", "speed", "gain_steps"):
        if name in record:
            gain, error = record[name]
            metrics |= {f"aioli/{name}": float(gain), f"aioli/{name}_stderr": float(error)}
    for name, values in learned.items():
        metrics.update(by_group(name, target_names if name in over_targets else names, values))
    return metrics


def update_line(
    names: Sequence[str],
    record: dict[str, Any],
    num_steps: int | None,
    observes: str,
    targets: Targets | None = None,
) -> str:
    """One console line: what comes next, and what it was decided from."""
    length = "to the end" if num_steps is None else f"for {num_steps} steps"
    shares = _pairs(names, record["proportions"], ".3f")
    line = f"mixing: step {record['step']}, round {record['round']}: {record['phase']} {length} on {shares}"
    if (seen := _per_group(record)) is not None:
        what = OBSERVED[observes].replace("_", " ")
        line += f" | {what} {_pairs(_observed_names(names, observes, targets), seen, '.4f')}, "
        if targets is None or observes not in HELD_OUT:
            line += f"mean {np.nanmean(seen):.4f}"
        else:
            line += f"objective {targets.objective.value(seen):.4f}"
    if "predicted_drop" in record:
        drops = np.array([record["predicted_drop"], record["measured_drop"]])
        predicted, measured = drops.mean(axis=1) if targets is None else drops @ targets.shares()
        line += f" | drop predicted {predicted:.4f}, measured {measured:.4f}"
    if "gain" in record:
        gain, error = record["gain"]
        line += f" | gain {gain:+.4f} \u00b1 {error:.4f}, probability {record['probability']:.3f}"
    if "trust" in record:
        line += f" | best {_pairs(names, record['best'], '.3f')}, followed {record['trust']:.2f}"
    if "speed" in record:
        speed, error = record["speed"]
        line += f" | speed {speed:.2f} \u00b1 {error:.2f}"
    if "gain_steps" in record:
        gain, error = record["gain_steps"]
        line += f" | gain {gain:+.0f} \u00b1 {error:.0f} steps"
    if "measured_gain" in record:
        gain, error = record["measured_gain"]
        line += f" | measured gain {gain:+.4f} \u00b1 {error:.4f}"
    return line + "".join(f" | {record[name]}" for name in ("stays", "reason", "note") if name in record)


def _observed_names(names: Sequence[str], observes: str, targets: Targets | None) -> Sequence[str]:
    """Names of the groups or targets whose losses an update observes."""
    return targets.names if targets is not None and observes in OF_TARGETS else names


def _per_group(record: dict[str, Any]) -> np.ndarray | None:
    """What was observed of each group [G]; None if nothing was, or more than a number per group."""
    observation = record["observation"]
    return np.asarray(observation) if observation is not None and np.ndim(observation) == 1 else None


def _pairs(names: Sequence[str], values: Sequence[float] | np.ndarray, form: str) -> str:
    shown = list(zip(names, values, strict=True))
    pairs = ", ".join(f"{name} {value:{form}}" for name, value in shown[:8])
    return f"{pairs}, and {len(shown) - 8} more" if len(shown) > 8 else pairs
