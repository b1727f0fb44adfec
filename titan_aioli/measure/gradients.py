"""DoGE's observation: how the gradient of each group points along that of the held-out loss.

No rank ever holds a whole gradient: of each group's gradient only its inner product with the held-out
gradient and its norm are kept, both sums over shards, and one all-reduce joins them. A measurement costs a
forward and a backward pass over the step's rows for every group, one over the held-out rows, and the memory
of one more sharded gradient.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.streams import fixed_sample
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.errors import UserError
from titan_aioli.measure.evaluate import Batch, held_out_batches
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.losses import IGNORE_INDEX
from titan_aioli.measure.observer import MicroBatch, Observer, Settings
from titan_aioli.methods.objective import Objective


def check_gradient_layout(has_pipeline: bool, has_ddp: bool) -> None:
    """Refuse layouts in which the gradients of a group cannot be taken alone."""
    if has_pipeline or has_ddp:
        raise UserError(
            "doge and aioli_gradients run with FSDP, HSDP and tensor parallelism, not with pipeline "
            "parallelism or DDP: set pipeline_parallel_degree to 1 and data_parallel_shard_degree above 1"
        )


class GradientObserver(Observer):
    """For each group [G, 3]: <g_i, v>, |g_i|, |v|; nan in the first two for a group without rows.

    g_i is the gradient of the mean loss of group i over its rows in the phase's last step, v that of the
    objective: the weighted mean over the targets of the held-out loss, on a few fixed sequences of each.

    Source: Fan et al. 2023, arXiv:2310.15393, Algorithm 1; targets that are not the groups are its DoGE-OOD.
    """

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        self._host = host
        self._num_groups = len(loader.groups)
        self._step_batches: list[Batch] = []
        self._held_out = _weighted_batches(host, held_out.seen, settings)

    def begin_step(self) -> None:
        self._step_batches.clear()

    def see(self, batch: MicroBatch) -> None:
        self._step_batches.append((batch.inputs_BS, batch.labels_BS, batch.group_B))

    def measure(self, step: int) -> np.ndarray:
        host = self._host
        parameters = list(host.parameters())
        tokens = self._tokens_of_groups()
        products = torch.zeros((self._num_groups, 3), dtype=torch.float64, device=host.device)
        with host.row_loss.recording_rows(False):
            host.zero_grad()
            for weight, batches in self._held_out:
                self._add_gradient(batches, None, weight / self._global_tokens(batches))
            held_out = [local_gradient(p).clone() for p in parameters]
            replicas = [num_replicas(p) for p in parameters]
            products[:, 2] = inner_product(held_out, held_out, replicas)
            for group in np.flatnonzero(tokens):
                host.zero_grad()
                self._add_gradient(self._step_batches, int(group), 1.0 / tokens[group])
                gradient = [local_gradient(p) for p in parameters]
                products[group, 0] = inner_product(gradient, held_out, replicas)
                products[group, 1] = inner_product(gradient, gradient, replicas)
            host.zero_grad()
        if dist.is_initialized():
            dist.all_reduce(products)
        observation = products.cpu().numpy()
        observation[:, 1:] = np.sqrt(observation[:, 1:])
        observation[~np.isfinite(observation)] = np.inf  # nan is left to groups without tokens
        observation[tokens == 0, :2] = np.nan
        return observation

    def _add_gradient(self, batches: Iterable[Batch], group: int | None, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of the rows of one group, or of all rows."""
        host = self._host
        for inputs, labels, group_B in batches:
            if group is not None:
                labels = torch.where((group_B == group)[:, None], labels, IGNORE_INDEX)
            host.backward(inputs.to(host.device), labels.to(host.device), scale)

    def _tokens_of_groups(self) -> np.ndarray:
        """[G], labels of each group in the step, over all ranks."""
        counts = torch.zeros(self._num_groups, dtype=torch.float64, device=self._host.device)
        for _, labels, group_B in self._step_batches:
            counts.index_add_(0, group_B, (labels != IGNORE_INDEX).sum(dim=1).double())
        return self._host.sum_over_data_ranks(counts).cpu().numpy()

    def _global_tokens(self, batches: Iterable[Batch]) -> float:
        count = sum(int((labels != IGNORE_INDEX).sum()) for _, labels, _ in batches)
        return float(self._host.sum_over_data_ranks(torch.tensor(float(count), device=self._host.device)))


def _weighted_batches(
    host: Host, targets: Sequence[HeldOutSet], settings: Settings
) -> list[tuple[float, list[Batch]]]:
    """The held-out batches, and what the mean loss of each list of them counts in the objective.

    Equally many sequences of each target: where as many tokens of each count, one list gives their mean.
    """
    num_sequences = min(settings.gradient_sequences, *(target.num_sequences for target in targets))
    counting = {_num_counting(target, num_sequences) for target in targets}
    if settings.objective == Objective() and len(counting) == 1:
        return [(1.0, held_out_batches(host, targets, num_sequences))]
    weights = settings.objective.row_weights(settings.objective.start(len(targets)), len(targets))
    shares = weights / len(targets)
    return [
        (float(share), held_out_batches(host, [target], num_sequences))
        for share, target in zip(shares, targets, strict=True)
        if share > 0
    ]


def _num_counting(target: HeldOutSet, num_sequences: int) -> int:
    """Labels that count in the sequences that a target is measured on."""
    sequences = fixed_sample(target.name, target.num_sequences, num_sequences)
    counted = [target.counted(int(sequence)).indices(target.seq_len) for sequence in sequences]
    return sum(stop - start for start, stop, _ in counted)


def local_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """This rank's shard of a gradient, cut as the parameter; zeros where the loss does not depend on it.

    Without FSDP, tensor parallelism leaves gradients that are cut in another way, or still to be summed.
    """
    gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    if not isinstance(gradient, DTensor):
        return gradient
    if isinstance(parameter, DTensor) and gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return gradient.to_local()


def num_replicas(parameter: torch.nn.Parameter) -> float:
    """How many ranks hold the same shard of a parameter."""
    shards = 1
    if isinstance(parameter, DTensor):
        for placement, size in zip(parameter.placements, parameter.device_mesh.shape, strict=True):
            shards *= 1 if placement.is_replicate() else size  # FSDP x TP shards are not all a `Shard`
    return (dist.get_world_size() if dist.is_initialized() else 1) / shards


def inner_product(
    first: list[torch.Tensor], second: list[torch.Tensor], replicas: list[float]
) -> torch.Tensor:
    """This rank's part of the inner product of two sharded gradients, float64."""
    parts = [(a.double() * b.double()).sum() / n for a, b, n in zip(first, second, replicas, strict=True)]
    return torch.stack(parts).sum()
