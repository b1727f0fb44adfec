"""Token losses to per-group losses: sum, count, reduce, divide.

The loss that is trained on is exactly torchtitan's (log_softmax, then nll_loss summed over tokens); the
per-row sums are a second, cheap nll_loss on the same log probabilities. Rows are *written* into a buffer,
not accumulated: pipeline schedules may call the loss once more on garbage, which the real call overwrites.
There is no host sync; one all-reduce happens when the means are asked for.

Shape suffixes: B rows of the micro-batch, S positions, V vocabulary, G groups.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.tensor import DTensor

from titan_aioli.errors import ResumeRefused

IGNORE_INDEX = -100
"""Label of a position that does not count (torchtitan's and PyTorch's value)."""
STEPS_OF_A_NAT = 2.0**20
"""A row's loss sum is rounded to a multiple of one part in so many of a nat: up to 8e9 nats float64 adds such
sums without rounding, so a total is the same in whatever order ranks, micro-batches and saves add them."""


class Rows(NamedTuple):
    """What the rows of one micro-batch contributed to the loss, without gradients."""

    sums_2B: torch.Tensor
    """[2, B] float64, loss sum and number of tokens of each row."""
    tokens_BS: torch.Tensor | None
    """[B, S], loss of each token, 0 where a label does not count; None unless `RowLoss.keep_tokens`."""


LossAndRows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def cross_entropy_by_row(logits_BSV: torch.Tensor, labels_BS: torch.Tensor) -> LossAndRows:
    """The summed cross entropy, for every row its sum and its number of tokens, and each token's loss.

    Args:
        logits_BSV: any float dtype; a DTensor sharded over V under loss parallel.
        labels_BS: int64; IGNORE_INDEX does not count.
    Returns: the loss (a scalar that carries gradients), and without gradients the rows' sums and counts
        [2, B] float64 and the tokens' losses [B, S], 0 where a label does not count.
    """
    labels = labels_BS.flatten(0, 1)
    log_probs = F.log_softmax(logits_BSV.flatten(0, 1).float(), dim=-1)
    loss = F.nll_loss(log_probs, labels, reduction="sum", ignore_index=IGNORE_INDEX)
    with torch.no_grad():
        tokens = F.nll_loss(log_probs.detach(), labels, reduction="none", ignore_index=IGNORE_INDEX)
        if isinstance(tokens, DTensor):
            tokens = tokens.to_local()
    return loss, *row_parts(tokens, labels_BS)


@torch.no_grad()
def row_parts(tokens: torch.Tensor, labels_BS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows' sums and counts [2, B] float64, and the tokens' losses [B, S].

    Args:
        tokens: [B * S], loss of each token, 0 where a label does not count.
        labels_BS: int64; IGNORE_INDEX does not count.
    """
    tokens_BS = tokens.view(labels_BS.shape)
    counts_B = (labels_BS != IGNORE_INDEX).sum(dim=1).double()
    return torch.stack([row_sums(tokens_BS), counts_B]), tokens_BS


def row_sums(tokens_BS: torch.Tensor) -> torch.Tensor:
    """The sum of each row's token losses, [B] float64, rounded (see STEPS_OF_A_NAT)."""
    return (tokens_BS.double().sum(dim=1) * STEPS_OF_A_NAT).round() / STEPS_OF_A_NAT


class RowLoss:
    """torchtitan's loss function that, while `recording`, also keeps what each row contributed.

    Labels then arrive as [B, S + 1]: the last column is the row's number in the micro-batch (see
    `with_row_numbers`), so that pipeline stages, which cut batches, still know which row is which.
    """

    def __init__(
        self,
        plain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        by_row: Callable[[torch.Tensor, torch.Tensor], LossAndRows] = cross_entropy_by_row,
    ):
        """Args:
        plain: torchtitan's loss, used while not recording.
        by_row: the same loss with the rows' parts.
        """
        self._plain = plain
        self._by_row = by_row
        self._rows_2B: torch.Tensor | None = None
        self._tokens_BS: torch.Tensor | None = None
        self._pieces: list[torch.Tensor] | None = None
        self._row_numbers: torch.Tensor | None = None
        self.recording = True
        """Whether labels carry row numbers and the rows are kept."""
        self.scale: torch.Tensor | None = None
        """Factor on the returned loss; pipeline parallelism sets it to 1 / valid tokens."""
        self.keep_tokens = False
        """Whether the tokens' losses are kept too; a micro-batch must then be one call."""

    @contextmanager
    def recording_rows(self, recording: bool = True) -> Iterator[None]:
        """Record inside the block (or not), whatever was set before."""
        before, self.recording = self.recording, recording
        try:
            yield
        finally:
            self.recording = before

    def expect(self, num_rows: int, device: torch.device) -> None:
        """Start a micro-batch of `num_rows` rows."""
        self._rows_2B = torch.zeros((2, num_rows), dtype=torch.float64, device=device)

    @contextmanager
    def in_pieces(self, labels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Inside the block the loss is called on pieces of the rows, cut along the sequence, in order.

        Args:
            labels: as a call takes them, with row numbers if `recording`.
        Returns: the labels [B, S] to be cut; those of a piece carry no row numbers.
        """
        if not self.recording:
            yield labels
            return
        assert self._rows_2B is not None, "expect() comes before the first loss of a micro-batch"
        self._row_numbers, self._pieces = labels[:, -1], []
        self._rows_2B.index_fill_(1, self._row_numbers, 0.0)  # what was written of these rows before is void
        try:
            yield labels[:, :-1].contiguous()
            if self.keep_tokens:
                self._tokens_BS = torch.cat(self._pieces, dim=1)
        finally:
            self._row_numbers = self._pieces = None

    def __call__(self, logits_BSV: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._pieces is not None:
            loss = self._add_piece(logits_BSV, labels)
        elif self.recording:
            assert self._rows_2B is not None, "expect() comes before the first loss of a micro-batch"
            loss, rows_2B, tokens_BS = self._by_row(logits_BSV, labels[:, :-1].contiguous())
            self._rows_2B.index_copy_(1, labels[:, -1], rows_2B)
            if self.keep_tokens:
                self._tokens_BS = tokens_BS
        else:
            loss = self._plain(logits_BSV, labels)
        return loss if self.scale is None else loss * self.scale

    def _add_piece(self, logits_BSV: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
        """The loss of a piece of the rows, whose parts are added to those of the pieces before."""
        assert self._rows_2B is not None and self._row_numbers is not None and self._pieces is not None
        loss, rows_2B, tokens_BS = self._by_row(logits_BSV, labels_BS)
        self._rows_2B.index_add_(1, self._row_numbers, rows_2B)
        if self.keep_tokens:
            self._pieces.append(tokens_BS)
        return loss

    def rows(self) -> Rows:
        """The rows of the last micro-batch; the next one does not change them."""
        assert self._rows_2B is not None, "no micro-batch was begun"
        return Rows(self._rows_2B, self._tokens_BS)


def with_row_numbers(labels_BS: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Labels with each row's number, from `first` on, as one more column, [B, S + 1]."""
    rows = torch.arange(first, first + len(labels_BS), device=labels_BS.device, dtype=labels_BS.dtype)
    return torch.cat([labels_BS, rows[:, None]], dim=1)


class GroupStats:
    """Loss sums and token counts of every group on this rank, [2, G] float64 on the device."""

    def __init__(self, num_groups: int, device: torch.device, is_reporter: bool):
        """Args:
        num_groups: G.
        device: where the losses are.
        is_reporter: whether this rank's numbers count. Tensor-parallel ranks hold copies and only ranks
            with the last pipeline stage hold anything: one of each reports, the others add zeros.
        """
        self.sums_2G = torch.zeros((2, num_groups), dtype=torch.float64, device=device)
        self._is_reporter = is_reporter

    def clear(self) -> None:
        self.sums_2G.zero_()

    def add(self, sums_2B: torch.Tensor, group_B: torch.Tensor) -> None:
        """Add the loss sums and token counts of rows to those of their groups.

        Args:
            sums_2B: [2, B] float64, as `Rows.sums_2B`.
            group_B: [B] int64, on the same device; rows of a group outside 0 .. G - 1 (padding) are left out.
        """
        groups = torch.arange(self.sums_2G.shape[1], device=group_B.device)
        is_of_group = group_B[:, None] == groups
        # A masked sum: in fixed order, so bit-reproducible, and a nan stays in its own group.
        self.sums_2G += torch.where(is_of_group, sums_2B[:, :, None], 0.0).sum(dim=1)

    def spoil(self, groups: torch.Tensor) -> None:
        """Make the sums of some groups inf: what was to be added to them is not known."""
        self.sums_2G[:, groups.to(self.sums_2G.device)] = torch.tensor(
            [[np.inf], [1.0]], device=self.sums_2G.device
        ).double()

    def reduced(self) -> torch.Tensor:
        """Sums and counts over all ranks, [2, G], bit-equal on every rank: one all-reduce, no host sync."""
        total = self.sums_2G.clone() if self._is_reporter else torch.zeros_like(self.sums_2G)
        if dist.is_initialized():
            dist.all_reduce(total)
        return total

    def means(self) -> np.ndarray:
        """Mean loss of every group over all ranks, [G] nats per token.

        nan for a group without tokens, and only for it: a loss that is not finite is inf.
        """
        sums, counts = self.reduced().cpu().numpy()
        sums[~np.isfinite(sums)] = np.inf
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

    def collapse(self, is_holder: bool) -> np.ndarray:
        """Move the sum over all ranks to one rank, zero the others, and return the sum, [2, G].

        Called when saving, so that the running job continues from the same partial sums as a resumed one.
        """
        total = self.reduced()
        self.restore(total.cpu().numpy(), is_holder)
        return total.cpu().numpy()

    def restore(self, total: np.ndarray, is_holder: bool) -> None:
        """Start from a sum over all ranks, held by one reporting rank."""
        if total.shape != self.sums_2G.shape:
            raise ResumeRefused(f"the saved losses of the phase have shape {list(total.shape)}: damaged")
        self.sums_2G.zero_()
        if is_holder:
            self.sums_2G.copy_(torch.from_numpy(total))
