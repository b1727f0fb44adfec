"""What an error of torch, torchtitan or the system means for the user, in one line, where that is known."""

import os
import shutil
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException


def explain(error: BaseException, config: Any) -> str | None:
    """One line that says what failed and what to do; None for what nobody but a developer can mend.

    Args:
        error: raised while a trainer was built or trained.
        config: torchtitan's JobConfig.
    """
    folder = Path(config.job.dump_folder) / config.checkpoint.folder
    if "Missing key in checkpoint state_dict: mixture" in str(error):
        return (
            "the checkpoint has no mixture state: it was written by a plain torchtitan run, or as a last "
            "checkpoint with checkpoint.last_save_model_only = true. To begin mixing from its weights, "
            "add --checkpoint.exclude_from_loading mixture,dataloader"
        )
    if isinstance(error, CheckpointException):
        rank, (cause, _) = next(iter(error.failures.items()))
        return (
            f"a checkpoint in {folder} could not be written or read (rank {rank}: {_one_line(cause)}); "
            f"{_free(folder)} there. If the disk is full, free space and start again: the run goes on from "
            "its last whole checkpoint. If a checkpoint is damaged, remove its folder, or name an earlier "
            "one with --checkpoint.load_step"
        )
    if not isinstance(error, OSError) or isinstance(error, ConnectionError) or not error.filename:
        return None
    path = Path(os.fsdecode(error.filename))
    return (
        f"{path}: {error.strerror} ({_free(path)}): once that is mended, start again: the run goes on from "
        "its last checkpoint"
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _free(path: Path) -> str:
    """The room on the file system of a path, which need not exist."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 1e6:.1f} MB are free"
