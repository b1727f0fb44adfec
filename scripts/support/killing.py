"""A tiny run that is killed at random moments and restarted; for soak.py and the tests."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from titan_aioli.testing.stores import write_stores
from titan_aioli.testing.torchrun import command, start

FLAGS = (
    *("--training.local_batch_size", "2", "--checkpoint.interval", "5"),
    *("--mixing.aioli.steps_per_round", "15", "--metrics.no-enable-tensorboard"),
)
MARK = "soak"
"""Name of the file that marks a folder as one of ours."""
GIVE_UP_SECONDS = 300


class Kill(NamedTuple):
    """When and what to kill."""

    moment: str
    """What comes before the delay: "start", the launch; "step", that step; "checkpoint", the beginning of the
    first checkpoint after that step."""
    step: int
    delay: float
    """Seconds between the moment and the kill."""
    victims: str
    """Processes that get the signal: "one" rank, "all" ranks, or "torchrun" and all ranks."""


def draw_kill(rng: random.Random, step: int, steps_per_kill: int, steps: int) -> Kill:
    """A kill some steps after `step`, and before the run of `steps` steps is over."""
    moment = rng.choices(["start", "step", "checkpoint"], [0.1, 0.5, 0.4])[0]
    step = min(step + rng.randint(1, 2 * steps_per_kill), steps - 2)
    if step > steps - 10:
        moment = "step"  # there may be no checkpoint any more that this run waits for
    delay = rng.uniform(0, {"start": 6.0, "step": 0.06, "checkpoint": 0.01}[moment])
    victims = rng.choice(["one", "all", "torchrun"])
    return Kill(moment, step, delay, victims)


class Soak:
    """One run in a folder, started again and again."""

    def __init__(self, folder: Path, steps: int):
        self.folder, self.steps, self.run = folder, steps, folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self.stores = write_stores(folder / "stores")
        (folder / MARK).touch()

    def words(self, num_ranks: int, *flags: str) -> list[str]:
        """The command of a start."""
        where = ("--job.dump_folder", self.run, "--mixing.stores", self.stores)
        return command(num_ranks, *where, *FLAGS, "--training.steps", self.steps, *flags)

    def start(self, words: list[str]) -> subprocess.Popen[bytes]:
        """A start that has begun; what it prints replaces the log of the one before."""
        return start(words, self.folder / "log.txt")

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


def train_and_kill(
    soak: Soak, kills: int, steps_per_kill: int, degrees: dict[int, float], rng: random.Random, fill: bool
) -> dict[str, Any]:
    """Start the run until it is finished; what happened to it.

    Args:
        kills: how many starts are killed, at most.
        steps_per_kill: steps between two kills, about.
        degrees: data-parallel ranks of a start, each with its weight.
        fill: fill the disk once, in the middle.
    """
    done: dict[str, Any] = {"kills": 0, "resumed": 0, "starts": 0, "full_disk": "no" if not fill else ""}
    done.update(moments=Counter(), victims=Counter(), degrees=Counter())
    waiting = 0  # kills after which no start has come as far as training
    with tqdm(total=soak.steps, unit="step", dynamic_ncols=True, mininterval=1.0) as bar:
        while True:
            saved = soak.saved_step()
            num_ranks = rng.choices(list(degrees), list(degrees.values()))[0]
            words = soak.words(num_ranks, "--checkpoint.async_mode", rng.choice(["disabled", "async"]))
            if not done["full_disk"] and soak.steps // 2 <= saved < soak.steps:
                done["full_disk"] = fill_disk(soak, words, bar, rng)
                continue
            kill = draw_kill(rng, saved, steps_per_kill, soak.steps) if done["kills"] < kills else None
            process = soak.start(words)
            was_killed = soak.wait(process, kill, bar, rng) and process.returncode != 0
            done["starts"] += 1
            done["degrees"][num_ranks] += 1
            if has_resumed(soak, saved):
                done["resumed"], waiting = done["resumed"] + waiting, 0
            if was_killed and kill is not None:
                done["kills"], waiting = done["kills"] + 1, waiting + 1
                done["moments"][kill.moment] += 1
                done["victims"][kill.victims] += 1
            elif process.returncode != 0:
                raise RuntimeError(f"a start that was not killed has failed:\n{soak.log()[-3000:]}")
            else:
                return done
            bar.set_postfix_str(f"{done['kills']} kills, {done['resumed']} resumed", refresh=False)


def has_resumed(soak: Soak, saved: int) -> bool:
    """Whether the last start came as far as training.

    Raises: RuntimeError: it trained, but not from step `saved`.
    """
    begun = re.search(r"Training starts at step (\d+)", soak.log())
    if begun and int(begun[1]) != saved + 1:
        raise RuntimeError(f"step {saved} was saved, but training resumed at step {begun[1]}")
    return begun is not None


def fill_disk(soak: Soak, words: list[str], bar: tqdm, rng: random.Random) -> str:
    """One start whose checkpoint folder has room for half a checkpoint more; what came of it."""
    saved = soak.checkpoints(is_whole=True)[-1]
    kilobytes = sum(file.stat().st_size for file in saved.iterdir()) * 3 // 2 // 1024
    script = f"""mkdir "$0.kept" && cp -a "$0/{saved.name}" "$0.kept" && \\
        mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && cp -a "$0.kept/." "$0" && exec "$@" """
    folder = str(soak.run / "checkpoint")
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        return "left out: mount namespaces are not allowed here"
    process = soak.start([*namespace, "sh", "-c", script, folder, *words])
    soak.wait(process, None, bar, rng)
    shutil.rmtree(f"{folder}.kept")
    if process.returncode == 0 or "could not be written" not in soak.log():
        raise RuntimeError(f"the full disk was not noticed:\n{soak.log()[-3000:]}")
    return "refused, and the run resumed from its last checkpoint"


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
