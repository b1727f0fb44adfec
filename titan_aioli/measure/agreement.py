"""All ranks hold the same mixture, or all of them stop.

Ranks update from bit-equal numbers, so a difference means that memory, a link or a library has failed on
one of them. At each update a 32-byte digest is compared by one all-reduce.
"""

import torch
import torch.distributed as dist

from titan_aioli.control.controller import MixtureController
from titan_aioli.errors import RanksDisagree


def check_ranks_agree(controller: MixtureController, device: torch.device) -> None:
    """Compare the controllers of all ranks.

    Raises: RanksDisagree: on every rank, with the step, the ranks and what each of them holds.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    own_digest = controller.digest()
    digest = torch.frombuffer(bytearray(bytes.fromhex(own_digest)), dtype=torch.uint8)
    digest = digest.to(device=device, dtype=torch.int32)
    extremes = torch.cat([digest, -digest])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    if torch.equal(extremes[:32], -extremes[32:]):
        return
    held: list = [None] * dist.get_world_size()
    dist.all_gather_object(held, {**controller.held(), "digest": own_digest})
    name = next(name for name in held[0] if len({values.get(name) for values in held}) > 1)
    ranks_by_value: dict[str, list[int]] = {}
    for rank, values in enumerate(held):
        ranks_by_value.setdefault(str(values.get(name)), []).append(rank)
    shown = "; ".join(f"ranks {ranks} hold {value}" for value, ranks in ranks_by_value.items())
    raise RanksDisagree(
        f"step {controller.step}: the ranks hold different mixtures: {name}: {shown}. Training stops: see "
        "that every node has the same config and stores, and check the memory and network of the ranks that "
        "differ; the last checkpoint is from before"
    )
