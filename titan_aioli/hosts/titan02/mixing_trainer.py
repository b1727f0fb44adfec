"""torchtitan's training loop with a mixture that changes while it trains.

    torchrun --nproc_per_node=2 -m titan_aioli.train --job.config_file train_configs/debug_aioli.toml

The only module that knows both the data side and the method side. `MixingTrainer` overrides five methods of
torchtitan's trainer; per step it adds a few small operations on the device and no wait. Where a phase ends
there is one evaluation or one all-reduce, a numpy update and a line in the ledger.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torchtitan.components.dataloader import DataloaderExhaustedError
from torchtitan.train import Trainer
from tqdm import tqdm

from titan_aioli.config.build import build_controller, build_mixture, describe
from titan_aioli.config.repetition import RepetitionWarner
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import ResumeRefused
from titan_aioli.hosts.titan02.spec import MixingMetrics, register_mixing_spec, vocab_size
from titan_aioli.measure.agreement import check_ranks_agree
from titan_aioli.measure.evaluate import GroupEvaluator
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.losses import GroupStats, RowLoss, with_row_numbers
from titan_aioli.measure.observers import MixtureState, build_observer
from titan_aioli.methods import UNTIL_END
from titan_aioli.runs import log as run_log


class MixingTrainer(Trainer):
    """torchtitan's Trainer, asking a controller what to train on next."""

    def __init__(self, job_config: Any):
        register_mixing_spec(job_config.model.name)
        super().__init__(job_config)
        assert isinstance(self.dataloader, MixtureLoader) and isinstance(self.loss_fn, RowLoss)
        self.loader: MixtureLoader = self.dataloader
        self.row_loss: RowLoss = self.loss_fn
        self.mixing = mixing = job_config.mixing
        mixture = build_mixture(mixing, job_config.training.seq_len, vocab_size(job_config))
        self.group_names = mixture.group_names
        self.folder = Path(job_config.job.dump_folder)
        self.row_loss.recording = mixing.train_losses

        pp_mesh_reports = self.pp_has_last_stage if self.parallel_dims.pp_enabled else True
        tp_mesh = self.parallel_dims.get_optional_mesh("tp")
        self.is_reporter = pp_mesh_reports and (tp_mesh is None or tp_mesh.get_local_rank() == 0)
        """Whether this rank's loss sums count: tensor-parallel ranks hold copies of each other's."""
        self.log_stats = GroupStats(len(self.group_names), self.device, self.is_reporter)

        is_writer, batch_size = dist.get_rank() == 0, self.loader.schedule.batch_size
        self.controller = build_controller(
            mixing, mixture, self.loader.ledger, batch_size, self.folder, is_writer
        )
        self.held_out = HeldOut(self, mixture)
        self._has_begun = False
        self.repetition = RepetitionWarner(mixing)
        self.observer = build_observer(self)
        self.checkpointer.states["mixture"] = MixtureState(self.controller, self.observer)
        progress = tqdm(
            total=job_config.training.steps,
            desc=mixing.method,
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            disable=not (mixing.progress and is_writer),
        )
        observes = "sample" if self.held_out.is_sampled else mixture.method.observes
        self.log = run_log.RunLog(self.folder, self.group_names, observes, is_writer, progress)
        assert isinstance(self.metrics_processor, MixingMetrics)
        self.metrics_processor.mixture_metrics = self._step_metrics

    def post_dataloading_process(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> Any:
        """torchtitan's, without the group ids and with row numbers as one more column of the labels."""
        model_inputs = {name: value for name, value in input_dict.items() if name != "group"}
        inputs, labels, extra_inputs, extra_kwargs = super().post_dataloading_process(model_inputs, labels)
        if self.row_loss.recording:
            labels = with_row_numbers(labels)
        return inputs, labels, extra_inputs, extra_kwargs

    def forward_backward_step(
        self, *, input_dict: Any, labels: Any, global_valid_tokens: Any
    ) -> torch.Tensor:
        """torchtitan's, with the rows' losses added to the sums of their groups."""
        self.row_loss.expect(len(labels), self.device)
        if self.parallel_dims.pp_enabled:
            # torchtitan 0.2.2 divides only the reported loss by the tokens here, not the gradients.
            self.row_loss.scale = 1.0 / global_valid_tokens
            global_valid_tokens = 1.0
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        if self.row_loss.recording:
            self.row_loss.add_to(self.log_stats.sums_2G, input_dict["group"])
        self.observer.see(input_dict, labels)
        return loss

    def train_step(self, data_iterator: Any) -> None:
        """One optimizer step on the current phase's mixture; then whatever a phase's end asks for."""
        if not self._has_begun:
            self._begin()
        self._finish_phases()
        self._replace_used_up()
        self.observer.begin_step()
        super().train_step(data_iterator)
        self.controller.count_step()
        self.log.progress.update()
        self._finish_phases()
        if self.mixing.evaluation.freq and self.step % self.mixing.evaluation.freq == 0:
            self._log_held_out_losses()
        if self.step == self.job_config.training.steps:
            self._finish_run()

    def evaluate(self, evaluator: GroupEvaluator) -> np.ndarray:
        """[G], mean nats per token now, on an evaluator's sequences."""
        return evaluator.evaluate(self)

    def _log_held_out_losses(self) -> None:
        losses = self.held_out.validation()
        metrics = run_log.by_group("mixing/validation_loss", self.group_names, losses)
        self.metrics_processor.logger.log(metrics, self.controller.step)

    def _begin(self) -> None:
        """Before the first step, fresh or resumed: the ledger's first entry, and all at the same step."""
        self._has_begun = True
        done = self.step - 1
        self.log.begin(done, describe(self.mixing, self.loader, self.job_config.training.steps))
        if len(self.controller.ledger) == 0:
            if self.loader.position.first_row == 0:
                self.loader.start_at(done)
            step, first_row, _, drawn = self.loader.position
            self._show(self.controller.begin(step, first_row, drawn))
        if not self.controller.step == self.loader.position.step == done:
            raise ResumeRefused(
                f"the checkpoint's parts stand at different steps: training {done}, mixture "
                f"{self.controller.step}, data {self.loader.position.step}: load or exclude mixture and "
                "dataloader together"
            )
        self.loader.start_phase(self.controller.phase_end)
        if self.mixing.evaluation.at_start and done == 0:
            self._log_held_out_losses()

    def _finish_phases(self) -> None:
        while self.controller.phase_is_over:
            record = self.controller.finish_phase(self.observer.measure())
            check_ranks_agree(self.controller, self.device)
            learned = getattr(self.controller.method, "metrics", lambda state: {})(self.controller.state)
            self._show(record, learned)
            self.controller.check_skipped(self.mixing.max_skipped_updates)
            self.loader.start_phase(self.controller.phase_end)

    def _replace_used_up(self) -> None:
        """Before a step that would draw more of a group than it may: draw from the others, or end.

        Raises: DataloaderExhaustedError: training ends, as torchtitan's does when its data does.
        """
        while len(groups := self.loader.used_up()):
            num_used_up = self.controller.used_up.sum() + len(groups)
            if self.mixing.when_used_up == "stop" or num_used_up == len(self.group_names):
                self.step -= 1  # torchtitan has counted the step that cannot be done
                self._finish_run()
                self.checkpointer.save(self.step, last_step=True)
                raise DataloaderExhaustedError
            record = self.controller.redistribute(groups)
            check_ranks_agree(self.controller, self.device)
            self._show(record)
            self.loader.start_phase(self.controller.phase_end)

    def _show(self, record: dict[str, Any], learned: dict[str, np.ndarray] | None = None) -> None:
        """An update, on the console and in the metrics; of those at every step, where steps are shown."""
        num_steps = self.controller.phase.num_steps
        is_brief = record["phase"] == "train" and num_steps < self.job_config.metrics.log_freq
        is_shown = not is_brief or self.metrics_processor.should_log(self.step)
        self.log.show_update(record, None if num_steps == UNTIL_END else num_steps, is_shown)
        if is_shown:
            metrics = self.log.update_metrics(record, learned or {})
            self.metrics_processor.logger.log(metrics, self.controller.step)

    def _step_metrics(self) -> dict[str, float]:
        """What every logged step shows of the mixture; called on all ranks."""
        names, controller = self.group_names, self.controller
        metrics = run_log.by_group("mixing/proportion", names, controller.proportions)
        metrics["mixing/round"] = controller.round
        metrics["mixing/phase"] = run_log.PHASES.index(controller.phase.name)
        epochs = self._epochs()
        self.repetition.see(names, epochs)
        metrics.update(run_log.by_group("mixing/epochs", names, epochs))
        if self.row_loss.recording:
            metrics.update(run_log.by_group("mixing/train_loss", names, self.log_stats.means()))
            self.log_stats.clear()
        return metrics

    def _finish_run(self) -> None:
        validation, test = self.held_out.validation(), self.held_out.test()
        tokens = self.loader.position.first_row * self.job_config.training.seq_len
        method, names, state = self.mixing.method, self.group_names, self.controller.state
        found = self.controller.method.report(state).get("average", state.proportions)
        content = run_log.result(method, names, self.step, validation, test, self._epochs(), tokens)
        self.log.finished(content, {"law": method, "groups": names, "proportions": found})

    def _epochs(self) -> np.ndarray:
        """[G], how often each group's training sequences were read through."""
        return self.loader.position.drawn / self.loader.schedule.num_sequences
