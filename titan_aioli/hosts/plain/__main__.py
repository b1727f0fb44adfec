"""Train a small model on the mixture of a TOML file, without torchtitan.

    python -m titan_aioli.hosts.plain train_configs/debug_aioli.toml --folder outputs/plain
    torchrun --nproc_per_node=2 -m titan_aioli.hosts.plain CONFIG.toml --folder outputs/plain

Reads `[mixing]`, and of `[training]` steps, seq_len and the batch sizes. Killed and restarted, it resumes.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

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
    mixing, training = read_mixing(config), read_toml(config).get("training", {})
    mixing.method, mixing.stores = method or mixing.method, stores or mixing.stores
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks > 1:
        dist.init_process_group("gloo")
    local_batch_size = training.get("local_batch_size", 8)
    schedule = Schedule(
        num_steps=steps or training.get("steps", 100),
        seq_len=training.get("seq_len", 128),
        batch_size=training.get("global_batch_size", local_batch_size * num_ranks),
        local_batch_size=local_batch_size,
        save_freq=save_freq,
    )
    torch.manual_seed(seed)
    model = Transformer(vocab_size, schedule.seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    wrapped = DistributedDataParallel(model) if num_ranks > 1 else model
    train(wrapped, optimizer, mixing, folder, schedule, vocab_size=vocab_size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    try:
        tyro.cli(main, config=(tyro.conf.FlagConversionOff,))
        if dist.is_initialized():
            dist.destroy_process_group()  # after the model is gone: DDP's destructor hangs without the group
    except UserError as error:
        sys.exit(f"titan_aioli: error: {error}")
