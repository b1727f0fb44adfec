"""What torchtitan 0.3 gets wrong, or ends in a traceback, refused by name before training."""

from typing import Any

from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.models.common.attention import ScaledDotProductAttention, VarlenAttention

from titan_aioli.errors import UserError
from titan_aioli.hosts.titan.checks import check_learning_rate
from titan_aioli.hosts.titan.cpu import has_accelerator

SPLIT_BACKWARD = ("zbvzerobubble", "interleavedzerobubble", "dualpipev")
"""Pipeline schedules that compute the gradients of activations and of weights at different times."""


def refuse_known_faults(config: Any) -> None:
    """Refuse what would train wrongly, or not at all.

    Args:
        config: a `MixingTrainer.Config`, its degrees checked.
    Raises: UserError: names the settings and what to change.
    """
    for group in config.optimizer.param_groups:
        check_learning_rate(group.optimizer_kwargs.get("lr", 0.0))
    _check_loss(config)
    _check_attention(config)
    layout = config.parallelism
    if layout.pipeline_parallel_degree > 1 and getattr(config.model_spec.model, "enable_weight_tying", False):
        raise UserError(
            f"parallelism.pipeline_parallel_degree is {layout.pipeline_parallel_degree}: model "
            f"{config.model_spec.name} {config.model_spec.flavor} shares the weights of its first and last "
            "layers, which stages cannot: set it to 1"
        )
    if layout.spmd_backend == "full_dtensor":
        raise UserError(
            'parallelism.spmd_backend is "full_dtensor": losses by group need "spmd_types" or '
            '"partial_dtensor"'
        )
    if config.debug.spmd_typechecking:
        raise UserError("debug.spmd_typechecking is not supported with losses by group: switch it off")


def _check_loss(config: Any) -> None:
    layout, loss = config.parallelism, config.loss
    if not isinstance(loss, ChunkedLossWrapper.Config):
        return
    schedule = layout.pipeline_parallel_schedule
    if layout.pipeline_parallel_degree > 1 and schedule.lower() in SPLIT_BACKWARD:
        raise UserError(
            f"parallelism.pipeline_parallel_schedule {schedule} with loss.num_chunks {loss.num_chunks} gives "
            "gradients that are wrong by 0.4 percent (torchtitan 0.3): set loss.num_chunks = 1, or choose "
            "1F1B or Interleaved1F1B"
        )
    if loss.num_chunks < 1:
        raise UserError(f"loss.num_chunks is {loss.num_chunks}: at least 1")
    pieces = loss.num_chunks * layout.context_parallel_degree
    if config.training.seq_len % pieces:
        raise UserError(
            f"training.seq_len is {config.training.seq_len}: it must be a multiple of loss.num_chunks x "
            f"context_parallel_degree = {pieces}; loss.num_chunks = 1 computes all logits at once"
        )


def _check_attention(config: Any) -> None:
    model, degree = config.model_spec.model, config.parallelism.context_parallel_degree
    kinds = {"varlen": VarlenAttention.Config, "scaled dot product": ScaledDotProductAttention.Config}
    for name, kind in kinds.items():
        if degree > 1 and any(model.traverse(kind)):
            raise UserError(
                f"parallelism.context_parallel_degree is {degree}: torchtitan 0.3 cannot cut {name} "
                'attention along the sequence: set model.attn_backend = "flex", or the degree to 1'
            )
    if degree > 1 and config.training.seq_len % (128 * degree):
        raise UserError(
            f"training.seq_len is {config.training.seq_len}: with context_parallel_degree {degree} torch "
            f"cuts attention masks in blocks of 128, so it must be a multiple of {128 * degree}"
        )
    if not has_accelerator() and any(model.traverse(VarlenAttention.Config)):
        raise UserError('model.attn_backend is "varlen": torch has no CPU kernel for it: set it to "flex"')
