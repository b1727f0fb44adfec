#!/usr/bin/env python
"""Does it help? Static mixtures and methods x seeds through the product, for a target that is no group.

    .venv/bin/python scripts/study_targets.py --corpus CORPUS --output outputs/study_targets --target java \\
        --groups python cheaders man legal i18n prose changelog --seeds 0 1 2

CORPUS is a folder of GROUP.jsonl.gz files. Killed and run again, it continues: a run with a result is not run
twice. The same seed gives every arm the same initial weights and, per group, the same order of sequences.
The table shows the target's test loss minus that of `stratified` with the same seed, and the same of the mean
over the groups (what the target costs them): nats per token, mean and standard deviation over the seeds.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from support.one_rank import train_one_rank
from support.study_data import prepare
from titan_aioli.methods.skill_it import skill_graph

ROUNDS = 7
GRAPH_STEPS = 250
"""Steps of each run on a single group that Skill-It's graph is made from."""


class Arm(NamedTuple):
    """What sets a run apart besides its seed."""

    name: str
    method: str
    lines: str = ""
    """Of the method's config table."""
    weights: Mapping[str, float] = MappingProxyType({})
    """By group, of a static mixture; a group that is left out has none."""
    steps: int | None = None
    """Where it is not the study's."""
    at_start: bool = False
    """Evaluate before the first step too."""


class Result(NamedTuple):
    """What a run ended with."""

    arm: str
    seed: int
    target: float
    """Test loss of the target, nats per token."""
    groups: float
    """Mean over the groups of their test losses."""
    proportions: dict[str, float]
    """Those of the last phase of training."""


def leaning(share: float, favoured: list[str], groups: list[str]) -> dict[str, float]:
    """`share` for each favoured group, and the rest even over the others."""
    others = [group for group in groups if group not in favoured]
    rest = (1 - share * len(favoured)) / len(others)
    return {group: share if group in favoured else rest for group in groups}


def static_arms(groups: list[str], favoured: list[str]) -> list[Arm]:
    """Every group at .64 alone, and the favoured ones together at .35 and at .44."""
    single = [Arm(f"static .64 {group}", "static", "", leaning(0.64, [group], groups)) for group in groups]
    return single + [
        Arm(f"static {share} {' '.join(favoured)}", "static", "", leaning(share, favoured, groups))
        for share in (0.35, 0.44)
    ]


def aioli_arms(args: argparse.Namespace) -> list[Arm]:
    """One sweep of four steps a mixture in each of ROUNDS rounds: LearnParams is a fifth of the steps."""
    round_ = f"num_sweeps = 1\nsteps_per_mixture = 4\nsteps_per_round = {args.steps // ROUNDS}"
    return [Arm(f"aioli eta {eta:g}", "aioli", f"eta = {eta}\n{round_}") for eta in args.etas]


def config_text(args: argparse.Namespace, arm: Arm, seed: int) -> str:
    """One TOML is one experiment."""
    tables = "\n".join(
        f"[mixing.groups.{group}]\nweight = {arm.weights.get(group, 0.0 if arm.weights else 1.0)}"
        for group in args.groups
    )
    steps = arm.steps or args.steps
    return f"""
[model]
name = "llama3"
flavor = "mixing_small"
hf_assets_path = "{args.output}/tokenizer"
[optimizer]
lr = {args.lr}
implementation = "foreach"
[lr_scheduler]
warmup_steps = {steps // 10}
decay_type = "cosine"
min_lr_factor = 0.1
[training]
local_batch_size = {args.batch_size}
seq_len = {args.seq_len}
steps = {steps}
mixed_precision_param = "float32"
[metrics]
log_freq = 100
[activation_checkpoint]
mode = "none"
[debug]
seed = {seed}
[mixing]
method = "{arm.method}"
seed = {seed}
stores = "{args.output}/stores"
{f"[mixing.{arm.method}]" if arm.lines else ""}
{arm.lines}
[mixing.evaluation]
sequences = {args.sequences}
budget = {args.budget}
at_start = {str(arm.at_start).lower()}
[mixing.targets.{args.target}]
{tables}
"""


def execute(args: argparse.Namespace, arm: Arm, seed: int) -> Result:
    """The result of a run: read if it is there, else trained as one rank."""
    folder = run_folder(args, arm, seed)
    train_one_rank(folder, config_text(args, arm, seed))
    found = json.loads((folder / "results.json").read_text())
    records = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    last = [record for record in records if record["phase"] == "train"][-1]
    proportions = dict(zip(args.groups, last["proportions"], strict=True))
    (target,) = found["target_test_loss"]
    return Result(arm.name, seed, target, found["test_loss_mean"], proportions)


def run_folder(args: argparse.Namespace, arm: Arm, seed: int) -> Path:
    return args.output / "runs" / f"{arm.name.replace(' ', '_')}_seed{seed}"


def execute_all(args: argparse.Namespace, arms: list[Arm], seeds: list[int]) -> list[Result]:
    """The results of every arm with every seed, `--jobs` runs at a time."""
    runs = list(product(arms, seeds))
    with ThreadPoolExecutor(args.jobs) as pool:
        return list(tqdm(pool.map(lambda run: execute(args, *run), runs), total=len(runs), unit="run"))


def skill_it_arm(args: argparse.Namespace) -> Arm:
    """Skill-It on a graph from short runs on each group alone, with the first seed."""
    arms = [
        Arm(f"only {group}", "static", "", {group: 1.0}, GRAPH_STEPS, at_start=True) for group in args.groups
    ]
    execute_all(args, arms, args.seeds[:1])
    losses = []
    for arm in arms:
        lines = (run_folder(args, arm, args.seeds[0]) / "losses.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["target_loss"] for line in (lines[0], lines[-1])])
    start, end = np.array(losses)[0, 0], np.array(losses)[:, 1]
    path = args.output / "skill_graph.json"
    graph = {"groups": args.groups, "targets": [args.target], "graph": skill_graph(start, end).tolist()}
    path.write_text(json.dumps(graph))
    lines = f'graph = "{path}"\nsteps_per_round = {args.steps // ROUNDS}\neta = 5.0'
    return Arm("skill_it eta 5", "skill_it", lines)


def doge_static_arm(args: argparse.Namespace, doge: Arm) -> Arm:
    """A static run on the average of DoGE's weights, which is its result."""
    plan = run_folder(args, doge, args.seeds[0]) / "plan.json"
    return Arm("doge, then static", "static", f'by = "plan"\nplan = "{plan}"')


def summary(results: list[Result], groups: list[str]) -> Table:
    """A line for each arm, the best for the target first."""
    base = {result.seed: result for result in results if result.arm == "stratified"}
    table = Table(title=f"test losses minus those of stratified, {len(base)} seeds, nats per token")
    for name in ("arm", "target", "groups", "last proportions above even"):
        table.add_column(name)
    by_arm: dict[str, list[Result]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    for arm, runs in sorted(by_arm.items(), key=lambda item: np.mean([run.target for run in item[1]])):
        target = np.array([run.target - base[run.seed].target for run in runs])
        off = np.array([run.groups - base[run.seed].groups for run in runs])
        mean = {name: float(np.mean([run.proportions[name] for run in runs])) for name in groups}
        shown = ", ".join(f"{name} {p:.2f}" for name, p in mean.items() if p > 1.1 / len(groups))
        table.add_row(arm, _spread(target), _spread(off), shown or "-")
    table.caption = "stratified itself: target {:.4f}, groups {:.4f}".format(
        *np.mean([[run.target, run.groups] for run in base.values()], axis=0)
    )
    return table


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():+.4f} ± {values.std(ddof=1) if len(values) > 1 else np.nan:.4f}"


def write_csv(path: Path, results: list[Result], groups: list[str]) -> None:
    """Every run's numbers."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", "target_test_loss", "groups_test_loss", *groups])
        for run in results:
            shares = [f"{run.proportions[name]:.4f}" for name in groups]
            writer.writerow([run.arm, run.seed, f"{run.target:.6f}", f"{run.groups:.6f}", *shares])


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--corpus", type=Path, required=True, help="GROUP.jsonl.gz files")
    parser.add_argument("--output", type=Path, default=Path("outputs/study_targets"), help="runs and CSV")
    parser.add_argument("--groups", nargs="+", required=True, help="trained on")
    parser.add_argument("--target", required=True, help="held out, and no group")
    parser.add_argument(
        "--favoured", nargs="+", help="groups of the static mixtures of several; default: two"
    )
    parser.add_argument("--etas", type=float, nargs="+", default=[0.2, 1.0, 3.0, 8.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16, help="sequences per step")
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=256, help="held-out sequences of a set")
    parser.add_argument("--budget", type=float, default=10.0, help="evaluations, percent of the training")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    args.output = args.output.resolve()
    prepare(args.corpus, args.output, [*args.groups, args.target])
    doge = Arm("doge", "doge", f"steps_per_update = 5\nlearning_rate = {args.lr}\nmu = 0.05")
    arms = [
        Arm("stratified", "stratified"),
        *aioli_arms(args),
        Arm("static by size", "static", 'by = "tokens"'),
        *static_arms(args.groups, args.favoured or args.groups[:2]),
    ]
    results = execute_all(args, arms, args.seeds)
    results += execute_all(args, [skill_it_arm(args), doge], args.seeds)
    results += execute_all(args, [doge_static_arm(args, doge)], args.seeds)
    write_csv(args.output / "study_targets.csv", results, args.groups)
    Console(width=110).print(summary(results, args.groups))
    print(f"numbers: {args.output / 'study_targets.csv'}")


if __name__ == "__main__":
    main()
