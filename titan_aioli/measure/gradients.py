"""DoGE's observation: how the gradient of each group points along that of the held-out loss.

No rank ever holds a whole gradient: of each group's gradient only its inner product with the held-out
gradient and its norm are kept, both sums over shards, and one all-reduce joins them. A measurement costs a
forward and a backward pass over the step's rows for every group, one over the held-out rows, and the memory
of one more sharded gradient.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from titan_aioli.data.streams import fixed_sample
from titan_aioli.errors import UserError
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.measure.losses import IGNORE_INDEX
from titan_aioli.measure.observers import Observer

if TYPE_CHECKING:
    from titan_aioli.train import MixingTrainer

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def check_doge_layout(has_pipeline: bool, has_ddp: bool) -> None:
    """Refuse layouts in which the gradients of a group cannot be taken alone."""
    if has_pipeline or has_ddp:
        raise UserError(
            "doge runs with FSDP, HSDP and tensor parallelism, not with pipeline parallelism or DDP: "
            "set pipeline_parallel_degree to 1 and data_parallel_shard_degree above 1"
        )


class GradientObserver(Observer):
    """For each group [G, 3]: <g_i, v>, |g_i|, |v|; nan in the first two for a group without rows.

    g_i is the gradient of the mean loss of group i over its rows in the phase's last step, v that of the mean
    over groups of the held-out loss, on a few fixed sequences of every group.

    Source: Fan et al. 2023, arXiv:2310.15393, Algorithm 1.
    """

    def __init__(self, trainer: "MixingTrainer"):
        super().__init__(trainer)
        dims = trainer.parallel_dims
        check_doge_layout(dims.pp_enabled, dims.dp_replicate_enabled and not dims.fsdp_enabled)
        self._step_batches: list[Batch] = []
        self._held_out = held_out_batches(trainer, trainer.mixing.doge.sequences)

    def begin_step(self) -> None:
        self._step_batches.clear()

    def see(self, input_dict: dict[str, Any], labels: torch.Tensor) -> None:
        self._step_batches.append((input_dict["input"], labels, input_dict["group"]))

    def measure(self) -> np.ndarray:
        trainer, num_groups = self.trainer, len(self.trainer.group_names)
        parameters = [p for model in trainer.model_parts for p in model.parameters() if p.requires_grad]
        tokens = self._tokens_of_groups(num_groups)
        products = torch.zeros((num_groups, 3), dtype=torch.float64, device=trainer.device)
        with trainer.row_loss.recording_rows(False):
            self._backward(self._held_out, None, 1.0 / _global_tokens(trainer, self._held_out))
            held_out = [_local_gradient(p).clone() for p in parameters]
            replicas = [_num_replicas(trainer, p) for p in parameters]
            products[:, 2] = _inner_product(held_out, held_out, replicas)
            for group in np.flatnonzero(tokens):
                self._backward(self._step_batches, int(group), 1.0 / tokens[group])
                gradient = [_local_gradient(p) for p in parameters]
                products[group, 0] = _inner_product(gradient, held_out, replicas)
                products[group, 1] = _inner_product(gradient, gradient, replicas)
            trainer.optimizers.zero_grad()
        dist.all_reduce(products)
        observation = products.cpu().numpy()
        observation[:, 1:] = np.sqrt(observation[:, 1:])
        observation[~np.isfinite(observation)] = np.inf  # nan is left to groups without tokens
        observation[tokens == 0, :2] = np.nan
        return observation

    def _backward(self, batches: Iterable[Batch], group: int | None, scale: float) -> None:
        """Gradients of `scale` times the summed loss of the rows of one group, or of all rows."""
        trainer = self.trainer
        trainer.optimizers.zero_grad()
        for inputs, labels, group_B in batches:
            if group is not None:
                labels = torch.where((group_B == group)[:, None], labels, IGNORE_INDEX)
            data = {"input": inputs.to(trainer.device)}
            inputs, labels, extra_inputs, extra_kwargs = trainer.post_dataloading_process(
                data, labels.to(trainer.device)
            )
            with trainer.train_context():
                with trainer.maybe_enable_amp:
                    logits = trainer.model_parts[0](inputs, **extra_inputs, **extra_kwargs)
                    loss = trainer.row_loss(logits, labels) * scale
                del logits
                loss.backward()

    def _tokens_of_groups(self, num_groups: int) -> np.ndarray:
        """[G], labels of each group in the step, over all ranks."""
        trainer = self.trainer
        counts = torch.zeros(num_groups, dtype=torch.float64, device=trainer.device)
        for _, labels, group_B in self._step_batches:
            counts.index_add_(0, group_B, (labels != IGNORE_INDEX).sum(dim=1).double())
        return _sum_over_data_ranks(trainer, counts).cpu().numpy()


def held_out_batches(trainer: "MixingTrainer", num_sequences: int) -> list[Batch]:
    """This rank's share of equally many held-out sequences of every group."""
    groups, batch_size = trainer.held_out.groups, trainer.job_config.training.local_batch_size
    count = min(num_sequences, *(group.num_sequences for group in groups))
    rows = [
        (index, int(sequence))
        for index, group in enumerate(groups)
        for sequence in fixed_sample(group.name, group.num_sequences, count)
    ]
    batches = []
    for start in range(0, len(rows), batch_size * trainer.loader.num_ranks):
        first = start + trainer.loader.rank * batch_size
        tokens, group_B = read_rows(groups, rows[first : first + batch_size], batch_size)
        labels = tokens[:, 1:].clone()
        labels[group_B < 0] = IGNORE_INDEX
        batches.append((tokens[:, :-1], labels, group_B))
    return batches


def _global_tokens(trainer: "MixingTrainer", batches: Iterable[Batch]) -> float:
    count = sum(int((labels != IGNORE_INDEX).sum()) for _, labels, _ in batches)
    return float(_sum_over_data_ranks(trainer, torch.tensor(float(count), device=trainer.device)))


def _sum_over_data_ranks(trainer: "MixingTrainer", values: torch.Tensor) -> torch.Tensor:
    mesh = trainer.parallel_dims.get_optional_mesh("batch")
    if mesh is not None:
        dist.all_reduce(values, group=mesh.get_group())
    return values


def _local_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """This rank's shard of a gradient; zeros where the loss does not depend on the parameter."""
    gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _num_replicas(trainer: "MixingTrainer", parameter: torch.nn.Parameter) -> float:
    """How many ranks hold the same shard of a parameter."""
    shards = 1
    if isinstance(parameter, DTensor):
        for placement, size in zip(parameter.placements, parameter.device_mesh.shape, strict=True):
            shards *= 1 if placement.is_replicate() else size  # FSDP x TP shards are not all a `Shard`
    return trainer.parallel_dims.world_size / shards


def _inner_product(
    first: list[torch.Tensor], second: list[torch.Tensor], replicas: list[float]
) -> torch.Tensor:
    """This rank's part of the inner product of two sharded gradients, float64."""
    parts = [(a.double() * b.double()).sum() / n for a, b, n in zip(first, second, replicas, strict=True)]
    return torch.stack(parts).sum()
