"""From the command line to a trainer: read the config, check it, train, end with one line if it is wrong."""

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.rendezvous import rendezvous
from torchtitan.tools.logging import init_logger, logger

from titan_aioli.errors import RanksDisagree, UserError
from titan_aioli.hosts.stopping import exit_status, stopped_line
from titan_aioli.hosts.titan.checks import Checked
from titan_aioli.runs.checkpoints import checkpoints

ERROR_TIMEOUT = timedelta(seconds=15)
"""How long a rank that fails keeps running so that slower ranks can say their own error."""
OUTPUT_LAYER = {"output.weight": "0.2", "lm_head.weight": "0.3"}
"""Name of the last weights in a checkpoint of each torchtitan."""
WAIT_FOR_FIRST = timedelta(seconds=4)
"""How long another rank waits for rank 0 to say the same."""


def launch_with(
    check_config: Callable[[list[str], int], Checked],
    trainer_class: Any,
    args: list[str],
    doubtful: Callable[[Checked], Iterable[str]] = lambda checked: (),
) -> int:
    """Train by the arguments, and return the exit status.

    Rank 0 first logs what is `doubtful` about the run.

    Args:
        check_config: reads and checks a config, as the host of the installed torchtitan does.
        trainer_class: built from the config.
        args: of `python -m titan_aioli.train`.
        doubtful: lines about a config that a run accepts and is hardly meant to.

    Errors that the user can fix print one line, and the exit status is 2; TITAN_AIOLI_TRACEBACK=1 shows where
    they were raised. A run that a signal stops exits as `stopping.exit_status` says.
    """
    init_logger()
    try:
        checked = check_config(args, int(os.environ.get("WORLD_SIZE", "0")))
        for line in doubtful(checked) if os.environ.get("RANK", "0") == "0" else ():
            logger.warning(f"mixing: {line}")
        return exit_status(_run(trainer_class, checked))
    except (UserError, RanksDisagree) as error:
        if os.environ.get("TITAN_AIOLI_TRACEBACK"):
            traceback.print_exc()
        _say(str(error))
        return 2


def _say(message: str) -> None:
    """Print an error in one line, once however many ranks have it, and wait for the ranks that have another.

    Rank 0 prints what it has, since torchrun may be told to show its output alone; another rank prints what
    rank 0 does not have. torchrun ends the other ranks when the first one exits, so none exits before all
    have said theirs. Where only this rank has failed, the others say nothing: it waits for ERROR_TIMEOUT at
    most.
    """
    rank, num_ranks = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    store = _shared_store() if num_ranks > 1 else None
    prefix = f"titan_aioli/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    digest = blake2b(message.encode(), digest_size=8).hexdigest()
    try:
        if store is None or _is_to_say(store, f"{prefix}/said/{digest}", is_first=rank == "0"):
            # In one piece: `print` writes the end of the line by itself, and ranks share one stream.
            sys.stderr.write(f"titan_aioli: error: {message} [rank {rank}]\n")
            sys.stderr.flush()
        if store is not None:
            if store.add(f"{prefix}/have_said", 1) == num_ranks:
                store.set(f"{prefix}/all_have_said", "")
            store.wait([f"{prefix}/all_have_said"], ERROR_TIMEOUT)
    except (RuntimeError, ValueError):  # the time is over, or whoever keeps the store has gone
        pass


def _is_to_say(store: Any, key: str, is_first: bool) -> bool:
    """Whether this rank is the one that prints a message; others wait a moment for the first."""
    if not is_first:
        with suppress(RuntimeError):
            store.wait([f"{key}/first"], WAIT_FOR_FIRST)
            return False
    else:
        store.set(f"{key}/first", "")
    return is_first or store.add(key, 1) == 1


def _shared_store() -> Any:
    """The key-value store of the ranks; None where it cannot be reached."""
    try:
        if dist.is_initialized():
            return dist.distributed_c10d._get_default_store()
        return next(rendezvous("env://", timeout=ERROR_TIMEOUT))[0]
    except (RuntimeError, ValueError):
        return None


def _run(trainer_class: Any, checked: Checked) -> int:
    """Train; the number of the signal that stopped it, or 0."""
    trainer, config = None, checked.config
    try:
        trainer = trainer_class(config)
        if config.checkpoint.create_seed_checkpoint:
            trainer.checkpointer.save(curr_step=0, last_step=True)
            logger.info("Created seed checkpoint")
        else:
            trainer.train()
            if trainer.stopped_by and config.checkpoint.enable:
                trainer.wait_for_checkpoint()
    except BaseException as error:
        if trainer:
            trainer.close()
        folder = checked.folder / config.checkpoint.folder
        explanation = None if isinstance(error, UserError) else explain(error, folder)
        if explanation:
            raise UserError(explanation) from error
        raise
    trainer.close()
    if trainer.stopped_by:
        logger.warning(stopped_line(trainer.stopped_by, trainer.step, config.checkpoint.enable))
    if dist.is_initialized():
        dist.destroy_process_group()
    return trainer.stopped_by


def explain(error: BaseException, folder: Path) -> str | None:
    """One line that says what failed and what to do; None for what only a developer can fix.

    Args:
        error: raised while a trainer was built or trained.
        folder: of the checkpoints.
    """
    if "Missing key in checkpoint state_dict: mixture" in str(error):
        return (
            "the checkpoint has no mixture state: it was written by a plain torchtitan run, or as a last "
            "checkpoint with checkpoint.last_save_model_only = true. To begin mixing from its weights, "
            "add --checkpoint.exclude_from_loading mixture,dataloader"
        )
    if "Missing key in checkpoint state_dict" in str(error) and (written := _other_version(folder)):
        remedy = "" if written != "0.2" else "run `titan-aioli convert-checkpoint` (Llama 3), or "
        return (
            f"the checkpoint in {folder} was written with torchtitan {written}, whose weights have other "
            f"names than those of torchtitan {version('torchtitan')}: {remedy}continue it with that one, or "
            "start a new run in another job.dump_folder"
        )
    if isinstance(error, CheckpointException):
        rank, (cause, _) = next(iter(error.failures.items()))
        return (
            f"a checkpoint in {folder} could not be written or read (rank {rank}: {_one_line(cause)}); "
            f"{_free(folder)} there. If the disk is full, free space and start again: the run resumes from "
            "its last whole checkpoint. If a checkpoint is damaged, remove its folder, or name an earlier "
            "one with --checkpoint.load_step"
        )
    if not isinstance(error, OSError) or isinstance(error, ConnectionError) or not error.filename:
        return None
    path = Path(os.fsdecode(error.filename))
    return (
        f"{path}: {error.strerror} ({_free(path)}): once that is fixed, start again: the run resumes from "
        "its last checkpoint"
    )


def _other_version(folder: Path) -> str | None:
    """The torchtitan that wrote the newest checkpoint, if it is not the one that is installed."""
    found = checkpoints(folder)
    if not found:
        return None
    try:
        names = FileSystemReader(found[max(found)]).read_metadata().state_dict_metadata
    except Exception:  # whatever is wrong with it is not this
        return None
    written = next((v for name, v in OUTPUT_LAYER.items() if name in names), None)
    return written if written and not version("torchtitan").startswith(written) else None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _free(path: Path) -> str:
    """The room on the file system of a path, which need not exist."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 1e6:.1f} MB are free"
