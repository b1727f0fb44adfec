"""Held-out loss of every group, on the same sequences every time, spread over the data-parallel ranks.

Forward only, in the middle of training: losses, gradients, parameters and random states of the training
are the same bits with and without it. Every rank runs the same number of forward passes (FSDP gathers
weights in each); the result is one all-reduce, bit-equal on every rank. Cost: a third of a training step
for as many sequences.

Fixed sequences make the differences between two evaluations paired, so few sequences suffice.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.data.streams import fixed_sample
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.measure.host import Host
from titan_aioli.measure.losses import IGNORE_INDEX, GroupStats

logger = logging.getLogger(__name__)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Inputs [B, S], labels [B, S] and group [B] of one forward pass. Rows that pad have group -1 and labels that
do not count."""


class GroupEvaluator:
    """The fixed sequences of one split, this rank's share of them in memory, and how to measure them."""

    def __init__(self, host: Host, groups: Sequence[HeldOutSet], num_sequences: int):
        """Args:
        host: whose model is measured.
        groups: the data groups of the split.
        num_sequences: per group; a group with fewer gives all it has.
        """
        self._host = host
        self.num_groups = len(groups)
        self._num_rows = [min(num_sequences, group.num_sequences) for group in groups]
        self.batches = held_out_batches(host, groups, num_sequences)
        if host.device.type == "cuda":  # copies from pinned pages do not wait for the passes before them
            self.batches = [(x.pin_memory(), y.pin_memory(), g.pin_memory()) for x, y, g in self.batches]

    def evaluate(self) -> np.ndarray:
        """Mean loss of every group now, [G] nats per token, the same bits on every rank.

        A group is inf where its loss is not finite or where a forward pass over its rows failed. A rank whose
        pass fails continues with the next, where the other ranks expect it. If it failed between two
        collectives of the model, the others stop at the timeout of the collective instead.
        """
        stats = GroupStats(self.num_groups, self._host.device, self._host.is_reporter)
        failures = self._forward(lambda sums_2B, group, _: stats.add(sums_2B, group), stats.spoil)
        losses = stats.means()
        if not np.isfinite(losses).all():  # on every rank alike
            _show_failures(failures)
        return losses

    def evaluate_sequences(self) -> list[np.ndarray]:
        """For each group, the loss sum and the number of tokens of each of its sequences, [n, 2]; collective.

        nats; the same bits on every rank. All are inf if a forward pass failed.
        """
        host = self._host
        sums = GroupStats(sum(self._num_rows), host.device, host.is_reporter)  # a row is its own group here

        def see(sums_2B: torch.Tensor, group: torch.Tensor, number: int) -> None:
            first = (number * host.num_data_ranks + host.data_rank) * host.local_batch_size
            place = torch.arange(first, first + len(group), device=group.device)
            sums.add(sums_2B, torch.where(group < 0, -1, place))

        every = torch.arange(sum(self._num_rows))
        _show_failures(self._forward(see, lambda _: sums.spoil(every)))
        rows = sums.reduced().T.cpu().numpy()
        return np.split(rows, np.cumsum(self._num_rows)[:-1])

    def _forward(
        self,
        see: Callable[[torch.Tensor, torch.Tensor, int], None],
        spoil: Callable[[torch.Tensor], None],
    ) -> list[str]:
        """A forward pass over every batch; why some failed.

        Args:
            see: called with the sums [2, B] and groups [B] of a batch's rows, and the batch's number.
            spoil: called with the groups of a batch whose forward pass failed.
        """
        host, failures = self._host, []
        with host.evaluating(), torch.no_grad(), host.row_loss.recording_rows():
            for number, (inputs, labels, group) in enumerate(self.batches):
                try:
                    host.forward(self._moved(inputs), self._moved(labels))
                    see(host.row_loss.rows().sums_2B, self._moved(group), number)
                except dist.DistError:
                    raise  # the ranks have lost each other
                except Exception as error:
                    spoil(group[group >= 0])
                    failures.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return failures

    def _moved(self, part: torch.Tensor) -> torch.Tensor:
        """A part of a batch on the device, which the copy is not waited for."""
        return part.to(self._host.device, non_blocking=True)


def held_out_batches(host: Host, groups: Sequence[HeldOutSet], num_sequences: int) -> list[Batch]:
    """This rank's share of the first `num_sequences` of each group's fixed order of sequences.

    Every rank gets the same number of batches, the last ones filled with rows that do not count.
    """
    batch_size = host.local_batch_size
    rows = [
        (index, int(sequence))
        for index, group in enumerate(groups)
        for sequence in fixed_sample(group.name, group.num_sequences, num_sequences)
    ]
    batches = []
    for start in range(0, len(rows), batch_size * host.num_data_ranks):
        first = start + host.data_rank * batch_size
        batches.append(read_rows(groups, rows[first : first + batch_size], batch_size))
    return batches


def read_rows(groups: Sequence[HeldOutSet], rows: Sequence[tuple[int, int]], batch_size: int) -> Batch:
    """A batch of (group, sequence) pairs, filled up to `batch_size` rows with rows that do not count."""
    tokens = np.zeros((batch_size, groups[0].seq_len + 1), dtype=np.int64)
    counts = np.zeros((batch_size, groups[0].seq_len), dtype=bool)
    group_ids = np.full(batch_size, -1, dtype=np.int64)
    for place, (index, sequence) in enumerate(rows):
        groups[index].read(sequence, tokens[place])
        counts[place, groups[index].counted(sequence)] = True
        group_ids[place] = index
    inputs, labels = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:].copy())
    labels[~torch.from_numpy(counts)] = IGNORE_INDEX
    return inputs, labels, torch.from_numpy(group_ids)


def _show_failures(failures: list[str]) -> None:
    """Log on every rank why forward passes failed on any of them; called on all ranks."""
    by_rank: list = [failures]
    if dist.is_initialized():
        by_rank = [None] * dist.get_world_size()
        dist.all_gather_object(by_rank, failures)
    for rank, messages in enumerate(by_rank):
        if messages:
            logger.warning(f"mixing: {len(messages)} evaluation passes failed on rank {rank}: {messages[0]}")
