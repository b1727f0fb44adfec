"""The exchange of tokens between CPU ranks that hold different experts: parts of unequal size over gloo.

torchtitan 0.3 sends a list of tensors, which gloo takes only if all have the same size; in one tensor, with
the sizes beside it, gloo takes any. spmd_types lets its collectives be replaced for such a reason.
"""

import types

import spmd_types._dist as collectives
import torch
import torch.distributed as dist


def use_on_cpu() -> None:
    """Let torchtitan's experts exchange tokens over gloo."""
    module = types.ModuleType("titan_aioli.hosts.titan03.exchange.collectives")
    module.__dict__.update({"all_to_all": all_to_all, "__getattr__": lambda name: getattr(dist, name)})
    collectives.set_dist(module)


def all_to_all(
    outputs: list[torch.Tensor], inputs: list[torch.Tensor], group: dist.ProcessGroup | None = None
) -> None:
    """Send the inputs, one to each rank, and receive the outputs; sizes may differ in the first dimension.

    Args:
        outputs: filled; one for each rank, of the size that it sends.
        inputs: one for each rank.
        group: of these ranks.
    """
    received, sizes = torch.cat(outputs), [len(part) for part in outputs]
    dist.all_to_all_single(received, torch.cat(inputs), sizes, [len(part) for part in inputs], group=group)
    for part, found in zip(outputs, received.split(sizes), strict=True):
        part.copy_(found)
