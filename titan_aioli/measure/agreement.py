"""All ranks hold the same mixture, or all of them stop.

Ranks update from bit-equal numbers, so a difference means that a node has other files, or that memory, a link
or a library has failed on one of them. A 32-byte digest is compared by one all-reduce before the first step
and at each update.
"""

from hashlib import blake2b

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
    digest = torch.frombuffer(bytearray(bytes.fromhex(controller.digest())), dtype=torch.uint8)
    if not _differ(digest.to(device=device, dtype=torch.int64)).any():
        return
    name, values = _first_difference(controller.held(), device)
    ranks_by_value: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks_by_value.setdefault(value, []).append(rank)
    shown = "; ".join(f"ranks {ranks} hold {value}" for value, ranks in ranks_by_value.items())
    raise RanksDisagree(
        f"step {controller.step}: the ranks hold different mixtures: {name}: {shown}. Training stops: see "
        "that every node has the same config and stores, and check the memory and network of the ranks that "
        "differ; the last checkpoint is from before"
    )


def _differ(numbers: torch.Tensor) -> torch.Tensor:
    """Which of some numbers [N] above -2^63 are not the same on all ranks, on the CPU."""
    extremes = torch.cat([numbers, -numbers])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    largest, negated_smallest = extremes.cpu().chunk(2)
    return largest != -negated_smallest


def _first_difference(held: dict[str, str], device: torch.device) -> tuple[str, list[str]]:
    """The first name of which ranks hold other values, and the value of each rank.

    Only hashes are compared until it is known: a long run's ledger on thousands of ranks has gigabytes.
    """
    count = torch.tensor(len(held), device=device)
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    names = list(held)[: int(count)]
    hashes = [int.from_bytes(blake2b(held[name].encode(), digest_size=7).digest(), "big") for name in names]
    different = _differ(torch.tensor(hashes, device=device))
    name = names[int(different.nonzero()[0])] if different.any() else "number of ledger entries"
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, held[name] if different.any() else str(len(held)))
    return name, values
