"""torchtitan 0.3's losses that, while rows are recorded, also keep what each row contributed.

Its default cuts the sequence into chunks and calls the inner loss on each of them (`ChunkedLossWrapper`); the
parts of a row are then added up. Labels arrive with each row's number as one more column, as in
`measure.losses.RowLoss`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Shard
from torchtitan.components.loss import (
    BaseLoss,
    ChunkedLossWrapper,
    CrossEntropyLoss,
    _LossParallelCrossEntropy,
    cross_entropy_loss,
)
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.distributed.utils import get_spmd_backend

from titan_aioli.errors import UserError
from titan_aioli.measure.losses import LossAndRows, RowLoss, cross_entropy_by_row, row_parts


def with_rows(config: BaseLoss.Config) -> BaseLoss.Config:
    """The config of a loss that keeps rows, in the place of torchtitan's.

    Raises: UserError: it is neither torchtitan's cross entropy nor that in chunks.
    """
    if type(config) is CrossEntropyLoss.Config:
        return RowCrossEntropy.Config(global_vocab_size=config.global_vocab_size)
    if type(config) is ChunkedLossWrapper.Config and type(config.loss_fn) is CrossEntropyLoss.Config:
        inner = RowCrossEntropy.Config(global_vocab_size=config.loss_fn.global_vocab_size)
        return ChunkedRowLoss.Config(num_chunks=config.num_chunks, loss_fn=inner)
    if isinstance(config, (RowCrossEntropy.Config, ChunkedRowLoss.Config)):
        return config
    raise UserError(
        f"the loss is {type(config).__qualname__}: a mixture is trained with CrossEntropyLoss, alone or in "
        "ChunkedLossWrapper"
    )


class RowCrossEntropy(CrossEntropyLoss):
    """torchtitan's cross entropy; `rows` keeps the rows."""

    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):
        pass

    def __init__(self, config: Config, *, compile_config: Any = None):
        super().__init__(config, compile_config=compile_config)
        plain, by_row = cross_entropy_loss, _cross_entropy_by_row
        if compile_config is not None and compile_config.enable and "loss" in compile_config.components:
            plain = torch.compile(plain, backend=compile_config.backend)
            by_row = torch.compile(by_row, backend=compile_config.backend)
        sizes = {"global_vocab_size": config.global_vocab_size}
        self.rows = RowLoss(partial(plain, **sizes), partial(by_row, **sizes))

    def __call__(self, pred, labels, global_valid_tokens=None, **kwargs):
        loss = self.rows(pred, labels)
        return (loss if global_valid_tokens is None else loss / global_valid_tokens), {}


class ChunkedRowLoss(ChunkedLossWrapper):
    """torchtitan's loss in chunks of the sequence around a `RowCrossEntropy`."""

    @dataclass(kw_only=True, slots=True)
    class Config(ChunkedLossWrapper.Config):
        pass

    loss_fn: RowCrossEntropy

    def __call__(self, pred, labels, global_valid_tokens=None, **loss_inputs):
        with self.loss_fn.rows.in_pieces(labels) as labels_BS:
            return super().__call__(pred, labels_BS, global_valid_tokens, **loss_inputs)


def row_loss_of(loss: BaseLoss) -> RowLoss:
    """What keeps the rows of a loss that was built from `with_rows`."""
    inner = loss.loss_fn if isinstance(loss, ChunkedRowLoss) else loss
    assert isinstance(inner, RowCrossEntropy)
    return inner.rows


def _cross_entropy_by_row(
    pred: torch.Tensor, labels_BS: torch.Tensor, *, global_vocab_size: int | None
) -> LossAndRows:
    """`cross_entropy_by_row` where tensor-parallel ranks may each hold a part of the vocabulary.

    It asks for each token's loss in place of their sum: the same three all-reduces as torchtitan's.
    """
    group = None
    if isinstance(pred, DTensor):
        if pred.placements == (Shard(pred.ndim - 1),):
            group, global_vocab_size = pred.device_mesh.get_group("tp"), pred.shape[-1]
            pred = pred.to_local()
    elif get_spmd_backend() == "spmd_types" and spmd_mesh_size("tp") > 1:
        group = current_spmd_mesh().get_group("tp")
    if group is None:
        return cross_entropy_by_row(pred, labels_BS)
    logits, labels = pred.flatten(0, 1).float(), labels_BS.flatten(0, 1)
    tokens = _LossParallelCrossEntropy.apply(logits, labels, group, global_vocab_size, "none")
    return tokens.sum(), *row_parts(tokens.detach(), labels_BS)
