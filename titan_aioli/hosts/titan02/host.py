"""torchtitan 0.2.2's trainer as a `Host`: how it does a pass through the model."""

from typing import Any

import torch
from torchtitan.components.checkpoint import ModelWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools import utils

from titan_aioli.hosts.titan.host import TitanHost, forward_actions_only, load_weights
from titan_aioli.measure.excess import check_reference
from titan_aioli.measure.gradients import check_doge_layout
from titan_aioli.measure.host import Forward


class Titan02Host(TitanHost):
    """What measuring sees of a torchtitan 0.2.2 trainer; see `measure.host.Host`."""

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """One forward pass of the whole model as training does it; the loss keeps the rows."""
        trainer = self._trainer
        inputs, labels, extra_inputs, extra_kwargs = self._prepare(inputs_BS, labels_BS)
        with trainer.train_context():
            if trainer.parallel_dims.pp_enabled:
                target, losses = (labels, []) if trainer.pp_has_last_stage else (None, None)
                args = (inputs,) if trainer.pp_has_first_stage else ()
                extra = extra_inputs if trainer.pp_has_first_stage else {}
                with forward_actions_only(trainer.pp_schedule):
                    trainer.pp_schedule.eval(*args, **extra, **extra_kwargs, target=target, losses=losses)
            else:
                with trainer.maybe_enable_amp:
                    self.row_loss(trainer.model_parts[0](inputs, **extra_inputs, **extra_kwargs), labels)

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows.

        Raises: UserError: with pipeline parallelism or plain DDP.
        """
        trainer, dims = self._trainer, self._trainer.parallel_dims
        check_doge_layout(dims.pp_enabled, dims.dp_replicate_enabled and not dims.fsdp_enabled)
        inputs, labels, extra_inputs, extra_kwargs = self._prepare(inputs_BS, labels_BS)
        with self.router_loads_kept(), trainer.train_context():
            with trainer.maybe_enable_amp:
                logits = trainer.model_parts[0](inputs, **extra_inputs, **extra_kwargs)
                loss = self.row_loss(logits, labels) * scale
            del logits
            loss.backward()

    def zero_grad(self) -> None:
        self._trainer.optimizers.zero_grad()

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of a second model of the same flavor with the weights of a checkpoint.

        Raises: UserError: no checkpoint is named or there, it does not fit the flavor, or the layout has
            pipeline stages.
        """
        trainer, config = self._trainer, self._trainer.job_config
        check_reference(checkpoint, trainer.parallel_dims.pp_enabled)
        with torch.device("meta"), utils.set_default_dtype(TORCH_DTYPE_MAP[config.training.dtype]):
            model = trainer.train_spec.model_cls(trainer.model_args)
        model = trainer.train_spec.parallelize_fn(model, trainer.parallel_dims, config)
        model = load_weights(model.to_empty(device=trainer.device), ModelWrapper, checkpoint)

        def forward(inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
            inputs, labels, extra_inputs, extra_kwargs = self._prepare(inputs_BS, labels_BS)
            with trainer.train_context(), trainer.maybe_enable_amp:
                self.row_loss(model(inputs, **extra_inputs, **extra_kwargs), labels)

        return forward

    def _prepare(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> Any:
        """Model inputs, labels and further arguments of a forward pass over these rows."""
        self.row_loss.expect(len(labels_BS), self.device)
        return self._trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)
