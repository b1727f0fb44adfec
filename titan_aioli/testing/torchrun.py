"""Starts real training ranks with torchrun, as a user would, and reads what they left."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).with_name("tiny.toml")


def command(num_ranks, *args, module="titan_aioli.train", config=TINY, launcher=()):
    """The words of a torchrun; `launcher`: torchrun's flags."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(num_ranks)),
        *("--rdzv_backend", "c10d"),
        *(launcher or ("--rdzv_endpoint", "localhost:0")),
        *("-m", module, "--job.config_file", str(config), *map(str, args)),
    ]


def environment(**env):
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **env}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(num_ranks, *args, module="titan_aioli.train", config=TINY, timeout=240, launcher=(), **env):
    """The finished process."""
    return subprocess.run(
        command(num_ranks, *args, module=module, config=config, launcher=launcher),
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def train(folder, stores, num_ranks, *args, **kwargs):
    """Train the tiny model into a folder; fails with the ranks' output if it does not succeed."""
    done = torchrun(num_ranks, "--job.dump_folder", folder, "--mixing.stores", stores, *args, **kwargs)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


def files(folder):
    """The bytes of everything a run decides and measures."""
    names = ("ledger.jsonl", "rows.csv", "losses.jsonl", "results.json")
    return {name: (Path(folder) / name).read_bytes() for name in names}


def train_losses(folder):
    """The last training loss that killing_train.py wrote for each step."""
    return dict(line.split() for line in (Path(folder) / "train_losses.txt").read_text().splitlines())
