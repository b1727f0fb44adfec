"""The mixture of one run, step by step: the few calls that a host makes, and what a checkpoint keeps of it.

A host's training loop, with the session's calls in it:

    while step < num_steps:
        session.before_step(step)            # which mixture now? OutOfData: training ends here
        for micro_batch in the step:
            ... forward and backward ...     # with host.row_loss as the loss function
            session.see(inputs, labels, group)
        ... optimizer step ...
        session.after_step()                 # where a phase ends: measure, update, write the ledger
        ... session.metrics() where the step is logged, session.state_dict() where it is saved ...
    session.finish()

Per step it adds a few small operations on the device and no host sync. Where a phase ends there is one
evaluation or one all-reduce, a numpy update and a line in the ledger. Every data-parallel rank has a session
and makes the same calls.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from titan_aioli.control.controller import MixtureController
from titan_aioli.control.state import pack, unpack
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import ResumeRefused
from titan_aioli.measure import observer
from titan_aioli.measure.agreement import check_ranks_agree
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.losses import GroupStats
from titan_aioli.measure.observers import OBSERVERS
from titan_aioli.methods import UNTIL_END
from titan_aioli.methods.protocol import PHASES, over_targets
from titan_aioli.runs.log import RunLog
from titan_aioli.runs.results import result, target_result
from titan_aioli.runs.updates import by_group

logger = logging.getLogger(__name__)


LogMetrics = Callable[[dict[str, float], int], None]
"""A host's writer of metrics, called with ({name: value}, step)."""


class OutOfData(Exception):
    """The next step would read a group more often than it may be: training ends before it.

    The message names the groups, how often they may be read, and the step.
    """


class Options(NamedTuple):
    """What a session does besides following its controller; see the `[mixing]` keys of the same names."""

    log_freq: int = 1
    """Steps between two logged steps of the host; updates that come more often are shown only at those."""
    evaluation_freq: int = 0
    evaluation_at_start: bool = False
    max_skipped_updates: int = 10
    sequence_losses: bool = False
    stop_when_used_up: bool = False
    """Whether training ends where a group is used up, or its share goes to the other groups."""
    max_epochs: Mapping[str, float] = {}
    """By group, how often it may be read before a warning."""
    observing: observer.Settings = observer.Settings()


class MixingSession:
    """Joins controller, loader, observer and log of one run."""

    def __init__(
        self,
        host: Host,
        controller: MixtureController,
        loader: MixtureLoader,
        held_out: HeldOut,
        log: RunLog,
        description: Mapping[str, Any],
        options: Options,
        log_metrics: LogMetrics,
    ):
        """Args:
        host: the trainer.
        controller, loader: of this run, sharing one ledger.
        held_out: the held-out sets.
        log: what the run shows and leaves.
        description: content of mixture.json.
        options: what else the config says.
        log_metrics: the host's writer of metrics.
        """
        self.controller, self.loader, self.held_out = controller, loader, held_out
        self.group_names = controller.group_names
        self.log_stats = GroupStats(len(self.group_names), host.device, host.is_reporter)
        self.observer = OBSERVERS[controller.method.observes](host, held_out, loader, options.observing)
        self._host, self._log, self._description, self._options = host, log, description, options
        self._log_metrics = log_metrics
        self._repetition = RepetitionWarner(options.max_epochs)
        self._has_begun = False
        self._out_of_data: OutOfData | None = None

    def before_step(self, done: int) -> None:
        """Bring the mixture to the next step: begin or resume, finish phases, replace used-up groups.

        Args:
            done: optimizer steps of the run up to now.
        Raises:
            OutOfData: a group is used up and training must end; nothing was drawn for the step.
            ResumeRefused: the parts of the checkpoint do not stand at this step.
        """
        if not self._has_begun:
            self._begin(done)
        self._finish_phases(shown_at=done + 1)
        self._replace_used_up()
        self.observer.begin_step()

    def see(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, group_B: torch.Tensor) -> None:
        """A micro-batch was trained on; `host.row_loss` still holds its rows."""
        row_loss = self._host.row_loss
        batch = observer.MicroBatch(inputs_BS, labels_BS, group_B, row_loss.rows())
        if row_loss.recording:
            self.log_stats.add(batch.rows.sums_2B, group_B)
        self.observer.see(batch)

    def after_step(self) -> None:
        """The optimizer has stepped: count, update where a phase ends, evaluate where the config says so."""
        self.controller.count_step()
        self._log.progress.update()
        self._finish_phases(shown_at=self.controller.step)
        step, every = self.controller.step, self._options.evaluation_freq
        if every and step % every == 0:
            self._log_held_out_losses()

    def metrics(self) -> dict[str, float]:
        """What every logged step shows of the mixture. Collective."""
        names, controller = self.group_names, self.controller
        metrics = by_group("mixing/proportion", names, controller.proportions)
        metrics["mixing/round"] = controller.round
        metrics["mixing/phase"] = PHASES.index(controller.phase.name)
        if self._log.is_writer:
            self._repetition.see(names, self.epochs)
        metrics.update(by_group("mixing/epochs", names, self.epochs))
        if self._host.row_loss.recording:
            metrics.update(by_group("mixing/train_loss", names, self.log_stats.means()))
            self.log_stats.clear()
        return metrics

    def finish(self) -> None:
        """The run is over: evaluate all held-out sets and write results.json and plan.json. Collective."""
        step, method, names = self.controller.step, self.controller.identity.method, self.group_names
        validation, test = self.held_out.validation(step), self.held_out.test(step)
        tokens = self.loader.position.first_row * self.loader.seq_len
        found = self.controller.method.result(self.controller.state)
        content = result(method, names, step, validation, test, self.epochs, tokens)
        if (targets := self._log.targets) is not None:
            losses = self.held_out.targets(step), self.held_out.target_test(step)
            content |= target_result(targets, *losses)
        if self._out_of_data is not None:
            content["out_of_data"] = str(self._out_of_data)
        if self._options.sequence_losses:
            of_targets = self.held_out.target_sequences()
            self._log.measured_sequences(self.controller.identity.target_names, of_targets)
        self._log.finished(content, {"law": method, "groups": names, "proportions": found})

    def state_dict(self) -> dict[str, Any]:
        """Controller and observer, equal on all ranks; the loader's state is its own. Collective."""
        return {**self.controller.state_dict(), "observer": pack(self.observer.state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the state was taken; with other groups or another method, restart the method.

        Raises: ResumeRefused: the state does not fit this run.
        """
        if self.controller.load_state_dict(state_dict):
            self.observer.restore(unpack(state_dict["observer"]))

    @property
    def epochs(self) -> np.ndarray:
        """[G], how often each group's training sequences were read."""
        return self.loader.position.drawn / self.loader.schedule.num_sequences

    def _begin(self, done: int) -> None:
        """Write the ledger's first entry, unless resumed; all parts must stand at the same step."""
        check_ranks_agree(self.controller, self._host.device)
        self._has_begun = True
        begins_ledger = len(self.controller.ledger) == 0
        self._log.begin(done, dict(self._description), begins_section=begins_ledger)
        if begins_ledger:
            if self.loader.position.first_row == 0:
                self.loader.start_at(done)
            step, first_row, carry, drawn = self.loader.position
            self._show(self.controller.begin(step, first_row, drawn, carry), {}, shown_at=done + 1)
        if not self.controller.step == self.loader.position.step == done:
            raise ResumeRefused(
                f"the checkpoint's parts stand at different steps: training {done}, mixture "
                f"{self.controller.step}, data {self.loader.position.step}: load or exclude mixture and "
                "dataloader together"
            )
        phase_end = max(self.controller.phase_end, done)  # a resume may have made the phase shorter
        self.loader.start_phase(phase_end)
        if self._options.evaluation_at_start and done == 0:
            self._log_held_out_losses()

    def _finish_phases(self, shown_at: int) -> None:
        controller = self.controller
        while controller.phase_is_over:
            record = controller.finish_phase(self.observer.measure(controller.step))
            check_ranks_agree(controller, self._host.device)
            self._show(record, controller.method.metrics(controller.state), shown_at)
            controller.check_skipped(self._options.max_skipped_updates)
            self.loader.start_phase(controller.phase_end)

    def _replace_used_up(self) -> None:
        """Where the next step would draw more of a group than it may: draw from the others, or end."""
        while len(groups := self.loader.used_up()):
            num_used_up = self.controller.used_up.sum() + len(groups)
            if self._options.stop_when_used_up or num_used_up == len(self.group_names):
                self._out_of_data = OutOfData(self._describe_used_up(groups))
                self.controller.end(str(self._out_of_data))
                raise self._out_of_data
            record = self.controller.redistribute(groups)
            check_ranks_agree(self.controller, self._host.device)
            self._show(record, {}, shown_at=self.controller.step + 1)
            self.loader.start_phase(self.controller.phase_end)

    def _describe_used_up(self, groups: np.ndarray) -> str:
        """Which groups end the run, and why, in one line."""
        named = [
            f"group {name} has been read {self.epochs[group]:.4g} times and may be read "
            f"{self._options.max_epochs[name]:g} times (max_epochs)"
            for group, name in enumerate(self.group_names)
            if group in groups or self.controller.used_up[group]
        ]
        return f"out of data after step {self.controller.step}: {'; '.join(named)}"

    def _show(self, record: dict[str, Any], learned: Mapping[str, np.ndarray], shown_at: int) -> None:
        """An update on the console and in the metrics; of updates at every step only those of logged steps.

        Args:
            record: of the ledger.
            learned: vectors over the groups (or targets) by metric name.
            shown_at: the optimizer step, counted from 1, that it is shown with.
        """
        num_steps, log_freq = self.controller.phase.num_steps, self._options.log_freq
        is_brief = record["phase"] == "train" and num_steps < log_freq
        is_shown = not is_brief or shown_at == 1 or shown_at % log_freq == 0
        self._log.show_update(record, None if num_steps == UNTIL_END else num_steps, is_shown)
        if is_shown:
            names = over_targets(self.controller.method)
            self._log_metrics(self._log.update_metrics(record, learned, names), self.controller.step)

    def _log_held_out_losses(self) -> None:
        step = self.controller.step
        if (losses := self.held_out.validation(step)) is not None:
            self._log_metrics(self._log.evaluation_metrics(losses, self.held_out.targets(step)), step)


class RepetitionWarner:
    """Warns once per group when it has been read more often than its max_epochs."""

    def __init__(self, max_epochs: Mapping[str, float]):
        self._limits = dict(max_epochs)

    def see(self, names: Sequence[str], epochs: np.ndarray) -> None:
        """How often each group has been read by now, [G]."""
        for name, done in zip(names, epochs, strict=True):
            if done > self._limits.get(name, np.inf):
                most = self._limits.pop(name)
                logger.warning(f"mixing: group {name} is now read more than {most} times (max_epochs)")
