"""Starts training ranks by fork, from a process that has imported torchtitan.

The imports are most of what a short run costs. What torchrun does by itself (restarts, signals, more nodes)
needs `torchrun.py`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from titan_aioli.testing.torchrun import TINY, environment


def fork_ranks(
    num_ranks: int,
    *args: object,
    module: str = "titan_aioli.train",
    config: Path = TINY,
    timeout: float = 240,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """A finished training run, with all that its ranks printed; it may have failed.

    Args:
        num_ranks: processes to start.
        *args: of the training run.
        module: what every rank executes, as `python -m` would.
        config: its `--job.config_file`.
        timeout, variables: as in `fork_module`.
    """
    return fork_module(num_ranks, module, "--job.config_file", config, *args, timeout=timeout, **variables)


def fork_module(
    num_ranks: int, module: str, *args: object, timeout: float = 240, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Finished ranks of this machine, with all they printed; they may have failed.

    Once a rank has failed, the others are ended, as torchrun does; its exit status is that of all, negative
    where a signal killed it.

    Args:
        num_ranks: processes to start.
        module: what every rank executes, as `python -m` would.
        *args: of the module.
        timeout: seconds after which they are killed.
        **variables: of their environment.
    Raises: subprocess.TimeoutExpired: they took longer.
    """
    words = [module, *map(str, args)]
    # As torchrun does, this process keeps the ranks' store.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(num_ranks)}
    rendezvous |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    _start_server()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        shared = (words, environment(**rendezvous, **variables), streams)
        ranks: Any = start_processes(_be_rank, shared, num_ranks, join=False, start_method="forkserver")
        try:
            status, failure = _wait(ranks, time.monotonic() + timeout)
        finally:
            for process in ranks.processes:
                process.kill()
        stdout, stderr = (path.read_text() if path.exists() else "" for path in streams)
    if status is None:
        raise subprocess.TimeoutExpired(words, timeout, stdout, stderr)
    return subprocess.CompletedProcess(words, status, stdout, stderr + failure)


def train(
    folder: Path, stores: Path, num_ranks: int, *args: object, **kwargs
) -> subprocess.CompletedProcess[str]:
    """Train the tiny model into a folder; fails with the ranks' output if it does not succeed.

    Args:
        folder: dump folder of the run.
        stores: token stores of its groups, as `write_stores` makes them.
        num_ranks, args, kwargs: as in `fork_ranks`.
    """
    done = fork_ranks(num_ranks, "--job.dump_folder", folder, "--mixing.stores", stores, *args, **kwargs)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


@cache
def _start_server() -> None:
    """Start the process that ranks are forked from, once; it ends with this one."""
    multiprocessing.set_forkserver_preload(["titan_aioli.train"])
    with patch.dict(os.environ, environment()):
        forkserver.ensure_running()


def _wait(ranks: ProcessContext, deadline: float) -> tuple[int | None, str]:
    """Status of the first rank that failed (1: it raised), and why; 0: all ended well, None: time is over."""
    try:
        while time.monotonic() < deadline:
            if ranks.join(timeout=1):
                return 0, ""
    except ProcessException as failed:
        return getattr(failed, "exit_code", 1), f"{failed}\n"
    return None, ""


def _be_rank(rank: int, words: list[str], variables: dict[str, str], streams: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
