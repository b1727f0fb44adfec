"""The mixture-aware dataloader: each rank's share of the rows that the ledger decides.

Every rank plans the same global rows and reads its own, so the saved state is equal on all ranks and does
not depend on how many there are. A phase fixes the mixture for a known number of steps: rows are read
ahead (a background thread of torchdata.nodes) up to the end of the phase and never beyond it, and the
state counts the rows that training took, not those that were read.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchdata.nodes import BaseNode, Prefetcher

from titan_aioli.data.group import Group
from titan_aioli.data.ledger import Ledger
from titan_aioli.data.schedule import Block, Position, Schedule
from titan_aioli.state import from_arrays, pack, to_arrays, unpack

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]

BLOCK_ROWS = 1024
"""Rows planned at once: planning a block costs under 1% of reading its rows."""
MIN_READ_AHEAD_STEPS = 4
"""Phases shorter than this are read directly: a thread would cost more than it hides."""


class MixtureLoader:
    """Iterates over ({"input": [B, S], "group": [B]}, labels [B, S]), int64, B = local batch size.

    One item is one micro-batch of this rank; a step takes `batch_size / (num_ranks * local_batch_size)`.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        ledger: Ledger,
        batch_size: int,
        local_batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        seed: int = 0,
        read_ahead: int = 4,
        on_step: Callable[[Block, int], None] | None = None,
    ):
        """Args:
        groups: the data groups, in the order of the proportions.
        ledger: the controller's; read at the start of every phase.
        batch_size: rows of one step over all ranks and micro-batches.
        local_batch_size: rows of one micro-batch of one rank.
        rank, num_ranks: this rank's place among the data-parallel ranks.
        seed: of the orders of rows and sequences.
        read_ahead: micro-batches read in the background; 0 reads in the training thread.
        on_step: called with (block, index) of each step taken, for the audit.
        """
        if batch_size % (num_ranks * local_batch_size):
            raise ValueError(
                f"a global batch of {batch_size} rows cannot be split over {num_ranks} data-parallel ranks x "
                f"local_batch_size {local_batch_size}: set training.global_batch_size to a multiple of "
                f"{num_ranks * local_batch_size}"
            )
        self.groups = groups
        self.ledger = ledger
        self.schedule = Schedule(
            [group.name for group in groups], [group.num_sequences for group in groups], batch_size, seed
        )
        self.seq_len = groups[0].seq_len
        self.rank, self.num_ranks = rank, num_ranks
        self.num_micro_batches = batch_size // (num_ranks * local_batch_size)
        self._local_rows = np.arange(batch_size).reshape(-1, num_ranks, local_batch_size)[:, rank]
        self._read_ahead = read_ahead
        self._on_step = on_step
        self._pin_memory = torch.cuda.is_available()
        self.position = Position.start(len(groups))
        self._phase_end = 0

    def start_at(self, step: int) -> None:
        """Place a loader that has drawn nothing at a step (mixing that begins in the middle of a run)."""
        assert not self.position.drawn.any(), "rows were drawn already"
        self.position = Position.start(len(self.groups), step)

    def start_phase(self, end_step: int) -> None:
        """Allow rows up to `end_step` (not included), with the proportions of the ledger's last entry."""
        assert end_step >= self.position.step, (end_step, self.position.step)
        self._phase_end = end_step

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from self._phase(self._phase_end)

    def _phase(self, end_step: int) -> Iterator[Batch]:
        """The micro-batches of the rest of a phase; `position` moves when a step's last one is taken."""
        first_step = self.position.step
        assert first_step < end_step, f"no phase allows step {first_step}: the phase ended at {end_step}"
        proportions = self.ledger.at_step(first_step).proportions
        rows = _MicroBatches(self, self.position, proportions, end_step)
        ahead = self._read_ahead and end_step - first_step >= MIN_READ_AHEAD_STEPS
        node: Any = Prefetcher(rows, prefetch_factor=self._read_ahead) if ahead else rows
        node.reset()
        for batch, block, index, is_last in node:
            if is_last:
                self.position = block.position_after(index)
                if self._on_step is not None:
                    self._on_step(block, index)
            yield batch

    def read(self, block: Block, index: int, micro_batch: int) -> Batch:
        """This rank's rows of one micro-batch, gathered from the memory maps."""
        rows = self._local_rows[micro_batch]
        group_ids, sequences = block.groups[index, rows], block.sequences[index, rows]
        tokens = torch.empty((len(rows), self.seq_len + 1), dtype=torch.int64, pin_memory=self._pin_memory)
        for out, group, sequence in zip(tokens.numpy(), group_ids, sequences, strict=True):
            self.groups[group].read(sequence, out)
        return {"input": tokens[:, :-1], "group": torch.from_numpy(group_ids)}, tokens[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """Rows consumed by training: the same on every rank, whatever their number."""
        return {"position": pack(to_arrays(self.position, "position"))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        template = Position.start(len(self.groups))
        self.position = from_arrays(template, unpack(state_dict["position"]), "position")
        self._phase_end = self.position.step


class _MicroBatches(BaseNode):
    """The micro-batches of the steps up to the end of a phase, planned block by block."""

    def __init__(self, loader: MixtureLoader, position: Position, proportions: np.ndarray, end_step: int):
        super().__init__()
        self._loader = loader
        self._start = position
        self._proportions = proportions
        self._end_step = end_step

    def reset(self, initial_state: dict | None = None) -> None:
        super().reset(initial_state)
        self._items = self._iterate()

    def next(self) -> tuple[Batch, Block, int, bool]:
        return next(self._items)

    def get_state(self) -> dict:
        return {}  # the loader's `position` is the state

    def _iterate(self) -> Iterator[tuple[Batch, Block, int, bool]]:
        loader, position = self._loader, self._start
        block_steps = max(1, BLOCK_ROWS // loader.schedule.batch_size)
        while position.step < self._end_step:
            num_steps = min(block_steps, self._end_step - position.step)
            block = loader.schedule.plan(position, self._proportions, num_steps)
            for index in range(num_steps):
                for micro_batch in range(loader.num_micro_batches):
                    is_last = micro_batch == loader.num_micro_batches - 1
                    yield loader.read(block, index, micro_batch), block, index, is_last
            position = block.position_after(num_steps - 1)
