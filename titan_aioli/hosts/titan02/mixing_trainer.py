"""torchtitan 0.2.2's Trainer with a mixture that changes while it trains."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torchtitan.train import Trainer

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.titan.overruled import overruled
from titan_aioli.hosts.titan.training import MixtureTraining
from titan_aioli.hosts.titan02.host import Titan02Host
from titan_aioli.hosts.titan02.spec import open_job_mixture, register_mixing_spec
from titan_aioli.measure.losses import RowLoss, with_row_numbers


class MixingTrainer(MixtureTraining, Trainer):
    """torchtitan's Trainer; `session` decides what each step trains on."""

    def __init__(self, job_config: Any):
        register_mixing_spec(job_config.model.name)
        super().__init__(job_config)
        assert isinstance(self.dataloader, MixtureLoader) and isinstance(self.loss_fn, RowLoss)
        self.row_loss, self.loader = self.loss_fn, self.dataloader
        self.folder = Path(job_config.job.dump_folder)
        self.begin_mixing(job_config, open_job_mixture(job_config))

    def build_host(self) -> Titan02Host:
        """What measuring sees of this trainer."""
        return Titan02Host(self, self.row_loss, self.loader)

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

    def wait_for_checkpoint(self) -> None:
        """Return when the checkpoint that is being written in the background, if any, is whole."""
        self.checkpointer._async_wait()

    def overruled(self) -> Iterable[str]:
        """A line for each setting of the config that a loaded checkpoint overrules."""
        names = ("lr", "eps", "weight_decay", "beta1", "beta2")
        asked = {name: getattr(self.job_config.optimizer, name) for name in names}
        return overruled(asked, self.optimizers, self.lr_schedulers)
