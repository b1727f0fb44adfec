"""What measuring sees of a torchtitan trainer, whatever its version."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.fsdp import FSDPModule

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import UserError
from titan_aioli.hosts.evaluation_mode import evaluation_mode
from titan_aioli.measure.alignment import adams_second_moments
from titan_aioli.measure.excess import check_reference
from titan_aioli.measure.gradients import check_gradient_layout
from titan_aioli.measure.host import Forward, SecondMoment
from titan_aioli.measure.losses import RowLoss

LOADS = ("tokens_per_expert", "tokens_per_expert_E")
"""Names of the buffer in which a router counts the tokens of its experts, by which the next optimizer step
moves the router's biases; torchtitan 0.2 and 0.3."""

FORWARD_ACTIONS = {"FORWARD", "SEND_F", "WAIT_SEND_F", "RECV_F", "UNSHARD", "RESHARD"}
"""What a forward pass does of a pipeline schedule's plan; WAIT_SEND_F since torch 2.15."""


class Prepared(NamedTuple):
    """Rows as torchtitan's model and loss take them."""

    inputs: torch.Tensor
    labels: torch.Tensor
    more: dict[str, Any]
    """Further arguments of the model, by keyword."""


class TitanHost:
    """See `measure.host.Host`; what a pass through the model is made of is each version's own."""

    wrapper: Callable[[list[torch.nn.Module]], Any]
    """torchtitan's ModelWrapper."""

    def __init__(self, trainer: Any, row_loss: RowLoss, loader: MixtureLoader):
        """Args:
        trainer: a `MixtureTraining` whose `post_dataloading_process` adds row numbers to the labels.
        row_loss: its loss function.
        loader: its dataloader.
        """
        self._trainer = trainer
        self.row_loss = row_loss
        self.device: torch.device = trainer.device
        self.data_rank, self.num_data_ranks = loader.rank, loader.num_ranks
        self.local_batch_size: int = trainer.local_batch_size
        has_losses = trainer.pp_has_last_stage if trainer.parallel_dims.pp_enabled else True
        tp_mesh = trainer.parallel_dims.get_optional_mesh("tp")
        self.is_reporter: bool = has_losses and (tp_mesh is None or tp_mesh.get_local_rank() == 0)
        if trainer.parallel_dims.pp_enabled:
            self._keep_loads_in_inference(trainer.pp_schedule)

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """One forward pass of the whole model as training does it; the loss keeps the rows."""
        if self._trainer.parallel_dims.pp_enabled:
            self.forward_stages(inputs_BS, labels_BS)
        else:
            self._forward_through(self._trainer.model_parts[0], inputs_BS, labels_BS)

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows.

        Raises: UserError: with pipeline parallelism or plain DDP.
        """
        trainer, dims = self._trainer, self._trainer.parallel_dims
        check_gradient_layout(dims.pp_enabled, dims.dp_replicate_enabled and not dims.fsdp_enabled)
        rows = self.prepare(inputs_BS, labels_BS)
        with self.router_loads_kept(), _static_shapes(), trainer.train_context():
            self.loss_of(trainer.model_parts[0], rows, scale).backward()

    def zero_grad(self) -> None:
        self._trainer.optimizers.zero_grad()

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of a second model of the same flavor with the weights of a checkpoint.

        Raises: UserError: no checkpoint is named or there, it does not fit the flavor, or the layout has
            pipeline stages.
        """
        check_reference(checkpoint, self._trainer.parallel_dims.pp_enabled)
        model = load_weights(self.empty_model(), self.wrapper, checkpoint)

        def forward(inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
            self._forward_through(model, inputs_BS, labels_BS)
            _reshard(model)
            _forget_passes(model)

        return forward

    def _forward_through(
        self, model: torch.nn.Module, inputs_BS: torch.Tensor, labels_BS: torch.Tensor
    ) -> None:
        rows = self.prepare(inputs_BS, labels_BS)
        with self._trainer.train_context():
            self.loss_of(model, rows)

    def prepare(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> Prepared:
        """What a pass over these rows takes; the loss expects them next."""
        raise NotImplementedError

    def loss_of(self, model: torch.nn.Module, rows: Prepared, scale: float | None = None) -> torch.Tensor:
        """The summed loss of rows, which the loss keeps: `scale` times it, if that is given."""
        raise NotImplementedError

    def forward_stages(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """`forward` through pipeline stages."""
        raise NotImplementedError

    def empty_model(self) -> torch.nn.Module:
        """A model of the trained one's flavor and layout on its device, its weights undefined."""
        raise NotImplementedError

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode; afterwards weights are resharded, routers have the loads of training, and the time
        is taken out of the throughput: the device's, so that it is waited for before and after."""
        trainer, device = self._trainer, torch.get_device_module()
        device.synchronize()
        start = time.perf_counter()
        try:
            with evaluation_mode(trainer.model_parts), self.router_loads_kept():
                yield
        finally:
            for model in trainer.model_parts:
                _reshard(model)
            device.synchronize()
            trainer.metrics_processor.time_last_log += time.perf_counter() - start

    @contextmanager
    def router_loads_kept(self) -> Iterator[None]:
        """Passes inside do not count in the routers of a mixture of experts: training alone balances them."""
        loads = [
            buffer
            for model in self._trainer.model_parts
            for name, buffer in model.named_buffers()
            if name.rpartition(".")[2] in LOADS
        ]
        before = [buffer.clone() for buffer in loads]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(loads, before, strict=True):
                    buffer.copy_(value)

    def _keep_loads_in_inference(self, schedule: Any) -> None:
        """Let routers not count the passes by which torch learns what pipeline stages exchange.

        It makes one before the first step, on rows without meaning, and one whenever training follows an
        evaluation, so that plain torchtitan's first step moves the biases of routers wrongly too.
        """

        def uncounted(prepare: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with self.router_loads_kept():
                    return prepare(*args, **kwargs)

            return wrapped

        for stage in getattr(schedule, "_stages", None) or [schedule._stage]:
            for name in ("_prepare_forward_infra", "_prepare_backward_infra"):
                setattr(stage, name, uncounted(getattr(stage, name)))

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The parameters that are trained, as this rank's shards."""
        return (p for model in self._trainer.model_parts for p in model.parameters() if p.requires_grad)

    def second_moments(self) -> Iterable[SecondMoment | None]:
        """Adam's, of each of `parameters`."""
        return adams_second_moments(self._trainer.optimizers, self.parameters())

    def sum_over_data_ranks(self, values: torch.Tensor) -> torch.Tensor:
        mesh = self._trainer.parallel_dims.get_optional_mesh("batch")
        if mesh is not None:
            dist.all_reduce(values, group=mesh.get_group())
        return values


def load_weights(
    model: torch.nn.Module, wrapper: Callable[[list[torch.nn.Module]], Any], checkpoint: str
) -> torch.nn.Module:
    """DoReMi's reference: a model on its device, with the weights of a checkpoint, never to be trained.

    Args:
        model: parallelised as the trained one, its weights undefined.
        wrapper: torchtitan's ModelWrapper.
        checkpoint: folder of a distributed checkpoint.
    Raises: UserError: the checkpoint does not fit the model.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=()):  # the initial weights are overwritten below
        model.init_weights(buffer_device=None)  # pyright: ignore
    wrapped = wrapper([model])
    state_dict = wrapped.state_dict()
    try:
        load_checkpoint(state_dict, checkpoint_id=checkpoint)
    except Exception as error:
        raise UserError(f"mixing.doremi.reference {checkpoint} does not fit this model: {error}") from error
    wrapped.load_state_dict(state_dict)
    return model.requires_grad_(False).eval()


@contextmanager
def forward_actions_only(schedule: Any) -> Iterator[None]:
    """Leave the backward actions out of a pipeline schedule's plan.

    `eval` of torch's schedules walks the whole plan and skips the backward of each stage, but V-shaped plans
    (ZBVZeroBubble) hand gradients from stage to stage on one rank, and fail where there are none. DualPipeV's
    plan pairs a forward with a backward action.
    """
    plan = getattr(schedule, "pipeline_order_with_comms", None)
    if plan is None:  # 1F1B and GPipe have no plan of actions
        yield
        return
    schedule.pipeline_order_with_comms = {
        rank: [
            part
            for action in actions
            for part in action.sub_actions or (action,)
            if part.computation_type.name in FORWARD_ACTIONS
        ]
        for rank, actions in plan.items()
    }
    try:
        yield
    finally:
        schedule.pipeline_order_with_comms = plan


@contextmanager
def _static_shapes() -> Iterator[None]:
    """Passes over another number of rows than training's get a compiled graph of their own.

    torch.compile would else make one for any number, which training then runs through too.
    """
    if (dynamo := sys.modules.get("torch._dynamo")) is None:  # nothing is compiled
        yield
        return
    with dynamo.config.patch(automatic_dynamic_shapes=False):
        yield


def _forget_passes(model: torch.nn.Module) -> None:
    """FSDP notes every forward pass until a backward pass comes, which a reference never has."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            state._comm_ctx.post_forward_order.clear()
            group = state._fsdp_param_group
            for each in getattr(state, "_fsdp_param_groups", [group] if group else []):
                each._post_forward_indices.clear()


def _reshard(model: torch.nn.Module) -> None:
    """FSDP groups that stay gathered after a forward without backward would hide weights written next."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
