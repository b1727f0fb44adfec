"""Held-out loss of every group, on the same sequences every time, spread over the data-parallel ranks.

Forward only, in the middle of training: losses, gradients, parameters and random states of the training
are the same bits with and without it. Every rank runs the same number of forward passes (FSDP gathers
weights in each); the result is one all-reduce, bit-equal on every rank. Cost: a third of a training step
for as many sequences.

Fixed sequences make the differences between two evaluations paired, so few sequences suffice.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from titan_aioli.data.group import Group
from titan_aioli.data.streams import fixed_sample
from titan_aioli.measure.losses import IGNORE_INDEX, GroupStats, RowLoss

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from titan_aioli.train import MixingTrainer


class GroupEvaluator:
    """The fixed sequences of one split, this rank's share of them in memory, and how to measure them."""

    def __init__(
        self, groups: Sequence[Group], num_sequences: int, batch_size: int, rank: int, num_ranks: int
    ):
        """Args:
        groups: the data groups of the split.
        num_sequences: per group; a group with fewer gives all it has.
        batch_size: rows of a forward pass on one rank: training's, which pipeline schedules insist on.
        rank, num_ranks: this rank's place among the data-parallel ranks.
        """
        self.num_groups = len(groups)
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        """(tokens [B, S + 1], group [B]) of each forward pass; rows that pad have group -1."""
        rows = [
            (index, int(sequence))
            for index, group in enumerate(groups)
            for sequence in fixed_sample(group.name, group.num_sequences, num_sequences)
        ]
        self.num_rows = len(rows)
        per_pass = batch_size * num_ranks
        for start in range(0, len(rows), per_pass):
            mine = rows[start + rank * batch_size : min(start + (rank + 1) * batch_size, start + per_pass)]
            self.batches.append(read_rows(groups, mine, batch_size))

    def evaluate(self, trainer: "MixingTrainer") -> np.ndarray:
        """Mean loss of every group now, [G] nats per token, the same bits on every rank.

        A group is inf where its loss is not finite or where a forward pass over its rows failed. A rank whose
        pass fails goes on with the next, since the other ranks wait for it there; that cannot help where it
        failed between two collectives of the model, which the others then leave by their timeout.
        """
        stats = GroupStats(self.num_groups, trainer.device, trainer.is_reporter)
        failures: list[str] = []
        for model in trainer.model_parts:
            model.eval()
        with torch.no_grad(), trainer.row_loss.recording_rows():
            for tokens, group in self.batches:
                try:
                    self._add_pass(trainer, stats, tokens, group)
                except dist.DistError:
                    raise  # the ranks have lost each other
                except Exception as error:
                    stats.spoil(group[group >= 0])
                    failures.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        for model in trainer.model_parts:
            model.train()
            _reshard(model)
        losses = stats.means()
        if not np.isfinite(losses).all():  # on every rank alike
            _show_failures(failures)
        return losses

    def _add_pass(
        self, trainer: "MixingTrainer", stats: GroupStats, tokens: torch.Tensor, group: torch.Tensor
    ) -> None:
        labels = tokens[:, 1:].clone()
        labels[group < 0] = IGNORE_INDEX
        forward(trainer, tokens[:, :-1].to(trainer.device), labels.to(trainer.device))
        trainer.row_loss.add_to(stats.sums_2G, group.to(trainer.device))


def forward(trainer: "MixingTrainer", inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """One forward pass of the whole model as training does it; the loss keeps the rows."""
    loss_fn: RowLoss = trainer.row_loss
    inputs, labels, extra_inputs, extra_kwargs = trainer.post_dataloading_process({"input": inputs}, labels)
    loss_fn.expect(len(labels), trainer.device)
    with trainer.train_context():
        if trainer.parallel_dims.pp_enabled:
            target, losses = (labels, []) if trainer.pp_has_last_stage else (None, None)
            args = (inputs,) if trainer.pp_has_first_stage else ()
            extra = extra_inputs if trainer.pp_has_first_stage else {}
            with forward_actions_only(trainer.pp_schedule):
                trainer.pp_schedule.eval(*args, **extra, **extra_kwargs, target=target, losses=losses)
        else:
            with trainer.maybe_enable_amp:
                loss_fn(trainer.model_parts[0](inputs, **extra_inputs, **extra_kwargs), labels)


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


def read_rows(
    groups: Sequence[Group], rows: list[tuple[int, int]], batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [batch_size, S + 1] of (group, sequence) pairs, and the groups; rows that pad have group -1."""
    tokens = np.zeros((batch_size, groups[0].seq_len + 1), dtype=np.int64)
    group_ids = np.full(batch_size, -1, dtype=np.int64)
    for place, (index, sequence) in enumerate(rows):
        groups[index].read(sequence, tokens[place])
        group_ids[place] = index
    return torch.from_numpy(tokens), torch.from_numpy(group_ids)


def _show_failures(failures: list[str]) -> None:
    """Log on every rank why forward passes failed on any of them; called on all ranks."""
    by_rank: list = [failures]
    if dist.is_initialized():
        by_rank = [None] * dist.get_world_size()
        dist.all_gather_object(by_rank, failures)
    for rank, messages in enumerate(by_rank):
        if messages:
            logger.warning(f"mixing: {len(messages)} evaluation passes failed on rank {rank}: {messages[0]}")


def _reshard(model: torch.nn.Module) -> None:
    """FSDP groups that stay gathered after a forward without backward would hide weights written next."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
