"""What measuring needs of the program that owns the training loop.

A host is written once per trainer (hosts/titan02, hosts/titan03, hosts/plain); whatever measures takes a
`Host` and works with any of them. Calls that every data-parallel rank must make together are marked
collective.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch

from titan_aioli.measure.losses import RowLoss

Forward = Callable[[torch.Tensor, torch.Tensor], None]
"""A forward pass over (inputs [B, S], labels [B, S]) int64 on the host's device. The losses of its rows are
then `row_loss.rows()`."""


class SecondMoment(NamedTuple):
    """What Adam divides the gradient of one parameter by, without its correction for the start of a run,
    which is the same factor for all."""

    mean: torch.Tensor
    """Running mean of the squared gradients, of the parameter's shape."""
    beta2: float
    """What that mean keeps of itself at a step."""
    epsilon: float


class Host(Protocol):
    """One rank of a training program."""

    @property
    def device(self) -> torch.device:
        """Where the losses are."""
        ...

    @property
    def data_rank(self) -> int:
        """This rank's place among the data-parallel ranks; ranks that share rows have the same."""
        ...

    @property
    def num_data_ranks(self) -> int: ...

    @property
    def local_batch_size(self) -> int:
        """Rows of one forward pass: training's, which pipeline schedules insist on."""
        ...

    @property
    def is_reporter(self) -> bool:
        """Whether this rank's loss sums count: tensor-parallel ranks hold copies of each other's, and only
        ranks with the last pipeline stage hold any."""
        ...

    @property
    def row_loss(self) -> RowLoss:
        """The loss function that training calls."""
        ...

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """One forward pass as training does it; see `Forward`. Collective."""
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """A context for forward passes that leave no trace: evaluation mode, weights resharded afterwards,
        time not counted in the throughput."""
        ...

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The parameters that are trained, or this rank's shards of them."""
        ...

    def second_moments(self) -> Iterable[SecondMoment | None]:
        """For each of `parameters`, what the optimizer divides its gradient by; None where it keeps no mean
        of squared gradients, as before the first step."""
        ...

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows, of any number. Collective.

        Raises: UserError: in a layout where the gradients of some rows cannot be taken alone.
        """
        ...

    def zero_grad(self) -> None: ...

    def sum_over_data_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks that train on different rows, in place. Collective."""
        ...

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of a second model of the same kind with the weights of a checkpoint; for DoReMi.

        Raises: UserError: the checkpoint is not there or does not fit, or the layout does not allow it.
        """
        ...
