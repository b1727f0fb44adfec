#!/usr/bin/env python
"""Does `titan-aioli sweep --for-tokens` find a better mixture for a long run that repeats a small group?

    .venv/bin/python scripts/for_tokens.py --corpus CORPUS --seeds 0 1 2

CORPUS is a folder of GROUP.jsonl.gz files. The mixture is for manual pages, of which there is a fortieth of
what the long run trains on; the other groups are python and prose. For each seed: a sweep of short runs, an
eighth as long, with and without --for-tokens; `titan-aioli plan --law olmix` on each, as it is without sizes
of the groups, and with them (a pull to the natural shares, at most 4 epochs by default, or 15); then a long
run on each plan, and on mixtures with a fixed share of manual pages, the rest even. The table has the long
runs' test losses. Then the first seed's plan with --for-tokens is verified at the length of the sweep, and
drawn. Killed and run again, it continues.

Without torchtitan by default (support/study_plain.py); with it: --module titan_aioli.train.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w
from rich.console import Console
from rich.table import Table

from support.ending import run_script
from support.one_rank import ROOT, train_one_rank
from support.small_config import small_config
from support.study_data import derive, prepare
from titan_aioli.runs.read import read_run
from titan_aioli.testing.torchrun import start

SMALL = "scarce_man"
GROUPS = (SMALL, "python", "prose")
LONG_STEPS, SHORT_STEPS = 640, 80
BATCH_SIZE, SEQ_LEN, LEARNING_RATE, LOG_FREQ = 16, 64, 2e-3, 20
EPOCHS_OF_ALL = 40
"""How often the small group would be read if the long run trained on nothing else."""
NUM_RUNS = 12
"""Of a sweep: what the olmix law of three groups needs."""
FIXED_SHARES = (0.2, 0.7)
STRATIFIED = "stratified"


class Plan(NamedTuple):
    """How a mixture is found."""

    matched: bool
    """From the sweep with --for-tokens."""
    sized: bool = False
    """With the sizes of the groups: bounds on repetition, and the natural shares as anchor."""
    max_epochs: int = 4
    """Where sized."""


PLANS = {
    "plan, without --for-tokens": Plan(False),
    "plan, with --for-tokens": Plan(True),
    "plan, with --for-tokens, by default": Plan(True, sized=True),
    "plan, without --for-tokens, --max-epochs 15": Plan(False, sized=True, max_epochs=15),
    "plan, with --for-tokens, --max-epochs 15": Plan(True, sized=True, max_epochs=15),
}


class SeedRuns:
    """The runs of one seed in a folder."""

    def __init__(self, output: Path, seed: int, module: str):
        self.output, self.seed, self.module = output, seed, module
        self.folder = output / f"seed{seed}"

    def config(self, steps: int, proportions: Sequence[float] = (1.0,) * len(GROUPS)) -> dict[str, Any]:
        """One TOML is one experiment."""
        mixing = {
            "method": "static",
            "seed": self.seed,
            "stores": str(self.output / "stores"),
            "static": {"by": "weight"},
            "evaluation": {"sequences": 128},
            "groups": {name: {"weight": p} for name, p in zip(GROUPS, proportions, strict=True)},
            "targets": {SMALL: {"weight": 1.0}},
        }
        config = small_config(self.output, steps, BATCH_SIZE, SEQ_LEN, LEARNING_RATE, LOG_FREQ, self.seed)
        return {**config, "mixing": mixing}

    def find(self, matched: bool) -> None:
        """Sweep, and make the plans that come from it."""
        name = "matched" if matched else "unmatched"
        short, long = self._write("short", SHORT_STEPS), self._write("long", LONG_STEPS)
        sweep = self.folder / f"sweep_{name}"
        words = ["sweep", short, "--output", sweep, "--cover", NUM_RUNS, "--module", self.module]
        words += ["--for-tokens", LONG_STEPS * BATCH_SIZE * SEQ_LEN] if matched else []
        _command(words, self.folder / f"sweep_{name}.txt")
        for how in PLANS.values():
            if how.matched != matched or (plan := self._plan(how)).is_file():
                continue
            words = ["plan", sweep / "runs.csv", "--law", "olmix", "--output", plan]
            words += ["--for-config", long, "--max-epochs", how.max_epochs] if how.sized else []
            _command(words, plan.with_suffix(".txt"))

    def verify(self) -> None:
        """Train as the sweep with --for-tokens did on the plan of it; draw predicted and measured."""
        plan, figure = self.folder / "verified.json", self.folder / "planning.png"
        if not figure.is_file():
            words = ["plan", self.folder / "sweep_matched" / "runs.csv", "--law", "olmix", "--output", plan]
            words += ["--verify", "--figure", figure]
            _command(words, plan.with_suffix(".txt"))

    def mixtures(self) -> dict[str, list[float]]:
        """What the long runs train on, by name: what was found, and the grid."""
        found = {name: json.loads(self._plan(how).read_text())["proportions"] for name, how in PLANS.items()}
        others = len(GROUPS) - 1
        fixed = {
            f"{share:.0%} of {SMALL}": [share, *others * [(1 - share) / others]] for share in FIXED_SHARES
        }
        return {**found, STRATIFIED: [1 / len(GROUPS)] * len(GROUPS), **fixed}

    def train(self, name: str, proportions: Sequence[float]) -> float:
        """The target's test loss of the long run on a mixture."""
        folder = self.folder / "long" / name.replace(" ", "_").replace(",", "")
        train_one_rank(folder, tomli_w.dumps(self.config(LONG_STEPS, proportions)), self.module)
        results = read_run(folder).results
        assert results is not None, folder
        return results["target_test_loss"][0]

    def _plan(self, how: Plan) -> Path:
        sweep = "matched" if how.matched else "unmatched"
        bound = f"_{how.max_epochs}epochs" if how.sized else ""
        return self.folder / f"plan_{sweep}{bound}.json"

    def _write(self, name: str, steps: int) -> Path:
        path = self.folder / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(self.config(steps)))
        return path


def _command(words: Sequence[object], log: Path) -> None:
    """Run titan-aioli with these words.

    Raises: RuntimeError: it failed; its log is named.
    """
    if start([sys.executable, "-m", "titan_aioli.cli", *map(str, words)], log, ROOT).wait():
        raise RuntimeError(f"titan-aioli {words[0]} failed, see {log}")


def show(of_seeds: Sequence[SeedRuns], losses: dict[str, list[float]], output: Path) -> None:
    """The table, and for_tokens.csv with a line per long run."""
    mixtures = [runs.mixtures() for runs in of_seeds]
    shown = Table(title=f"{LONG_STEPS} steps, seeds {', '.join(str(runs.seed) for runs in of_seeds)}")
    for column in ("mixture", f"share of {SMALL}", "its epochs", "test loss", f"to {STRATIFIED}"):
        shown.add_column(column, justify="left" if column == "mixture" else "right")
    for name, of_seed in losses.items():
        shares = np.array([of[name][0] for of in mixtures])
        to_stratified = np.array(of_seed) - losses[STRATIFIED]
        spread = f" ± {to_stratified.std(ddof=1):.3f}" if len(of_seed) > 1 else ""
        shown.add_row(
            name,
            ", ".join(f"{share:.2f}" for share in shares) if np.ptp(shares) else f"{shares[0]:.2f}",
            f"{EPOCHS_OF_ALL * shares.mean():.1f}",
            ", ".join(f"{loss:.3f}" for loss in of_seed),
            f"{to_stratified.mean():+.3f}{spread}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(shown)
    with open(output / "for_tokens.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "mixture", *GROUPS, "test_loss"])
        for number, (runs, of) in enumerate(zip(of_seeds, mixtures, strict=True)):
            writer.writerows([runs.seed, name, *of[name], each[number]] for name, each in losses.items())


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--corpus", type=Path, required=True, help="GROUP.jsonl.gz files")
    parser.add_argument("--output", type=Path, default=Path("outputs/for_tokens"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--module", default="scripts.support.study_plain", help="what trains a config")
    args = parser.parse_args()
    args.output = args.output.resolve()
    return args


def main() -> None:
    args = parse()
    prepare(args.corpus, args.output, ["man", *GROUPS[1:]])
    num_tokens = LONG_STEPS * BATCH_SIZE * SEQ_LEN // EPOCHS_OF_ALL
    derive(args.output / "stores", {SMALL: {"excerpts": {"man": num_tokens}}}, [SMALL])
    of_seeds = [SeedRuns(args.output, seed, args.module) for seed in args.seeds]
    losses: dict[str, list[float]] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        for runs in of_seeds:
            list(pool.map(runs.find, [True, False]))
            mixtures = runs.mixtures()
            for name, loss in zip(mixtures, pool.map(runs.train, mixtures, mixtures.values()), strict=True):
                losses.setdefault(name, []).append(loss)
    show(of_seeds, losses, args.output)
    of_seeds[0].verify()
    print(f"predicted and measured: {of_seeds[0].folder}/verified.txt, planning.png")


if __name__ == "__main__":
    run_script(main)
