"""The mixture-aware dataloader: each rank's share of the rows that the ledger decides.

Every rank plans the same global rows and reads its own, so the saved state is equal on all ranks and does
not depend on how many there are. A phase fixes the mixture for a known number of steps: a background thread
of torchdata.nodes plans its rows in blocks and reads them ahead of training, several micro-batches per call,
up to the end of the phase and never beyond it. The state counts the rows that training took, not those that
were read. scripts/bench_loader.py measures the speed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchdata.nodes import BaseNode, Prefetcher

from titan_aioli.control.ledger import Ledger
from titan_aioli.control.state import from_arrays, pack, to_arrays, unpack
from titan_aioli.data.gather import SequenceReader
from titan_aioli.data.group import Group, are_below
from titan_aioli.data.schedule import Block, Position, Schedule
from titan_aioli.errors import UserError

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]
Chunk = tuple[Block, list[Batch] | list[UserError]]
"""A block and some of its micro-batches, reversed; all chunks of a block come one after the other."""

BLOCK_ROWS = 8192
"""Number of rows planned at once (at least a step): takes a few ms, hardly more than planning 1,000."""
CHUNK_ROWS = 128
"""Most rows that one call reads (at least one micro-batch): 2 MB at 2,048 tokens per row. A phase begins with
one micro-batch, and each call reads twice as many as the one before, so that its first step need not wait."""
MIN_READ_AHEAD_STEPS = 4
"""Smallest number of steps that is read in the background: for fewer a thread costs more than it hides."""


class MixtureLoader:
    """Iterates over ({"input": [B, S], "group": [B]}, labels [B, S]), int64, B = local batch size.

    One item is one micro-batch of this rank; a step has `batch_size / (num_ranks * local_batch_size)`.
    Iteration ends where the next step would draw more rows of a group than `max_drawn` allows. It raises
    UserError at a token id that the groups' `vocab_size` excludes.
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
        max_drawn: np.ndarray | None = None,
        pin_memory: bool = False,
    ):
        """Args:
        groups: the data groups, in the order of the proportions.
        ledger: the controller's; read at the start of every phase.
        batch_size: rows of one step over all ranks and micro-batches.
        local_batch_size: rows of one micro-batch of one rank.
        rank, num_ranks: this rank's place among the data-parallel ranks.
        seed: seed of the orders of rows and sequences.
        read_ahead: micro-batches read in the background; 0 reads in the training thread.
        on_step: called with (block, index) after each step, for the audit.
        max_drawn: [G] int64, upper bound on the rows of each group in the whole run. None: no bound.
        pin_memory: whether batches lie in pages that a GPU reads directly.
        """
        _check_division(batch_size, num_ranks, local_batch_size)
        self.groups = groups
        self.ledger = ledger
        weighted = {index: group.weighted for index, group in enumerate(groups) if group.weighted}
        names, sizes = [group.name for group in groups], [group.num_sequences for group in groups]
        self.schedule = Schedule(names, sizes, batch_size, seed, weighted)
        self.seq_len = groups[0].seq_len
        self.rank, self.num_ranks = rank, num_ranks
        self.num_micro_batches = batch_size // (num_ranks * local_batch_size)
        self.local_rows = np.arange(batch_size).reshape(-1, num_ranks, local_batch_size)[:, rank]
        """[micro-batches, local batch size], this rank's rows of a step."""
        self.reader = SequenceReader(groups)
        self._read_ahead = read_ahead
        self._on_step = on_step
        self._max_drawn = max_drawn
        self.pin_memory = pin_memory
        self._parted: dict[str, int] = {}
        """Rows drawn of groups that the run had and that may come back."""
        self.seek(Position.start(len(groups)))

    @property
    def position(self) -> Position:
        """The position after the last step whose micro-batches were all taken."""
        if self._block is None:
            return self._start
        return self._block.position_after(self._taken // self.num_micro_batches - 1)

    def start_at(self, step: int) -> None:
        """Start at a step, with no row drawn (mixing that joins a run in the middle)."""
        assert not self.position.drawn.any(), "rows were drawn already"
        self.seek(Position.start(len(self.groups), step, step * self.schedule.batch_size))

    def start_phase(self, end_step: int) -> None:
        """Allow rows up to `end_step` (not included), with the proportions of the ledger's last entry."""
        assert not self._batches, "a phase was started in the middle of another"
        self.seek(self.position)
        assert end_step >= self._start.step, (end_step, self._start.step)
        self._phase_end = end_step

    def seek(self, position: Position) -> None:
        """Continue from a position, once `start_phase` allows rows."""
        self._start, self._phase_end = position, position.step
        self._phase_reader: _PhaseReader | None = None
        self._batches: list[Any] = []
        """Micro-batches that were read and not taken, reversed, or what is wrong with them."""
        self._block: Block | None = None
        """That they, or the last one taken, belong to."""
        self._taken = 0
        """Micro-batches of the block that were taken."""

    def used_up(self) -> np.ndarray:
        """The groups whose `max_drawn` the next step would exceed; [] if there are none."""
        if self._max_drawn is None or self._fetch() or self._phase_reader is None:
            return np.empty(0, dtype=np.int64)
        return self._phase_reader.overdrawn

    def __iter__(self) -> Iterator[Batch]:
        while self._fetch():
            if isinstance(self._batches[-1], Exception):
                raise self._batches[-1]
            self._count()
            yield self._batches.pop()  # no reference stays here: its memory is soon used again, still cached

    def _fetch(self) -> bool:
        """Whether there is a next micro-batch, which is then the last of `_batches`."""
        if self._batches:
            return True
        if self._phase_reader is None:
            self._phase_reader, self._chunks = self._read_phase()
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        block, self._batches = chunk
        if block is not self._block:
            self._block, self._taken = block, 0
        return True

    def _read_phase(self) -> "tuple[_PhaseReader, Iterator[Chunk]]":
        """What reads the rest of the phase, and its chunks, read in the background where that helps."""
        position, end_step = self.position, self._phase_end
        assert position.step < end_step, f"no phase allows step {position.step}: it ended at {end_step}"
        reader = _PhaseReader(self, position, end_step, self._max_drawn)
        ahead = self._read_ahead and end_step - position.step >= MIN_READ_AHEAD_STEPS
        factor = max(2, -(-self._read_ahead // reader.largest_chunk))  # after a short chunk another one
        node: Any = Prefetcher(reader, prefetch_factor=factor) if ahead else reader
        node.reset()
        return reader, node

    def _count(self) -> None:
        """Count a micro-batch that is taken; a step is over when its last one is."""
        assert self._block is not None
        self._taken += 1
        if self._taken % self.num_micro_batches == 0 and self._on_step is not None:
            self._on_step(self._block, self._taken // self.num_micro_batches - 1)

    def state_dict(self) -> dict[str, Any]:
        """The position in the data: equal on all ranks, whatever their number."""
        names = np.array([group.name for group in self.groups], dtype=np.str_)
        arrays = {"groups": names, **to_arrays(self.position, "position")}
        if self._parted:
            arrays["parted"] = np.array(list(self._parted), dtype=np.str_)
            arrays["parted_drawn"] = np.array(list(self._parted.values()), dtype=np.int64)
        return {"position": pack(arrays)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from where the state was taken.

        Groups are matched by name, and a new one starts with its first row; one that was left out for a while
        continues. Whether the groups may differ from the saved ones is checked by the controller.
        """
        arrays = unpack(state_dict["position"])
        saved_names, names = arrays["groups"].tolist(), [group.name for group in self.groups]
        position = from_arrays(Position.start(len(saved_names)), arrays, "position")
        if "parted" in arrays:
            pairs = zip(arrays["parted"].tolist(), arrays["parted_drawn"].tolist(), strict=True)
            self._parted = dict(pairs)
        if saved_names != names:
            drawn = self._parted | dict(zip(saved_names, position.drawn.tolist(), strict=True))
            self._parted = {name: rows for name, rows in drawn.items() if name not in names}
            position = position._replace(
                carry=np.zeros(len(names)),
                drawn=np.array([drawn.get(name, 0) for name in names], dtype=np.int64),
            )
        self.seek(position)


def _check_division(batch_size: int, num_ranks: int, local_batch_size: int) -> None:
    """Refuse a global batch that the ranks cannot take in whole micro-batches."""
    if batch_size % (num_ranks * local_batch_size):
        raise ValueError(
            f"a global batch of {batch_size} rows cannot be split over {num_ranks} data-parallel ranks x "
            f"local_batch_size {local_batch_size}: set training.global_batch_size to a multiple of "
            f"{num_ranks * local_batch_size}"
        )


class _PhaseReader(BaseNode):
    """Yields the chunks of the rest of a phase, each read by one call."""

    def __init__(
        self, loader: MixtureLoader, position: Position, end_step: int, max_drawn: np.ndarray | None
    ):
        """Args:
        loader: whose rows are read.
        position: where to begin.
        end_step: of the phase, not included.
        max_drawn: [G], upper bound on the rows of each group in the whole run. None: no bound.
        """
        super().__init__()
        self._reader, self._of_group, self._schedule = loader.reader, loader.groups, loader.schedule
        self._local_rows, self._pin_memory = loader.local_rows, loader.pin_memory
        self._position, self._end_step, self._max_drawn = position, end_step, max_drawn
        self._proportions = loader.ledger.at_step(position.step).proportions
        self._block_steps = max(1, BLOCK_ROWS // loader.schedule.batch_size)
        num_micro_batches, local_batch_size = self._local_rows.shape
        largest = max(1, CHUNK_ROWS // local_batch_size)
        self.largest_chunk = min(largest, self._block_steps * num_micro_batches)
        """Number of micro-batches in a chunk; the first ones and the last one of a block have fewer."""
        self.overdrawn = np.empty(0, dtype=np.int64)
        """Groups of which the step after the last chunk would draw too many rows."""
        self._block: Block | None = None

    def reset(self, initial_state: dict | None = None) -> None:
        super().reset(initial_state)
        self._chunk_size = 1

    def next(self) -> Chunk:
        if self._block is None or self._next == len(self._places):
            self._plan()
        assert self._block is not None
        chunk = slice(self._next, self._next + self._chunk_size)
        self._next = min(chunk.stop, len(self._places))
        self._chunk_size = min(2 * self._chunk_size, self.largest_chunk)
        return self._block, self._read(chunk)

    def _plan(self) -> None:
        """Plan the next block, of which nothing is read yet.

        Raises: StopIteration: the phase is over, or its next step would overdraw a group.
        """
        num_steps = min(self._block_steps, self._end_step - self._position.step)
        if num_steps == 0 or len(self.overdrawn):
            raise StopIteration
        block = self._schedule.plan(self._position, self._proportions, num_steps)
        if self._max_drawn is not None:
            block, self.overdrawn = block.within(self._max_drawn)
        if block.num_steps == 0:
            raise StopIteration
        self._block, self._position, self._next = block, block.position_after(block.num_steps - 1), 0
        local_batch_size = self._local_rows.shape[1]
        groups = block.groups[:, self._local_rows].reshape(-1, local_batch_size)
        self._sequences = block.sequences[:, self._local_rows].reshape(-1, local_batch_size)
        self._groups = torch.from_numpy(groups).unbind()
        self._kinds, self._places = self._reader.locate(groups, self._sequences)

    def _read(self, chunk: slice) -> list[Batch] | list[UserError]:
        """Micro-batches of the block, reversed: `pop()` returns them in order.

        A list that cannot be used holds an exception instead, which is raised in the training thread.
        """
        places = self._places[chunk]
        shape = (*places.shape, self._reader.seq_len + 1)
        tokens = np.empty(shape, dtype=np.int64)
        self._reader.read(self._kinds[chunk].ravel(), places.ravel(), tokens.reshape(-1, shape[2]))
        vocab_size = self._of_group[0].vocab_size
        if vocab_size is not None and not are_below(tokens, vocab_size):
            return [self._bad_id(chunk, tokens.reshape(-1, shape[2]))]
        halves = tokens[:, :, :-1], tokens[:, :, 1:]
        if self._pin_memory:
            halves = tuple(map(_pinned, halves))
        # numpy's views become tensors in half the time that torch takes to make its own
        inputs, labels = (map(torch.from_numpy, half) for half in halves)
        parts = zip(inputs, self._groups[chunk], labels, strict=True)
        return [({"input": i, "group": g}, y) for i, g, y in parts][::-1]

    def _bad_id(self, chunk: slice, tokens: np.ndarray) -> UserError:
        """The error of the first row [N, S + 1] of a chunk with an id that the model does not know."""
        vocab_size = self._of_group[0].vocab_size
        row = int(np.flatnonzero(((tokens < 0) | (tokens >= vocab_size)).any(axis=1))[0])
        group = int(torch.stack(self._groups[chunk]).ravel()[row])
        return self._of_group[group].bad_id(int(self._sequences[chunk].ravel()[row]), tokens[row])

    def get_state(self) -> dict:
        return {}  # the loader's `position` is the state


def _pinned(tokens: np.ndarray) -> np.ndarray:
    """A copy in pinned pages, without gaps: a GPU reads no other directly."""
    copy = torch.empty(tokens.shape, dtype=torch.int64, pin_memory=True).numpy()
    copy[:] = tokens
    return copy
