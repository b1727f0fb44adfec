"""What a run tells people: metrics by group, a console line at each update, and the result on disk.

A run's dump folder holds `mixture.json` (what was asked for), `ledger.jsonl` (what was decided, see
control/ledger_file.py), `losses.jsonl` (every evaluation) and, when it ends, `results.json` (what came of
it), `plan.json` (the mixture it found); if asked for, the losses of
single sequences are in `sequences.json`. Where a resume changed the groups or their stores at step N, the
mixture.json of before is kept as `mixture.before-step-N.json`.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from titan_aioli.files import write_json
from titan_aioli.methods.objective import Objective
from titan_aioli.methods.protocol import PHASES
from titan_aioli.runs.plan_file import write_plan
from titan_aioli.runs.run import keep_replaced

logger = logging.getLogger()

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


OF_TARGETS = ("target", "target_sample")
"""Keys of OBSERVED that stand for losses of targets that are not the groups."""
HELD_OUT = ("validation", "sample", *OF_TARGETS)
"""Keys of OBSERVED that stand for held-out losses."""


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
    for name in ("gain", "measured_gain"):
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
    if "measured_gain" in record:
        gain, error = record["measured_gain"]
        line += f" | measured gain {gain:+.4f} \u00b1 {error:.4f}"
    return line + "".join(f" | {record[name]}" for name in ("reason", "note") if name in record)


def _observed_names(names: Sequence[str], observes: str, targets: Targets | None) -> Sequence[str]:
    """Names of the groups or targets whose losses an update observes."""
    return targets.names if targets is not None and observes in OF_TARGETS else names


class RunLog:
    """What one run shows and leaves in its folder; one rank writes, all ranks may call."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        observes: str,
        is_writer: bool,
        progress: tqdm,
        targets: Targets | None = None,
    ):
        """Args:
        folder: the run's dump folder.
        names: [G], the groups.
        observes: what the method observes, a key of OBSERVED.
        is_writer: whether this rank writes files.
        progress: the bar over optimizer steps, maybe disabled.
        targets: where they are not the groups with equal weights.
        """
        self.folder = folder
        self.progress = progress
        self.targets = targets
        self._names = names
        self._observes = observes
        self.is_writer = is_writer
        self._losses = folder / "losses.jsonl"

    def begin(self, done: int, mixture: dict[str, Any]) -> None:
        """A run starts, or resumes after `done` steps: keep what was measured up to there."""
        self.progress.update(done)
        if not self.is_writer:
            return
        keep_replaced(self.folder, mixture, done)
        write_json(self.folder / "mixture.json", mixture)
        lines = self._losses.read_text().splitlines() if done > 0 and self._losses.is_file() else []
        self._losses.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= done))

    def evaluated(self, step: int, losses: np.ndarray, target_losses: np.ndarray | None = None) -> None:
        """An evaluation on the held-out sequences, [G], and [K] where the targets are not the groups."""
        line = {"step": step, "validation_loss": losses.tolist()}
        if target_losses is not None:
            line["target_loss"] = target_losses.tolist()
        if self.is_writer:
            with open(self._losses, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def show_update(self, record: dict[str, Any], num_steps: int | None, is_shown: bool) -> None:
        """An update of the mixture, beside the progress bar and, if shown, as a line on the console.

        Args:
            record: of the ledger.
            num_steps: of the phase that begins; None: to the end of the run.
            is_shown: whether to print the line: phases of one step have none at every step.
        """
        self.progress.set_postfix_str(f"round {record['round']}, {record['phase']}")
        if is_shown and self.is_writer:
            logger.info(update_line(self._names, record, num_steps, self._observes, self.targets))

    def update_metrics(
        self,
        record: dict[str, Any],
        learned: Mapping[str, np.ndarray],
        over_targets: Collection[str] = (),
    ) -> dict[str, float]:
        """The metrics of an update; see the function of this name."""
        return update_metrics(self._names, record, self._observes, learned, self.targets, over_targets)

    def evaluation_metrics(self, losses: np.ndarray, target_losses: np.ndarray) -> dict[str, float]:
        """The metrics of an evaluation on all held-out sequences, of groups [G] and targets [K]."""
        metrics = by_group("mixing/validation_loss", self._names, losses)
        if self.targets is not None:
            metrics |= by_group("mixing/target_loss", self.targets.names, target_losses)
            metrics["mixing/objective"] = self.targets.objective.value(target_losses)
        return metrics

    def measured_sequences(self, names: Sequence[str], sums: Sequence[np.ndarray]) -> None:
        """`sequences.json`: by target the loss sums (nats) and tokens [n, 2] of its validation sequences."""
        if self.is_writer:
            content = {
                name: {"loss_sum": rows[:, 0], "num_tokens": rows[:, 1]}
                for name, rows in zip(names, sums, strict=True)
            }
            write_json(self.folder / "sequences.json", content)

    def finished(self, content: dict[str, Any], plan: dict[str, Any]) -> None:
        """The run is over: `results.json`, and `plan.json` for other runs to train on."""
        self.progress.close()
        if not self.is_writer:
            return
        write_json(self.folder / "results.json", content)
        write_plan(self.folder / "plan.json", **plan)
        if "out_of_data" in content:
            logger.warning(f"mixing: {content['out_of_data']}")
        found = []
        if "objective" in content:
            found.append(f"objective {content['objective']:.4f} ({content['unit']})")
        if "validation_loss_mean" in content:
            found.append(f"mean held-out loss {content['validation_loss_mean']:.4f}")
        logger.info(f"mixing: finished, {', '.join([*found, f'see {self.folder}'])}")


def result(
    method: str,
    names: Sequence[str],
    step: int,
    validation: np.ndarray | None,
    test: np.ndarray | None,
    epochs: np.ndarray,
    num_tokens: int,
) -> dict[str, Any]:
    """What a finished run reports; losses in nats per token, in the order of the groups.

    `perplexity` is exp(mean over the groups of the test loss), the metric of the Aioli paper.
    """
    content = {
        "method": method,
        "groups": list(names),
        "step": step,
        "tokens": num_tokens,
        "epochs": epochs,
    }
    if validation is not None:
        content.update(validation_loss=validation, validation_loss_mean=float(np.mean(validation)))
    if test is not None:
        mean = float(np.mean(test))
        content.update(test_loss=test, test_loss_mean=mean, perplexity=float(np.exp(mean)))
    return content


def target_result(targets: Targets, validation: np.ndarray, test: np.ndarray | None) -> dict[str, Any]:
    """What a finished run reports of its targets: losses [K] in nats per token, the objective in its unit.

    Args:
        targets: of the run.
        validation, test: [K], losses of the targets.
    """
    content = {
        "targets": list(targets.names),
        "target_shares": targets.shares(),
        "unit": targets.unit,
        "target_validation_loss": validation,
        "objective": targets.objective.value(validation),
    }
    if test is not None:
        content.update(target_test_loss=test, test_objective=targets.objective.value(test))
    return content


def _per_group(record: dict[str, Any]) -> np.ndarray | None:
    """What was observed of each group [G]; None if nothing was, or more than a number per group."""
    observation = record["observation"]
    return np.asarray(observation) if observation is not None and np.ndim(observation) == 1 else None


def _pairs(names: Sequence[str], values: Sequence[float] | np.ndarray, form: str) -> str:
    shown = list(zip(names, values, strict=True))
    pairs = ", ".join(f"{name} {value:{form}}" for name, value in shown[:8])
    return f"{pairs}, and {len(shown) - 8} more" if len(shown) > 8 else pairs
