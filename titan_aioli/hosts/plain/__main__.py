"""Train a small model on the mixture of a TOML file, without torchtitan.

    python -m titan_aioli.hosts.plain train_configs/debug_aioli.toml --folder outputs/plain
    torchrun --nproc_per_node=2 -m titan_aioli.hosts.plain CONFIG.toml --folder outputs/plain

Reads `[mixing]`, and of `[training]` steps, seq_len and the batch sizes. Killed and restarted, it resumes.
"""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import tyro
from torch.nn.parallel import DistributedDataParallel

from titan_aioli.config.read import read_mixing
from titan_aioli.errors import UserError
from titan_aioli.files import read_toml
from titan_aioli.hosts.plain.loop import Schedule, train
from titan_aioli.hosts.plain.model import Transformer


def main(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    folder: Path,
    steps: int = 0,
    method: str = "",
    stores: str = "",
    vocab_size: int = 4096,
    learning_rate: float = 2e-3,
    save_freq: int = 60,
    seed: int = 0,
) -> None:
    """Train a 2-layer transformer on CPU on the mixture of a config.

    Args:
        config: TOML file with `[mixing]` and `[training]`.
        folder: where the run leaves its checkpoint, its ledger and its results.
        steps: optimizer steps. 0: those of the config.
        method: in place of the config's mixing.method.
        stores: in place of the config's mixing.stores.
        vocab_size: of the model; at least that of the stores.
        learning_rate: of AdamW, constant.
        save_freq: steps between two checkpoints.
        seed: of the initial weights.
    """
    mixing = read_mixing(config)
    mixing.method, mixing.stores = method or mixing.method, stores or mixing.stores
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    schedule = read_schedule(read_toml(config).get("training", {}), num_ranks, steps, save_freq)
    if num_ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(seed)
    model = Transformer(vocab_size, schedule.seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    wrapped = DistributedDataParallel(model) if num_ranks > 1 else model
    train(wrapped, optimizer, mixing, folder, schedule, vocab_size=vocab_size)


def read_schedule(training: Any, num_ranks: int, steps: int = 0, save_freq: int = 0) -> Schedule:
    """How long to train, and in which batches.

    Args:
        training: the config's `[training]`. A negative global_batch_size is one micro-batch of every rank.
        num_ranks: data-parallel ranks.
        steps: in place of the config's. 0: those of the config.
        save_freq: steps between two checkpoints.
    Raises: UserError: names what is not a number of steps, tokens or sequences.
    """
    if not isinstance(training, dict):
        raise UserError(f"training is {training!r}: it must be a table, [training]")
    defaults = {"steps": 100, "seq_len": 128, "local_batch_size": 8, "global_batch_size": -1}
    numbers = {**defaults, **{key: training[key] for key in defaults if key in training}}
    numbers["steps"] = steps or numbers["steps"]
    for key, value in numbers.items():
        may_be_negative = key == "global_batch_size"
        if type(value) is not int or value == 0 or (value < 0 and not may_be_negative):
            allowed = "at least 1" + ", or -1 for one micro-batch of every rank" * may_be_negative
            raise UserError(f"training.{key} is {value!r}: it must be a whole number, {allowed}")
    if (batch_size := numbers["global_batch_size"]) < 0:
        batch_size = numbers["local_batch_size"] * num_ranks
    return Schedule(
        num_steps=numbers["steps"],
        seq_len=numbers["seq_len"],
        batch_size=batch_size,
        local_batch_size=numbers["local_batch_size"],
        save_freq=save_freq,
    )


def command(words: list[str] | None = None) -> None:
    """Run `main`; what the user can fix is one line and exit status 2, without a traceback.

    TITAN_AIOLI_TRACEBACK=1 shows where it was raised.

    Args:
        words: the command line without the program's name. Default: this process's.
    """
    try:
        tyro.cli(main, args=words, config=(tyro.conf.FlagConversionOff,))
        if dist.is_initialized():
            dist.destroy_process_group()  # after the model is gone: DDP's destructor hangs without the group
    except (ValueError, OSError) as error:
        if os.environ.get("TITAN_AIOLI_TRACEBACK"):
            traceback.print_exc()
        print(f"titan_aioli: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    command()
