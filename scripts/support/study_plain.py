"""The study's runs without torchtitan: its config trained by the plain host, in a fraction of the time.

Of the config it reads what the study writes. The model has learned positions instead of rotary ones, and
gradients are not clipped; optimizer and schedule are those of the config, with torchtitan's defaults.

    python -m scripts.support.study_plain --job.config_file CONFIG [--job.dump_folder FOLDER]
"""

import argparse
import math
from pathlib import Path

import torch

from titan_aioli.config.read import read_mixing
from titan_aioli.files import read_toml
from titan_aioli.hosts.plain.loop import Schedule, train
from titan_aioli.hosts.plain.model import Transformer

from .study_data import VOCAB_SIZE


def warmup_and_cosine(step: int, steps: int, warmup: int, least: float) -> float:
    """Factor of the learning rate in step number `step`, counted from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))


def train_config(path: Path, folder: Path) -> None:
    """Train the config of one run; its files go into the folder."""
    config, mixing = read_toml(path), read_mixing(path)
    training, rate = config["training"], config["lr_scheduler"]
    steps, seq_len, batch_size = training["steps"], training["seq_len"], training["local_batch_size"]
    torch.manual_seed(config["debug"]["seed"])
    model = Transformer(VOCAB_SIZE, seq_len)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["optimizer"]["lr"], betas=(0.9, 0.95), weight_decay=0.1
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: warmup_and_cosine(step, steps, rate["warmup_steps"], rate["min_lr_factor"]),
    )
    schedule = Schedule(steps, seq_len, batch_size, batch_size, config["metrics"]["log_freq"])
    train(model, optimizer, mixing, folder, schedule, lr_scheduler=scheduler, vocab_size=VOCAB_SIZE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job.config_file", dest="config", type=Path, required=True)
    parser.add_argument("--job.dump_folder", dest="folder", type=Path, help="default: the config's")
    parser.add_argument("--checkpoint.no-enable", action="store_true", help="it keeps none")
    args = parser.parse_args()
    train_config(args.config, args.folder or Path(read_toml(args.config)["job"]["dump_folder"]))
