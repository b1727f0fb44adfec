"""Context parallelism on CPU ranks, for the layout checks only: torch has no sharded attention for the CPU.

Every rank gathers all keys and values and masks them by position. Slow and not meant to be trained with; it
lets the rest of the layout (sharded sequences, per-group sums, gradients) be checked without a GPU.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch.distributed._functional_collectives import all_gather_tensor_autograd
from torch.distributed.device_mesh import DeviceMesh


def install() -> None:
    """Put it in the place of torchtitan's for the Llama models."""
    from torchtitan.models.llama3.infra import parallelize

    parallelize.apply_cp_to_attention_module = apply_gathered_attention


def apply_gathered_attention(
    modules: Sequence[torch.nn.Module], mesh: DeviceMesh, attention_type: str
) -> None:
    assert attention_type == "sdpa", attention_type
    for module in modules:
        module.forward = partial(gathered_attention, mesh=mesh)


def head_tail_positions(local_len: int, rank: int, num_ranks: int) -> torch.Tensor:
    """Positions of a rank's tokens: chunk r from the head of the sequence and chunk r from its tail."""
    chunk = local_len // 2
    head, tail = rank * chunk, (2 * num_ranks - 1 - rank) * chunk
    return torch.cat([torch.arange(head, head + chunk), torch.arange(tail, tail + chunk)])


def gathered_attention(q, k, v, *, mesh: DeviceMesh, scale=None, enable_gqa=False, is_causal=True):
    """Causal attention of the local queries [B, H, S / n, D] over the keys and values of all ranks."""
    assert is_causal
    group, num_ranks, local_len = mesh.get_group(), mesh.size(), q.shape[2]
    k, v = (all_gather_tensor_autograd(x.contiguous(), gather_dim=2, group=group) for x in (k, v))
    positions = [head_tail_positions(local_len, rank, num_ranks) for rank in range(num_ranks)]
    mask = positions[mesh.get_local_rank()][:, None] >= torch.cat(positions)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
