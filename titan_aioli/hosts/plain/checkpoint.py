"""The checkpoint of a plain run: one file with every part of its state."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist

from titan_aioli.errors import UserError
from titan_aioli.files import replacing

UNREADABLE = (EOFError, UnpicklingError, KeyError, TypeError, RuntimeError, ValueError)
"""Errors of a file that is empty, cut short, no checkpoint, or one of other parts."""


def save_checkpoint(path: Path, parts: dict[str, Any], step: int, is_writer: bool) -> None:
    """Write a file that appears whole or not at all. Collective: parts of the state are summed over ranks."""
    state = {name: part.state_dict() for name, part in parts.items()}
    if is_writer:
        with replacing(path) as file:
            torch.save({**state, "step": step, "random": torch.get_rng_state()}, file)
    if dist.is_initialized():
        dist.barrier()


def load_checkpoint(path: Path, parts: dict[str, Any], device: torch.device) -> int:
    """Load every part from a checkpoint; the number of steps done.

    Raises: UserError: a part is missing or does not fit.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"].cpu())
        return int(saved["step"])
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"{path} does not fit this run ({' '.join(str(error).split())[:200]}): use the model and "
            "optimizer that it was written with, or another folder"
        ) from None
