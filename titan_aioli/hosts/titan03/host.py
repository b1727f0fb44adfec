"""torchtitan 0.3's trainer as a `Host`: how it does a pass through the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torchtitan.components.checkpointer import ModelWrapper
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools import utils

from titan_aioli.hosts.titan.host import TitanHost, forward_actions_only, load_weights
from titan_aioli.measure.excess import check_reference
from titan_aioli.measure.gradients import check_doge_layout
from titan_aioli.measure.host import Forward


class Titan03Host(TitanHost):
    """What measuring sees of a torchtitan 0.3 trainer; see `measure.host.Host`."""

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """One forward pass of the whole model as training does it; the loss keeps the rows."""
        trainer = self._trainer
        trainer.expect_rows(len(labels_BS))
        if trainer.parallel_dims.pp_enabled:
            self._forward_stages(inputs_BS, labels_BS)
            return
        inputs, labels, extra = trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)
        with trainer.train_context():
            trainer.loss_fn(trainer.model_parts[0](inputs, **extra), labels)

    def _forward_stages(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """`forward` through pipeline stages, in micro-batches of training's size."""
        trainer = self._trainer
        size = trainer.config.parallelism.pipeline_parallel_microbatch_size
        parts = [
            trainer.post_dataloading_process({"input": inputs}, labels.contiguous())
            for inputs, labels in zip(inputs_BS.split(size), labels_BS.split(size), strict=True)
        ]
        is_last = trainer.pp_has_last_stage
        with trainer.train_context(), forward_actions_only(trainer.pp_schedule):
            trainer.pp_schedule.eval(
                arg_mbs=[(inputs,) for inputs, _, _ in parts] if trainer.pp_has_first_stage else None,
                kwarg_mbs=[extra for _, _, extra in parts],
                target_mbs=[labels for _, labels, _ in parts] if is_last else None,
                losses=[] if is_last else None,
            )

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows.

        The loss is divided, not multiplied: in chunks it does its own backward pass, which sees no factor
        that comes after it.

        Raises: UserError: with pipeline parallelism or plain DDP.
        """
        trainer, dims = self._trainer, self._trainer.parallel_dims
        check_doge_layout(dims.pp_enabled, dims.dp_replicate_enabled and not dims.fsdp_enabled)
        trainer.expect_rows(len(labels_BS))
        inputs, labels, extra = trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)
        divisor = torch.tensor(1.0 / scale, device=self.device)
        with self.router_loads_kept(), trainer.train_context():
            loss, _ = trainer.loss_fn(trainer.model_parts[0](inputs, **extra), labels, divisor)
            loss.backward()

    def zero_grad(self) -> None:
        self._trainer.optimizers.zero_grad()

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of a second model of the same flavor with the weights of a checkpoint.

        Raises: UserError: no checkpoint is named or there, it does not fit the flavor, or the layout has
            pipeline stages.
        """
        trainer = self._trainer
        check_reference(checkpoint, trainer.parallel_dims.pp_enabled)
        model = load_weights(self._empty_model(), ModelWrapper, checkpoint)

        def forward(inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
            trainer.expect_rows(len(labels_BS))
            inputs, labels, extra = trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)
            with trainer.train_context(), _head_of(trainer.loss_fn, model):
                trainer.loss_fn(model(inputs, **extra), labels)

        return forward

    def _empty_model(self) -> torch.nn.Module:
        """A model of the trained one's flavor and layout, its weights undefined."""
        trainer, config = self._trainer, self._trainer.config
        with torch.device("meta"), utils.set_default_dtype(TORCH_DTYPE_MAP[config.training.dtype]):
            model = trainer.model_config.build()
        model = config.model_spec.parallelize_fn(
            model,
            parallel_dims=trainer.parallel_dims,
            training=config.training,
            parallelism=config.parallelism,
            compile_config=config.compile,
            ac_config=config.activation_checkpoint,
            dump_folder=config.dump_folder,
        )
        model._skip_lm_head = isinstance(trainer.loss_fn, ChunkedLossWrapper)
        return model.to_empty(device=trainer.device)


@contextmanager
def _head_of(loss: Any, model: Any) -> Iterator[None]:
    """Inside the block a loss in chunks applies the output layer of another model."""
    if not isinstance(loss, ChunkedLossWrapper):
        yield
        return
    before = loss.lm_head
    loss.set_lm_head(model.lm_head)
    try:
        yield
    finally:
        loss.set_lm_head(before)
