"""A training run of one process, as the studies make them: its config, its log, its results in one folder."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def train_one_rank(folder: Path, config: str) -> None:
    """Train a config in its folder, unless it holds a finished run already.

    Raises: RuntimeError: the run failed; its log is named.
    """
    if (folder / "results.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config)
    command = [sys.executable, "-m", "titan_aioli.train", "--job.config_file", str(folder / "config.toml")]
    command += ["--job.dump_folder", str(folder), "--checkpoint.no-enable"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **rank_environment()}
    with open(folder / "log.txt", "w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{folder} failed, see {folder / 'log.txt'}")


def rank_environment() -> dict[str, str]:
    """What torchrun would tell the only rank of a run, with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return {**rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
