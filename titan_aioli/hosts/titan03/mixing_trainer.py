"""torchtitan 0.3's Trainer with a mixture that changes while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torchtitan.trainer import Trainer

from titan_aioli.config import Mixing
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import UserError
from titan_aioli.hosts.titan.overruled import overruled
from titan_aioli.hosts.titan.training import MixtureTraining
from titan_aioli.hosts.titan03.components import open_job_mixture
from titan_aioli.hosts.titan03.host import Titan03Host
from titan_aioli.hosts.titan03.loss import row_loss_of
from titan_aioli.hosts.titan03.positions import positions_of
from titan_aioli.measure.losses import with_row_numbers


class MixingTrainer(MixtureTraining, Trainer):
    """torchtitan's Trainer; `session` decides what each step trains on."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """torchtitan's config with a `mixing` section."""

        mixing: Mixing = field(default_factory=Mixing)

    def __init__(self, config: Config):
        super().__init__(config)
        assert isinstance(self.dataloader, MixtureLoader)
        self.row_loss, self.loader = row_loss_of(self.loss_fn), self.dataloader
        self.folder = Path(config.dump_folder)
        self._next_row = 0
        self._end_of_document = self._find_end_of_document()
        self.begin_mixing(config, open_job_mixture(config))

    def build_host(self) -> Titan03Host:
        """What measuring sees of this trainer."""
        return Titan03Host(self, self.row_loss, self.loader)

    def _find_end_of_document(self) -> int | None:
        """Id of the token by which documents are separated; None: they are not.

        Raises: UserError: they are to be, and there is no tokenizer that knows it.
        """
        if not self.config.mixing.separate_documents:
            return None
        end = getattr(self.tokenizer, "eos_id", None)
        if end is None:
            raise UserError(
                "mixing.separate_documents needs a tokenizer with an end-of-text token, and there is none "
                f"in {self.config.hf_assets_path}: set model.hf_assets_path, or switch it off"
            )
        return end

    def expect_rows(self, num_rows: int) -> None:
        """Start a micro-batch of `num_rows` rows, in one piece or in those of a pipeline."""
        self.row_loss.expect(num_rows, self.device)
        self._next_row = 0

    def post_dataloading_process(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> Any:
        """torchtitan's, with positions, without the group ids, and with row numbers as one more column of the
        labels. The micro-batches of a pipeline come one by one."""
        model_inputs = {name: value for name, value in input_dict.items() if name != "group"}
        model_inputs["positions"] = positions_of(input_dict["input"], self._end_of_document)
        inputs, labels, extra_kwargs = super().post_dataloading_process(model_inputs, labels)
        if self.row_loss.recording:
            labels = with_row_numbers(labels, self._next_row)
        self._next_row += len(labels)
        return inputs, labels, extra_kwargs

    def forward_backward_step(
        self, *, input_dict: Any, labels: Any, global_valid_tokens: Any
    ) -> torch.Tensor:
        """torchtitan's, with the losses of the rows recorded and given to the session."""
        parts = input_dict if isinstance(input_dict, list) else [input_dict]
        labels_BS = torch.cat(labels) if isinstance(labels, list) else labels
        self.expect_rows(len(labels_BS))
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        inputs_BS, group_B = (torch.cat([part[key] for part in parts]) for key in ("input", "group"))
        self.session.see(inputs_BS, labels_BS, group_B)
        return loss

    def wait_for_checkpoint(self) -> None:
        """Return when the checkpoint that is being written in the background, if any, is whole."""
        self.checkpointer.maybe_wait_for_saving()

    def overruled(self) -> Iterable[str]:
        """A line for each setting of the config that a loaded checkpoint overrules."""
        groups = self.config.optimizer.param_groups
        if len(groups) != 1 or "betas" not in groups[0].optimizer_kwargs:
            return ()
        asked = dict(groups[0].optimizer_kwargs)
        asked["beta1"], asked["beta2"] = asked.pop("betas")
        known = ("lr", "eps", "weight_decay", "beta1", "beta2")
        return overruled(
            {name: asked[name] for name in known if name in asked}, self.optimizers, self.lr_schedulers
        )
