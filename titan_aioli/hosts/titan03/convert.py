"""A checkpoint of torchtitan 0.2.2 made one of 0.3: Llama 3's weights and the state of their optimizer.

`output` became `lm_head`, and queries, keys and values became one matrix. torchtitan 0.3 writes that matrix
as three all the same, but the optimizer's state of it as one. Everything else has kept its name. One process
reads the whole checkpoint into memory.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torchtitan.models.common.attention import FusedQKVLinear

from titan_aioli.errors import UserError
from titan_aioli.hosts.titan03.job import load_config
from titan_aioli.runs.checkpoints import NEW, checkpoints, put_in_place

OLD_OUTPUT = "output.weight"
"""Weights that every checkpoint of torchtitan 0.2.2's Llama 3 has, and none of 0.3."""


def convert_newest(arguments: list[str]) -> tuple[Path, Path]:
    """Convert the newest checkpoint of a run where it is, so that the run's command continues from it.

    Args:
        arguments: of `python -m titan_aioli.train`.
    Returns: the converted checkpoint, and where the old one has been put.
    Raises: UserError: there is none, it is not of torchtitan 0.2.2, or the model is not Llama 3.
    """
    config = load_config(arguments)
    attention = next(iter(config.model_spec.model.traverse(FusedQKVLinear.Config)), None)
    if config.model_spec.name != "llama3" or attention is None:
        raise UserError(f"only checkpoints of llama3 can be converted, and this is {config.model_spec.name}")
    folder = Path(config.dump_folder, config.checkpoint.folder)
    aside = folder.with_name(f"{folder.name}-0.2")
    if (placed := put_in_place(folder, aside)) is not None:  # an earlier conversion was killed
        return placed, aside / placed.name
    found = checkpoints(folder)
    if not found:
        raise UserError(f"there is no checkpoint in {folder}")
    newest = found[max(found)]
    state = read(newest)
    if OLD_OUTPUT not in state:
        raise UserError(f"{newest} is no checkpoint of Llama 3 by torchtitan 0.2.2: it has no {OLD_OUTPUT}")
    kept, new = aside / newest.name, aside / f"{newest.name}{NEW}"
    if kept.exists():
        raise UserError(f"{kept} is in the way: an older conversion has put a checkpoint there")
    save(with_new_names(state, attention[1].head_dim), checkpoint_id=new, no_dist=True)
    newest.rename(kept)
    new.rename(newest)
    return newest, kept


def read(checkpoint: Path) -> dict[str, Any]:
    """All that a distributed checkpoint holds, by the names in its files."""
    entries = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state: dict[str, Any] = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        if isinstance(entry, TensorStorageMetadata)
        else None
        for name, entry in entries.items()
    }
    load(state, checkpoint_id=checkpoint, no_dist=True)
    return state


def with_new_names(state: dict[str, Any], head_dim: int) -> dict[str, Any]:
    """The state of a run under the names of torchtitan 0.3.

    Args:
        state: as torchtitan 0.2.2 names it.
        head_dim: width of an attention head.
    """
    found = {}
    for old, value in state.items():
        name = re.sub(r"(^|\.)output\.weight", r"\1lm_head.weight", old)
        if not name.startswith("optimizer."):
            found[re.sub(r"\.attention\.(w[qkv])\.", r".attention.qkv_linear.\1.", name)] = value
        elif ".attention.wq." in name:
            parts = [state[name.replace(".wq.", f".{part}.")] for part in ("wq", "wk", "wv")]
            found[name.replace(".wq.", ".qkv_linear.wqkv.")] = _in_one(parts, head_dim)
        elif not re.search(r"\.attention\.w[kv]\.", name):
            found[name] = value
    return found


def _in_one(parts: list[Any], head_dim: int) -> Any:
    """What the optimizer keeps of queries, keys and values; one number or setting is the same for all.

    torchtitan 0.3 has the rows of each key's head together: those of its queries, of the key, of the value.
    """
    queries, keys, _ = parts
    if not isinstance(queries, torch.Tensor) or queries.ndim == 0:
        return queries
    num_heads, width = len(keys) // head_dim, queries.shape[1]
    return torch.cat([part.reshape(num_heads, -1, width) for part in parts], dim=1).reshape(-1, width)
