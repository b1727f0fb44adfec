"""torchtitan 0.3's trainer as a `Host`: how it does a pass through the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torchtitan.components.checkpointer import ModelWrapper
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools import utils

from titan_aioli.hosts.titan.host import Prepared, TitanHost, forward_actions_only


class Titan03Host(TitanHost):
    """What measuring sees of a torchtitan 0.3 trainer; see `measure.host.Host`."""

    wrapper = ModelWrapper

    def prepare(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> Prepared:
        """What a pass over these rows takes; the loss expects them next."""
        self._trainer.expect_rows(len(labels_BS))
        with self._not_trained_on():
            return Prepared(*self._trainer.post_dataloading_process({"input": inputs_BS}, labels_BS))

    @contextmanager
    def _not_trained_on(self) -> Iterator[None]:
        """torchtitan counts the tokens that it prepares as seen in training; those of measuring are not."""
        before = self._trainer.ntokens_seen
        try:
            yield
        finally:
            self._trainer.ntokens_seen = before

    def loss_of(self, model: torch.nn.Module, rows: Prepared, scale: float | None = None) -> torch.Tensor:
        """The summed loss of rows, which the loss keeps: `scale` times it, if that is given.

        The loss is divided, not multiplied: in chunks it does its own backward pass, which sees no factor
        that comes after it.
        """
        divisor = None if scale is None else torch.tensor(1.0 / scale, device=self.device)
        loss_fn = self._trainer.loss_fn
        with _head_of(loss_fn, model):
            loss, _ = loss_fn(model(rows.inputs, **rows.more), rows.labels, divisor)
        return loss

    def forward_stages(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """`forward` through pipeline stages, in micro-batches of training's size."""
        trainer = self._trainer
        trainer.expect_rows(len(labels_BS))
        size = trainer.config.parallelism.pipeline_parallel_microbatch_size
        with self._not_trained_on():
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

    def empty_model(self) -> torch.nn.Module:
        """A model of the trained one's flavor and layout on its device, its weights undefined."""
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
