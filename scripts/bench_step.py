#!/usr/bin/env python
"""Seconds per step: ours against plain torchtitan on the same model and tokens, in one process.

    .venv/bin/python scripts/bench_step.py                         # CPU, the debug model
    .venv/bin/python scripts/bench_step.py --flavor 160M --seq-len 2048 --compile --json step.json   # one GPU

Trainers take turns, a few steps each, so that a noisy machine is noisy for all; a ratio is the median over
turns of the ratio of neighbouring turns. Then a whole Aioli run against a stratified run with as many steps,
evaluations included, at 8 and at 38 groups.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from support.plain_torchtitan import PlainTrainer, plain_config, sharing_ranks
from titan_aioli.hosts.installed import load_config
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.testing.torchrun import rank_environment
from titan_aioli.train import MixingTrainer

WARM_UP_STEPS = 5


def write_stores(folder: Path, num_groups: int, num_tokens: int, vocab_size: int) -> None:
    """Random tokens: the time of a step does not depend on what they are."""
    rng = np.random.default_rng(0)
    for index in range(num_groups):
        name = chr(ord("a") + index) if index < 26 else f"z{index}"
        (folder / name).mkdir(parents=True)
        for split, count in (
            ("train", num_tokens),
            ("validation", num_tokens // 4),
            ("test", num_tokens // 8),
        ):
            with MegatronWriter(folder / name / split, "uint16") as writer:
                writer.add(rng.integers(0, vocab_size, count).astype(np.uint16))


def write_config(path: Path, args: argparse.Namespace, num_groups: int, steps: int, method: str) -> list[str]:
    """A config of `num_groups` groups, and the arguments that load it."""
    names = sorted(entry.name for entry in (path / f"stores{num_groups}").iterdir())
    text = "\n".join(f"[mixing.groups.{name}]" for name in names)
    config = path / f"{method}{num_groups}.toml"
    config.write_text(text + "\n")
    flags = {
        "job.dump_folder": path / "run",
        "model.name": "llama3",
        "model.flavor": args.flavor,
        "model.hf_assets_path": "/nonexistent",
        "training.local_batch_size": args.batch_size,
        "training.seq_len": args.seq_len,
        "training.steps": steps,
        "training.mixed_precision_param": "bfloat16" if args.bf16 else "float32",
        "optimizer.implementation": "fused" if torch.cuda.is_available() else "foreach",
        "activation_checkpoint.mode": args.ac,
        "activation_checkpoint.selective_ac_option": "op",
        "metrics.log_freq": 100,
        "mixing.stores": path / f"stores{num_groups}",
        "mixing.method": method,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    if args.compile:
        words.append("--compile.enable")
    return ["--job.config_file", str(config), "--checkpoint.no-enable", *words]


class Runner:
    """A trainer of this process that is stepped by hand."""

    first: Any = None
    """Of the process: the others share its ranks."""

    def __init__(self, trainer_class, arguments: list[str]):
        config = (plain_config if trainer_class is PlainTrainer else load_config)(arguments)
        with sharing_ranks(Runner.first):
            self.trainer = trainer_class(config)
        Runner.first = Runner.first or self.trainer
        self.batches = self.trainer.batch_generator(self.trainer.dataloader)

    def time_steps(self, count: int) -> float:
        """Seconds of the next steps; a host sync before and after completes the work queued on a GPU."""
        self._wait()
        start = time.perf_counter()
        for _ in range(count):
            self.trainer.step += 1
            self.trainer.train_step(self.batches)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def alternate(runners: dict[str, Runner], turns: int, steps: int) -> dict[str, np.ndarray]:
    """Seconds of every turn of each runner, [turns]; the order rotates from turn to turn."""
    for runner in runners.values():
        runner.time_steps(WARM_UP_STEPS)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for turn in tqdm(range(turns), desc="turns", leave=False):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(runners[name].time_steps(steps))
    return {name: np.array(values) for name, values in seconds.items()}


def bench_steps(path: Path, args: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of a step, and the ratios to plain torchtitan."""
    steps = WARM_UP_STEPS + args.turns * args.steps + 1
    ours = write_config(path, args, 8, steps, "stratified")
    runners = {
        "plain torchtitan": Runner(PlainTrainer, ours),
        "ours": Runner(MixingTrainer, ours),
        "ours, no group losses": Runner(MixingTrainer, [*ours, "--mixing.no-train_losses"]),
    }
    seconds = alternate(runners, args.turns, args.steps)
    plain = seconds["plain torchtitan"]
    ratios = {name: float(np.median(values / plain)) for name, values in seconds.items()}
    return {name: 1e3 * float(np.median(values)) / args.steps for name, values in seconds.items()}, ratios


def bench_run(path: Path, args: argparse.Namespace, num_groups: int) -> float:
    """Time of one whole Aioli round with default evaluation against as many stratified steps."""
    sweep = 4 * 4 * num_groups  # the default LearnParams; a round is 8 of them
    steps = max(8 * sweep, args.run_steps)
    names = {"stratified": [], "aioli": args.aioli_flags}
    runners = {
        name: Runner(MixingTrainer, [*write_config(path, args, num_groups, steps + 1, name), *extra])
        for name, extra in names.items()
    }
    seconds = dict.fromkeys(runners, 0.0)
    for _ in tqdm(range(8), desc=f"{num_groups} groups", leave=False):
        for name, runner in runners.items():
            seconds[name] += runner.time_steps(steps // 8)
    return seconds["aioli"] / seconds["stratified"]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--flavor", default="mixing_debug", help="model flavour of llama3")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences per step")
    parser.add_argument("--seq-len", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 parameters in forward and backward")
    parser.add_argument("--compile", action="store_true", help="torch.compile of model and loss")
    parser.add_argument("--ac", default="none", help="activation checkpointing: none, selective or full")
    parser.add_argument("--turns", type=int, default=30, help="turns of each trainer")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn")
    parser.add_argument("--groups", type=int, nargs="*", default=[8, 38], help="groups of the whole runs")
    parser.add_argument("--run-steps", type=int, default=0, help="least steps of the whole runs")
    parser.add_argument("--aioli-flags", nargs="*", default=[], help="flags of the Aioli run only")
    parser.add_argument("--json", type=Path, help="write the ratios there")
    args = parser.parse_args()
    os.environ.update(rank_environment())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for num_groups in {8, *args.groups}:
            write_stores(path / f"stores{num_groups}", num_groups, 400 * args.seq_len, 2000)
        milliseconds, ratios = bench_steps(path, args)
        runs = {str(num_groups): bench_run(path, args, num_groups) for num_groups in args.groups}
    table = Table(title=f"llama3 {args.flavor}, {args.batch_size} x {args.seq_len} tokens per step")
    for column in ("", "ms per step", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in milliseconds.items():
        table.add_row(name, f"{value:.2f}", f"{ratios[name]:.3f}")
    for num_groups, ratio in runs.items():
        table.add_row(f"whole aioli run / stratified, {num_groups} groups", "", f"{ratio:.3f}")
    Console().print(table)
    if args.json:
        found = {"step_ratio": ratios["ours"], "step_ratio_no_group_losses": ratios["ours, no group losses"]}
        args.json.write_text(json.dumps({**found, "run_ratio": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
