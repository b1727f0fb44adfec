"""From the command line to a trainer: read the config, check it, train, end with one line if it is wrong."""

import os
import sys
import traceback
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torchtitan.tools.logging import init_logger, logger

from titan_aioli.errors import RanksDisagree, UserError
from titan_aioli.hosts.titan02.explain import explain
from titan_aioli.hosts.titan02.job import check_config

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
