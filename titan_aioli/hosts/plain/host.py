"""One process or DDP as a `Host`: any module that maps token ids [B, S] to logits [B, S, V]."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from titan_aioli.errors import UserError
from titan_aioli.hosts.evaluation_mode import evaluation_mode
from titan_aioli.hosts.plain.checkpoint import UNREADABLE
from titan_aioli.measure.alignment import adams_second_moments
from titan_aioli.measure.host import Forward, SecondMoment
from titan_aioli.measure.losses import IGNORE_INDEX, RowLoss, with_row_numbers


class PlainHost:
    """What measuring sees of a model in an ordinary loop; see `measure.host.Host`."""

    is_reporter = True

    def __init__(
        self,
        model: torch.nn.Module,
        local_batch_size: int,
        device: torch.device,
        optimizer: torch.optim.Optimizer | None = None,
    ):
        """Args:
        model: on `device`, wrapped in DistributedDataParallel where there are several ranks.
        local_batch_size: rows of one forward pass.
        device: of this rank.
        optimizer: of the model's parameters. None: not known.
        """
        self.model, self.optimizer = model, optimizer
        self.device, self.local_batch_size = device, local_batch_size
        self.data_rank = dist.get_rank() if dist.is_initialized() else 0
        self.num_data_ranks = dist.get_world_size() if dist.is_initialized() else 1
        self.row_loss = RowLoss(summed_cross_entropy)

    @property
    def module(self) -> torch.nn.Module:
        """The model without its wrapper."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    def loss(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
        """The summed loss of a micro-batch, to train on; `row_loss` keeps its rows."""
        return self._loss(self.model, inputs_BS, labels_BS)

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        self._loss(self.module, inputs_BS, labels_BS)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode."""
        with evaluation_mode([self.model]):
            yield

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        return (parameter for parameter in self.model.parameters() if parameter.requires_grad)

    def second_moments(self) -> Iterable[SecondMoment | None]:
        """Adam's, of each of `parameters`."""
        return adams_second_moments([] if self.optimizer is None else [self.optimizer], self.parameters())

    def backward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor, scale: float) -> None:
        """Add the gradients of `scale` times the summed loss of these rows.

        Raises: UserError: with several ranks, where DDP shares gradients.
        """
        if self.num_data_ranks > 1:
            raise UserError(
                "doge and aioli_gradients run on one rank with the plain host: use torchtitan with FSDP for "
                "more"
            )
        (self._loss(self.module, inputs_BS, labels_BS) * scale).backward()

    def zero_grad(self) -> None:
        self.model.zero_grad(set_to_none=True)

    def sum_over_data_ranks(self, values: torch.Tensor) -> torch.Tensor:
        if dist.is_initialized():
            dist.all_reduce(values)
        return values

    def reference(self, checkpoint: str) -> Forward:
        """The forward pass of a copy of the model with the weights of a checkpoint that `train` wrote.

        Raises: UserError: there is no such file, or it does not fit the model.
        """
        model = copy.deepcopy(self.module).requires_grad_(False).eval()
        try:
            saved = torch.load(checkpoint, map_location=self.device, weights_only=True)
            model.load_state_dict(saved["model"])
        except (OSError, *UNREADABLE) as error:
            raise UserError(
                f"mixing.doremi.reference is {checkpoint!r}: it must be the checkpoint.pt of a run with the "
                f"same model ({' '.join(str(error).split())[:200]})"
            ) from None

        def forward(inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
            self._loss(model, inputs_BS, labels_BS)

        return forward

    def _loss(self, model: torch.nn.Module, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
        self.row_loss.expect(len(labels_BS), self.device)
        labels = with_row_numbers(labels_BS) if self.row_loss.recording else labels_BS
        return self.row_loss(model(inputs_BS), labels)


def summed_cross_entropy(logits_BSV: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
    """The cross entropy of all tokens, summed, in float32."""
    logits, labels = logits_BSV.flatten(0, 1).float(), labels_BS.flatten(0, 1)
    return F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE_INDEX)
