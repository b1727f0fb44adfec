"""torchtitan 0.2.2's trainer as a `Host`: how it does a forward pass, and what it shares between ranks."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.titan02.reference import load_reference
from titan_aioli.measure.gradients import check_doge_layout
from titan_aioli.measure.host import Forward
from titan_aioli.measure.losses import RowLoss


class TitanHost:
    """What measuring sees of a trainer; see `measure.host.Host`."""

    def __init__(self, trainer: Any, row_loss: RowLoss, loader: MixtureLoader):
        """Args:
        trainer: a torchtitan Trainer whose `post_dataloading_process` adds row numbers to the labels.
        row_loss: its loss function.
        loader: its dataloader.
        """
        self._trainer = trainer
        self.row_loss = row_loss
        self.device: torch.device = trainer.device
        self.data_rank, self.num_data_ranks = loader.rank, loader.num_ranks
        self.local_batch_size: int = trainer.job_config.training.local_batch_size
        has_losses = trainer.pp_has_last_stage if trainer.parallel_dims.pp_enabled else True
        tp_mesh = trainer.parallel_dims.get_optional_mesh("tp")
        self.is_reporter: bool = has_losses and (tp_mesh is None or tp_mesh.get_local_rank() == 0)

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

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode; afterwards weights are resharded and the time is taken out of the throughput."""
        trainer, start = self._trainer, time.perf_counter()
        for model in trainer.model_parts:
            model.eval()
        try:
            yield
        finally:
            for model in trainer.model_parts:
                model.train()
                _reshard(model)
            trainer.metrics_processor.time_last_log += time.perf_counter() - start

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The parameters that are trained, as this rank's shards."""
        return (p for model in self._trainer.model_parts for p in model.parameters() if p.requires_grad)

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows.

        Raises: UserError: with pipeline parallelism or plain DDP.
        """
        trainer, dims = self._trainer, self._trainer.parallel_dims
        check_doge_layout(dims.pp_enabled, dims.dp_replicate_enabled and not dims.fsdp_enabled)
        inputs, labels, extra_inputs, extra_kwargs = self._prepare(inputs_BS, labels_BS)
        with trainer.train_context():
            with trainer.maybe_enable_amp:
                logits = trainer.model_parts[0](inputs, **extra_inputs, **extra_kwargs)
                loss = self.row_loss(logits, labels) * scale
            del logits
            loss.backward()

    def zero_grad(self) -> None:
        self._trainer.optimizers.zero_grad()

    def sum_over_data_ranks(self, values: torch.Tensor) -> torch.Tensor:
        mesh = self._trainer.parallel_dims.get_optional_mesh("batch")
        if mesh is not None:
            dist.all_reduce(values, group=mesh.get_group())
        return values

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of DoReMi's reference model; see `load_reference`."""
        trainer, model = self._trainer, load_reference(self._trainer, checkpoint)

        def forward(inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
            inputs, labels, extra_inputs, extra_kwargs = self._prepare(inputs_BS, labels_BS)
            with trainer.train_context(), trainer.maybe_enable_amp:
                self.row_loss(model(inputs, **extra_inputs, **extra_kwargs), labels)

        return forward

    def _prepare(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> Any:
        """Model inputs, labels and further arguments of a forward pass over these rows."""
        self.row_loss.expect(len(labels_BS), self.device)
        return self._trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)


@contextmanager
def forward_actions_only(schedule: Any) -> Iterator[None]:
    """Leave the backward actions out of a pipeline schedule's plan.

    `eval` of torch's schedules walks the whole plan and skips the backward of each stage, but V-shaped plans
    (ZBVZeroBubble) hand gradients from stage to stage on one rank, and fail where there are none.
    """
    plan = getattr(schedule, "pipeline_order_with_comms", None)
    if plan is None:  # 1F1B and GPipe have no plan of actions
        yield
        return
    forward = ("FORWARD", "SEND_F", "RECV_F", "UNSHARD", "RESHARD")
    schedule.pipeline_order_with_comms = {
        rank: [action for action in actions if action.computation_type.name in forward]
        for rank, actions in plan.items()
    }
    try:
        yield
    finally:
        schedule.pipeline_order_with_comms = plan


def _reshard(model: torch.nn.Module) -> None:
    """FSDP groups that stay gathered after a forward without backward would hide weights written next."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
