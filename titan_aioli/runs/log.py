"""What a run shows while it trains, and leaves in its folder.

A run's dump folder holds `mixture.json` (what was asked for), `ledger.jsonl` (what was decided, see
control/ledger_file.py), `losses.jsonl` (every evaluation) and, when it ends, `results.json` (what came of
it), `plan.json` (the mixture it found); if asked for, the losses of single sequences are in `sequences.json`.
Where a resume changed groups, stores, limits or method at step N, the mixture.json of before is kept as
`mixture.before-step-N.json`.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from titan_aioli.files import naming, replacing, write_json
from titan_aioli.runs.plan_file import write_plan
from titan_aioli.runs.read import keep_replaced
from titan_aioli.runs.updates import Targets, by_group, update_line, update_metrics

logger = logging.getLogger()

OF_A_FINISHED_RUN = ("results.json", "plan.json", "sequences.json")
"""Files that say that a run is over; a resume deletes them."""


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
        observes: what the method observes, a key of OBSERVED in updates.py.
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
        self._has_evaluated = False

    def begin(self, done: int, mixture: dict[str, Any], begins_section: bool = False) -> None:
        """A run starts, or resumes after `done` steps: keep what was measured up to there.

        Args:
            done: optimizer steps.
            mixture: content of mixture.json.
            begins_section: whether the ledger starts again, because this resume changed what the run is of.
        """
        self.progress.update(done)
        if not self.is_writer:
            return
        keep_replaced(self.folder, done, begins_section)
        write_json(self.folder / "mixture.json", mixture)
        for name in OF_A_FINISHED_RUN:
            (self.folder / name).unlink(missing_ok=True)
        self._cut_losses(done if done > 0 else -1)

    def _cut_losses(self, last_step: int) -> None:
        """Keep the lines of losses.jsonl up to a step."""
        kept = list(self._evaluations_up_to(last_step)) if self._losses.is_file() else []
        with replacing(self._losses) as file:
            file.writelines(kept)

    def _evaluations_up_to(self, done: int) -> Iterator[bytes]:
        """The lines of losses.jsonl up to a step; a killed run, or a full disk, may leave half a line."""
        with open(self._losses, "rb") as file:
            for line in file:
                try:
                    is_kept = line.endswith(b"\n") and json.loads(line)["step"] <= done
                except (ValueError, KeyError, TypeError):
                    is_kept = False
                if is_kept:
                    yield line

    def evaluated(self, step: int, losses: np.ndarray, target_losses: np.ndarray | None = None) -> None:
        """An evaluation on the held-out sequences, [G], and [K] where the targets are not the groups."""
        if not self.is_writer:
            return
        if not self._has_evaluated:  # what a run resumes from, it may have measured before
            self._has_evaluated = True
            self._cut_losses(step - 1)
        line = {"step": step, "validation_loss": losses.tolist()}
        if target_losses is not None:
            line["target_loss"] = target_losses.tolist()
        with naming(self._losses), open(self._losses, "a", encoding="utf-8") as file:
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
