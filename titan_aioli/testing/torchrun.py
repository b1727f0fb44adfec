"""Starts real training ranks with torchrun, as a user would, and reads what they left."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TINY = Path(__file__).with_name("tiny.toml")
"""Config of the tiny Aioli run that tests and scripts train: 20 steps of 8 rows, three groups."""
ANY_PORT = ("--rdzv_endpoint", "localhost:0")


def command(
    num_ranks: int,
    *args: object,
    module: str = "titan_aioli.train",
    config: Path = TINY,
    launcher: Sequence[str] = (),
) -> list[str]:
    """The words of a torchrun.

    Args:
        num_ranks: processes that this torchrun starts.
        *args: of the training run.
        module: what every rank executes, as `python -m` would.
        config: its `--job.config_file`.
        launcher: torchrun's own flags; by default ranks of one machine that meet at a free port.
    """
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(num_ranks)),
        *("--rdzv_backend", "c10d", *(launcher or ANY_PORT)),
        *("-m", module, "--job.config_file", str(config), *map(str, args)),
    ]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment for training processes that share a small machine, and `variables`."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **variables}


def rank_environment() -> dict[str, str]:
    """What torchrun would tell the only rank of a run, with a free port."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return {**rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(
    words: Sequence[str], log: Path, cwd: Path | None = None, **variables: str
) -> subprocess.Popen[bytes]:
    """A process of these words that has just started; all it prints goes to the file `log`.

    Args:
        words: of `command`, or of any other program.
        log: emptied first; its folder is made.
        cwd: the folder it runs in.
        **variables: of its environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        return subprocess.Popen(
            words, env=environment(**variables), stdout=file, stderr=subprocess.STDOUT, cwd=cwd
        )


def torchrun(
    num_ranks: int,
    *args: object,
    module: str = "titan_aioli.train",
    config: Path = TINY,
    timeout: float = 240,
    launcher: Sequence[str] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """The finished process of a torchrun, with all it printed; it may have failed.

    Args:
        num_ranks, args, module, config, launcher: as in `command`.
        timeout: seconds after which it is killed.
        **variables: of its environment.
    Raises: subprocess.TimeoutExpired: it took longer.
    """
    return subprocess.run(
        command(num_ranks, *args, module=module, config=config, launcher=launcher),
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of everything a run decides and measures, by name of the file."""
    names = ("ledger.jsonl", "rows.csv", "losses.jsonl", "results.json")
    return {name: (folder / name).read_bytes() for name in names}


def train_losses(folder: Path) -> dict[str, str]:
    """The last training loss that a trainer of the tests wrote for each step: {step: loss}, as written."""
    return dict(line.split() for line in (folder / "train_losses.txt").read_text().splitlines())
