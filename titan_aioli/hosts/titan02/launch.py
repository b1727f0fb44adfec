"""From the command line to a trainer: read the config, check it, train, end with one line if it is wrong."""

import contextlib
import io
import os
import re
import sys
import traceback
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torchtitan.config import ConfigManager
from torchtitan.tools.logging import init_logger, logger

from titan_aioli.commands.check.command import check_config
from titan_aioli.config import check_mixing_keys
from titan_aioli.errors import RanksDisagree, UserError
from titan_aioli.hosts.titan02.explain import explain
from titan_aioli.hosts.titan02.spec import register_mixing_spec, vocab_size

CONFIG_MODULE = "titan_aioli.config"
LAST_WORDS = timedelta(seconds=15)


def launch(trainer_class: Any, args: list[str]) -> int:
    """Train as the arguments say; the exit status.

    What is the user's to mend is said in one line on every rank and exits with 2; TITAN_AIOLI_TRACEBACK=1
    shows where it was raised.
    """
    init_logger()
    try:
        config = check_config(args, int(os.environ.get("WORLD_SIZE", "0"))).config
        _run(trainer_class, config)
    except (UserError, RanksDisagree) as error:
        if os.environ.get("TITAN_AIOLI_TRACEBACK"):
            traceback.print_exc()
        rank = os.environ.get("RANK", "0")
        # In one piece: `print` writes the end of the line by itself, and ranks share one stream.
        sys.stderr.write(f"titan_aioli: error: {error} [rank {rank}]\n")
        sys.stderr.flush()
        _wait_until_all_ranks_have_spoken()
        return 2
    return 0


def _wait_until_all_ranks_have_spoken() -> None:
    """torchrun ends the other ranks when the first one exits, so none exits before all have said their error.

    Where the fault is of this rank alone, the others have nothing to say: it waits for LAST_WORDS at most.
    """
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks == 1:
        return
    try:
        if dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
        else:
            store, _, _ = next(rendezvous("env://", timeout=LAST_WORDS))
        if store.add("titan_aioli/have_spoken", 1) == num_ranks:
            store.set("titan_aioli/all_have_spoken", "")
        store.wait(["titan_aioli/all_have_spoken"], LAST_WORDS)
    except (RuntimeError, ValueError):  # the time is over, or whoever keeps the store has gone
        pass


def load_config(args: list[str]) -> Any:
    """torchtitan's JobConfig with our `[mixing]`, from a TOML file and flags.

    Raises: UserError: the file is missing or not TOML, or a key is unknown.
    """
    if not any("custom_config_module" in arg.replace("-", "_") for arg in args):
        args = [*args, f"--job.custom_config_module={CONFIG_MODULE}"]
    check_mixing_keys(args)
    config = _parse(args)
    try:
        register_mixing_spec(config.model.name)
        vocab_size(config)
    except ValueError as error:
        raise UserError(f"model.name is {config.model.name!r}: {error}") from None
    except KeyError:
        raise UserError(
            f"model.flavor is {config.model.flavor!r}: model {config.model.name} has no such flavor"
        ) from None
    _check_layout(config)
    return config


def _parse(args: list[str]) -> Any:
    """torchtitan's JobConfig; what the parser of the flags writes about a bad one becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return ConfigManager().parse_args(args)
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UserError(_short_complaint(complaint.getvalue())) from None


def _short_complaint(text: str) -> str:
    """The first sentence in the box that tyro draws about a bad flag, and the flag that may be meant."""
    _, _, text = text.partition("\n")  # the box's title
    text = " ".join(re.sub(r"\x1b\[[\d;]*m|[^\x00-\x7f]+", " ", text).split())
    meant = re.search(r"Perhaps you meant: (--\S+)", text)
    sentence = re.split(r"Perhaps you meant|Argument helptext|For full helptext", text)[0].strip()
    return f"{sentence} (perhaps {meant[1]} is meant)" if meant else sentence


def _check_layout(config: Any) -> None:
    """Refuse what torchtitan 0.2.2 silently gets wrong.

    Raises: UserError: names the settings and what to change.
    """
    tensor_parallel = config.parallelism.tensor_parallel_degree > 1
    if config.compile.enable and tensor_parallel and torch.__version__.startswith("2.13."):
        raise UserError(
            "compile.enable with parallelism.tensor_parallel_degree above 1 gives wrong losses and gradients "
            "on torch 2.13 (a compiled graph of one rank is reused by another): set compile.enable = false, "
            "or use torch 2.11"
        )


def _run(trainer_class: Any, config: Any) -> None:
    trainer = None
    try:
        trainer = trainer_class(config)
        if config.checkpoint.create_seed_checkpoint:
            trainer.checkpointer.save(curr_step=0, last_step=True)
            logger.info("Created seed checkpoint")
        else:
            trainer.train()
    except BaseException as error:
        if trainer:
            trainer.close()
        explanation = None if isinstance(error, UserError) else explain(error, config)
        if explanation:
            raise UserError(explanation) from error
        raise
    trainer.close()
    if dist.is_initialized():
        dist.destroy_process_group()
