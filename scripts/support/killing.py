"""A tiny run that is killed at random moments and started again; for soak.py and the tests."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from titan_aioli.stores.megatron import MegatronWriter

CONFIG = Path(__file__).parent.parent / "titan_aioli" / "testing" / "tiny.toml"
FLAGS = (
    *(
        "--training.local_batch_size",
        "2",
        "--checkpoint.interval",
        "5",
        "--mixing.aioli.steps_per_round",
        "15",
    ),
    "--metrics.no-enable-tensorboard",
)
MARK = "soak"
"""File that marks a folder as one of ours."""
GIVE_UP_SECONDS = 300


class Kill(NamedTuple):
    """When and what to kill."""

    moment: str
    """start: some time after the launch; step: some time after `step`; checkpoint: while one is written."""
    step: int
    delay: float
    """Seconds after the moment."""
    victims: str
    """one: a rank; all: every rank; torchrun: it and every rank."""


def draw_kill(rng: random.Random, step: int, steps_per_kill: int, steps: int) -> Kill:
    """A kill some steps after `step`, and before the run of `steps` steps is over."""
    moment = rng.choices(["start", "step", "checkpoint"], [0.1, 0.5, 0.4])[0]
    step = min(step + rng.randint(1, 2 * steps_per_kill), steps - 2)
    if step > steps - 10:
        moment = "step"  # there may be no checkpoint any more that this run waits for
    delay = rng.uniform(0, {"start": 6.0, "step": 0.06, "checkpoint": 0.01}[moment])
    victims = rng.choice(["one", "all", "torchrun"])
    return Kill(moment, step, delay, victims)


def make_stores(folder: Path) -> Path:
    """Three groups of counting documents."""
    rng = np.random.default_rng(0)
    for name, low, high in (("a", 0, 60), ("b", 40, 160), ("c", 150, 256)):
        for split, count in (("train", 40), ("validation", 8), ("test", 6)):
            with MegatronWriter(folder / name / split, np.uint16) as writer:
                for _ in range(count):
                    start, stride = rng.integers(0, high - low), rng.integers(1, 4)
                    writer.add(((start + np.arange(300) * stride) % (high - low) + low).astype(np.uint16))
    return folder


class Soak:
    """One run in a folder, started again and again."""

    def __init__(self, folder: Path, steps: int):
        self.folder, self.steps, self.run = folder, steps, folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self.stores = make_stores(folder / "stores")
        (folder / MARK).touch()

    def words(self, num_ranks: int, *flags: str) -> list[str]:
        """The command of a start."""
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(num_ranks)),
            *("--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "titan_aioli.train"),
            *("--job.config_file", str(CONFIG), "--job.dump_folder", str(self.run), *FLAGS),
            *("--mixing.stores", str(self.stores), "--training.steps", str(self.steps), *flags),
        ]

    def start(self, words: list[str]) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with open(self.folder / "log.txt", "w") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def step(self) -> int:
        """The last step whose rows were drawn."""
        try:
            with open(self.run / "rows.csv", "rb") as file:
                file.seek(max(0, os.path.getsize(self.run / "rows.csv") - 200))
                lines = file.read().split(b"\n")
            return int(lines[-2].split(b",")[1]) + 1
        except (OSError, IndexError, ValueError):
            return 0

    def checkpoints(self, is_whole: bool) -> list[Path]:
        """Checkpoint folders, oldest first: those that are whole, or those under way."""
        found = [p for p in self.run.glob("checkpoint/step-*") if (p / ".metadata").exists() == is_whole]
        return sorted(found, key=lambda path: int(path.name.split("-")[1]))

    def saved_step(self) -> int:
        whole = self.checkpoints(is_whole=True)
        return int(whole[-1].name.split("-")[1]) if whole else 0

    def wait(self, process: subprocess.Popen, kill: Kill | None, bar: tqdm, rng: random.Random) -> bool:
        """Until the start ends, by itself or by the kill; whether it was killed."""
        begun = time.monotonic()
        known = set(self.checkpoints(is_whole=False))
        while process.poll() is None:
            assert time.monotonic() - begun < GIVE_UP_SECONDS, f"no end:\n{self.log()[-3000:]}"
            if self.step() > bar.n:
                bar.update(self.step() - bar.n)
            if kill is not None and self._is_time(kill, begun, known):
                time.sleep(kill.delay if kill.moment != "start" else 0)
                if kill_ranks(process, kill.victims, rng):
                    process.wait(GIVE_UP_SECONDS)
                    return True
            time.sleep(0.002)
        return False

    def _is_time(self, kill: Kill, begun: float, known: set[Path]) -> bool:
        if kill.moment == "start":
            return time.monotonic() - begun > kill.delay
        if kill.moment == "step":
            return self.step() >= kill.step
        return self.step() >= kill.step and any(p not in known for p in self.checkpoints(is_whole=False))


def kill_ranks(process: subprocess.Popen, victims: str, rng: random.Random) -> bool:
    """SIGKILL for torchrun's ranks, as `victims` says; False if there is none to kill yet."""
    ranks = children(process.pid)
    if not ranks:
        return False
    chosen = [rng.choice(ranks)] if victims == "one" else ranks
    for pid in [process.pid] * (victims == "torchrun") + chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return True


def children(parent: int) -> list[int]:
    """Process ids of the direct children, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
