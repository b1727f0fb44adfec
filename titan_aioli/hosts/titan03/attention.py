"""Attention on CPU ranks: torch's FlexAttention has no backward pass there.

The mask is written out and handed to scaled dot product attention. Everything around it (masks by document,
context parallelism) is torchtitan's own. Slow, and meant for tests and tiny models.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask
from torchtitan.models.common import attention
from torchtitan.models.common.attention import FlexAttention


class WrittenOutAttention(FlexAttention):
    """FlexAttention's results without its kernel, for queries, keys and values [B, S, heads, D]."""

    @dataclass(kw_only=True, slots=True)
    class Config(FlexAttention.Config):
        pass

    def forward(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: BlockMask,
        score_mod: Any = None,
        scale: float | None = None,
        enable_gqa: bool = False,
        out_transform: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if score_mod is not None or out_transform is not None:
            raise NotImplementedError(
                "this model changes the scores inside FlexAttention (sinks, soft caps): torch has no CPU "
                "kernel for that; train it on a GPU"
            )
        q, k, v = (x.transpose(1, 2) for x in (q_BLNH, k_BLNH, v_BLNH))
        mask = _written_out(attention_masks, len(q), q.shape[2], k.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        return out.transpose(1, 2)


def use_on_cpu(model: Any) -> None:
    """Put it in the place of FlexAttention in the config of a model."""
    attention._compiled_create_block_mask = create_block_mask  # compiling it takes longer than tiny models
    for _, config, parent, name in list(model.traverse(FlexAttention.Config)):
        ours = WrittenOutAttention.Config(block_size=config.block_size, kernel_options=config.kernel_options)
        _set(parent, name, ours)


def _set(parent: Any, name: Any, value: Any) -> None:
    """A field of a config, or an item of a list of configs."""
    if isinstance(parent, list):
        parent[name] = value
    else:
        setattr(parent, name, value)


def _written_out(mask: BlockMask, batch_size: int, num_queries: int, num_keys: int) -> torch.Tensor:
    """The mask [B, 1, queries, keys] bool, made once for all layers of a forward pass."""
    written = getattr(mask, "written_out", None)
    if written is None:
        device = str(mask.kv_num_blocks.device)
        written = create_mask(mask.mask_mod, batch_size, 1, num_queries, num_keys, device=device)
        mask.written_out = written  # pyright: ignore
    return written
