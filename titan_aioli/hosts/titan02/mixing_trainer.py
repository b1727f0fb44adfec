"""torchtitan's Trainer with a mixture that changes while it trains: the session's calls in its loop."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.dataloader import DataloaderExhaustedError
from torchtitan.tools.logging import logger
from torchtitan.train import Trainer

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.build import build_session
from titan_aioli.hosts.stopping import Stopping
from titan_aioli.hosts.titan02.host import TitanHost
from titan_aioli.hosts.titan02.overruled import overruled
from titan_aioli.hosts.titan02.spec import MixingMetrics, open_mixture, register_mixing_spec
from titan_aioli.measure.losses import RowLoss, with_row_numbers
from titan_aioli.session import OutOfData


class MixingTrainer(Trainer):
    """torchtitan's Trainer; `session` decides what each step trains on.

    `stopped_by` is the number of the signal that ended training before its last step; 0 otherwise.
    """

    def __init__(self, job_config: Any):
        register_mixing_spec(job_config.model.name)
        super().__init__(job_config)
        assert isinstance(self.dataloader, MixtureLoader) and isinstance(self.loss_fn, RowLoss)
        assert isinstance(self.metrics_processor, MixingMetrics)
        self.row_loss: RowLoss = self.loss_fn
        self.loader: MixtureLoader = self.dataloader
        self.session = build_session(
            job_config.mixing,
            open_mixture(job_config),
            self.build_host(),
            self.loader,
            Path(job_config.job.dump_folder),
            num_steps=job_config.training.steps,
            log_freq=job_config.metrics.log_freq,
            log_metrics=self.metrics_processor.logger.log,
            is_writer=dist.get_rank() == 0,
        )
        self.stopping, self.stopped_by = Stopping(), 0
        self._has_begun = False
        self.checkpointer.states["mixture"] = self.session
        self.metrics_processor.mixture_metrics = self.session.metrics

    def build_host(self) -> TitanHost:
        """What measuring sees of this trainer."""
        return TitanHost(self, self.row_loss, self.loader)

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
        """torchtitan's, with the losses of the rows recorded and given to the session."""
        self.row_loss.expect(len(labels), self.device)
        if self.parallel_dims.pp_enabled:
            # torchtitan 0.2.2 divides only the reported loss by the tokens here, not the gradients.
            self.row_loss.scale = 1.0 / global_valid_tokens
            global_valid_tokens = 1.0
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        self.session.see(input_dict["input"], labels, input_dict["group"])
        return loss

    def train_step(self, data_iterator: Any) -> None:
        """One optimizer step on the current phase's mixture; then whatever a phase's end asks for."""
        if not self._has_begun:
            self._has_begun = True
            self._warn_of_overruled()
        try:
            self.session.before_step(self.step - 1)  # torchtitan has counted the step that comes now
        except OutOfData:
            self.step -= 1
            self.session.finish()
            self.checkpointer.save(self.step, last_step=True)
            raise DataloaderExhaustedError from None
        super().train_step(data_iterator)
        self.session.after_step()
        if self.step == self.job_config.training.steps:
            self.session.finish()
            return
        self.stopped_by = self.stopping.after_step(self.step)
        if self.stopped_by:
            self.checkpointer.interval = 1  # so that torchtitan saves this step, whole, as any other

    def _warn_of_overruled(self) -> None:
        """Settings that were changed for this resume and have no effect, once, on rank 0."""
        if self.step > 1 and dist.get_rank() == 0:
            for line in overruled(self.job_config, self.optimizers, self.lr_schedulers):
                logger.warning(line)

    def should_continue_training(self) -> bool:
        """torchtitan's, unless a signal says otherwise."""
        return not self.stopped_by and super().should_continue_training()

    def close(self) -> None:
        """torchtitan's; a checkpoint that is being written in the background is waited for."""
        self.stopping.close()
        super().close()
