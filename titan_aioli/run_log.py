"""What a run tells people: metrics by group, a console line at each update, and the result on disk.

A run's dump folder holds `mixture.json` (what was asked for), `ledger.jsonl` (what was decided, see
data/ledger.py), `losses.jsonl` (every evaluation) and, when it ends, `results.json` (what came of it).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PHASES = ("measure", "learn_params", "train", "prior")
"""Phases by their number in the metric `mixing/phase`."""


def by_group(prefix: str, names: Sequence[str], values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """One metric for each group, `prefix/name`; groups without a finite value are left out."""
    return {f"{prefix}/{name}": float(v) for name, v in zip(names, values, strict=True) if np.isfinite(v)}


def update_metrics(names: Sequence[str], record: dict[str, Any]) -> dict[str, float]:
    """The metrics of a ledger record: proportions, held-out losses, predicted and measured drops."""
    metrics = by_group("mixing/proportion", names, record["proportions"])
    metrics["mixing/round"] = record["round"]
    metrics["mixing/phase"] = PHASES.index(record["phase"])
    observation = record["observation"]
    if observation is not None and np.ndim(observation) == 1:
        metrics.update(by_group("mixing/validation_loss", names, observation))
        metrics["mixing/validation_loss_mean"] = float(np.mean(observation))
    for name in ("predicted_drop", "measured_drop"):
        if name in record:
            metrics.update(by_group(f"mixing/{name}", names, record[name]))
    return metrics


def update_line(names: Sequence[str], record: dict[str, Any], num_steps: int | None) -> str:
    """One console line: what comes next, and what it was decided from."""
    length = "to the end" if num_steps is None else f"for {num_steps} steps"
    shares = _pairs(names, record["proportions"], ".3f")
    line = f"mixing: step {record['step']}, round {record['round']}: {record['phase']} {length} on {shares}"
    observation = record["observation"]
    if observation is not None and np.ndim(observation) == 1:
        line += f" | held-out loss {_pairs(names, observation, '.4f')}, mean {np.mean(observation):.4f}"
    if "predicted_drop" in record:
        predicted, measured = np.mean(record["predicted_drop"]), np.mean(record["measured_drop"])
        line += f" | drop predicted {predicted:.4f}, measured {measured:.4f}"
    return line + (f" | {record['note']}" if "note" in record else "")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content, indent=1, default=_to_plain) + "\n", encoding="utf-8")
    os.replace(partial, path)


class LossLog:
    """`losses.jsonl`: the held-out loss of every group at each evaluation, one object a line."""

    def __init__(self, path: Path, is_writer: bool):
        self._path = path
        self._is_writer = is_writer

    def begin(self, step: int) -> None:
        """Keep what was measured up to `step`, where a run starts or goes on."""
        if not self._is_writer:
            return
        lines = self._path.read_text().splitlines() if step > 0 and self._path.is_file() else []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))

    def append(self, step: int, losses: np.ndarray) -> None:
        if self._is_writer:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "validation_loss": losses.tolist()}) + "\n")


def result(
    method: str,
    names: Sequence[str],
    step: int,
    validation: np.ndarray,
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
        "validation_loss": validation,
        "validation_loss_mean": float(np.mean(validation)),
    }
    if test is not None:
        mean = float(np.mean(test))
        content.update(test_loss=test, test_loss_mean=mean, perplexity=float(np.exp(mean)))
    return content


def _pairs(names: Sequence[str], values: Sequence[float] | np.ndarray, form: str) -> str:
    shown = list(zip(names, values, strict=True))
    pairs = ", ".join(f"{name} {value:{form}}" for name, value in shown[:8])
    return f"{pairs}, and {len(shown) - 8} more" if len(shown) > 8 else pairs


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
