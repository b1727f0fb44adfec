"""One run of a sweep: a folder with its config, started with torchrun, finished with its results.json."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w

from titan_aioli.errors import UserError
from titan_aioli.files import read_json, replacing
from titan_aioli.runs.read import read_run

POLL_SECONDS = 0.5
TRAIN = "titan_aioli.train"
"""The module that trains with torchtitan."""
TAIL_BYTES = 8192


class SweepRun(NamedTuple):
    """A mixture to train on, and where."""

    folder: Path
    """Its dump folder, with config.toml, log.txt and what every run leaves."""
    proportions: list[float]
    """[G], on the simplex; a group may have exactly 0."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_single(self) -> bool:
        """Whether it trains on one group alone."""
        return max(self.proportions) == 1.0

    @property
    def is_finished(self) -> bool:
        return (self.folder / "results.json").is_file()

    def command(self, nproc_per_node: int, flags: Sequence[str], module: str = TRAIN) -> list[str]:
        """The words that start it, or resume it from its last checkpoint."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", str(nproc_per_node), "-m", module]
        return [*torchrun, "--job.config_file", str(self.folder / "config.toml"), *flags]

    def write_config(self, tables: Mapping[str, Any], groups: Sequence[str]) -> None:
        """Write the run's config: that of the sweep with `static` on this mixture."""
        config = copy.deepcopy(dict(tables))
        config.setdefault("job", {})["dump_folder"] = str(self.folder)
        mixing = config["mixing"]
        mixing["method"], mixing["static"] = "static", {"by": "weight"}
        mixing.pop("guards", None)  # they would move the mixture, and so would limits on repetition
        mixing["when_used_up"] = "repeat"
        if self.is_single:
            mixing.setdefault("evaluation", {}).update(at_start=True, sequence_losses=True)
        for name, share in zip(groups, self.proportions, strict=True):
            mixing["groups"][name]["weight"] = share
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "config.toml") as file:
            tomli_w.dump(config, file)

    def train(self, command: Sequence[str], lock: int, on_step: Callable[[int], None]) -> str | None:
        """Run the command to its end; None, or in one line why it failed.

        Args:
            lock: file descriptor that the run holds open as long as it lives.
            on_step: called with the number of steps done, about twice per second.
        """
        path = self.folder / "log.txt"
        environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ}
        with open(path, "ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,)
            )
            try:
                while process.poll() is None:
                    on_step(last_step(path, start))
                    _wait(process)
            except BaseException:
                process.terminate()  # torchrun ends its ranks
                process.wait()
                raise
        if self.is_finished:
            return None
        return f"{self.name}: {why_it_failed(path, start) or f'exit status {process.returncode}'}; see {path}"

    def losses(self, split: str) -> np.ndarray:
        """[K], final losses of the targets (of the groups, if there are none) in nats per token.

        Raises: UserError: the run did not evaluate this split.
        """
        run = read_run(self.folder)
        results, key = run.results or {}, f"{'target_' * (run.targets is not None)}{split}_loss"
        if key not in results:
            raise UserError(f"{self.folder}/results.json has no {split} losses: evaluation.{split} was off")
        return np.array(results[key], dtype=np.float64)

    def sequence_losses(self) -> dict[str, Any] | None:
        """Loss sums and tokens of the validation sequences of each target; None where it left none."""
        path = self.folder / "sequences.json"
        return read_json(path, "what a run writes") if path.is_file() else None

    def start_losses(self) -> np.ndarray:
        """[K], validation losses of the targets (or groups) before the first step.

        Raises: UserError: the run did not measure them.
        """
        run = read_run(self.folder)
        for record in run.losses:
            if record["step"] == 0:
                key = "validation_loss" if run.targets is None else "target_loss"
                return np.array(record[key], dtype=np.float64)
        raise UserError(f"{self.folder}/losses.jsonl has no losses of step 0")


def last_step(log: Path, start: int) -> int:
    """The newest step that a log reports; 0 if none."""
    steps = re.findall(rb"step:\s*(\d+)", _tail(log, start))
    return int(steps[-1]) if steps else 0


def why_it_failed(log: Path, start: int) -> str:
    """The line for the user in a log, or else the last one that names an exception; "" if there is none."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    for line in lines:
        if "titan_aioli: error: " in line:
            return line.partition("titan_aioli: error: ")[2]
    named = [line for line in lines if re.search(r"\b(?!ChildFailed)\w*(Error|Exception): ", line)]
    return named[-1].strip() if named else ""


def _tail(path: Path, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(start, os.path.getsize(path) - TAIL_BYTES))
        return file.read()


def _wait(process: subprocess.Popen) -> None:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return
