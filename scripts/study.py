#!/usr/bin/env python
"""Does it help? Groupings x methods x seeds through the product itself, against the best static mixture.

    .venv/bin/python scripts/study.py --corpus CORPUS --output outputs/study \\
        --groupings python,java prose,legal legal,i18n,changelog --seeds 0 1 2

CORPUS is a folder of GROUP.jsonl.gz files (as the demo's outputs/demo/corpus). Killed and run again, it
continues: a run with a result is not run twice. The same seed gives every method the same initial weights
and, per group, the same order of sequences. Metric as in the Aioli paper: exp(mean over groups of the test
loss), and the difference to `stratified` in nats. The oracle is the best of a small grid of static mixtures,
chosen on the first seed and trained on all; a method's share of the gap is (stratified - method) /
(stratified - best static), of the means over the seeds.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from support.one_rank import train_one_rank
from support.study_data import prepare
from support.study_report import (
    Result,
    StudyRun,
    best_static,
    direction,
    draw,
    signal_and_noise,
    summary,
    write_csv,
)

POOLED = "eta = 1.0\npooling = 0.8"
METHODS = {
    "stratified": "",
    "aioli": "eta = 0.2",
    "aioli_still": "eta = 1e-9",
    "aioli_eta1": "eta = 1.0",
    "aioli_pooled": POOLED,
    "aioli_trained": f"{POOLED}\npool_training = true",
    "aioli_centred": f'{POOLED}\nmixtures = "centred"',
    "aioli_opposite": f'{POOLED}\nmixtures = "opposite"',
    "aioli_shrink": f"{POOLED}\nshrink = true",
    "aioli_warmup": "eta = 1.0",
}
"""Methods by the name in the table: their lines in [mixing.aioli], besides how long LearnParams is. With
`aioli_still` the proportions stay uniform: what LearnParams itself costs."""
ROUNDS = 5
LEARN_PARAMS_SHARE = 0.2
"""Largest share of a round's steps that LearnParams takes."""


def grid(num_groups: int) -> list[tuple[float, ...]]:
    """Static mixtures around uniform: every group raised, and every group lowered (for two: a line)."""
    if num_groups == 2:
        return [(p, 1 - p) for p in (0.25, 0.375, 0.625, 0.75)]
    uniform = 1 / num_groups
    shares = [uniform * factor for factor in ((1.5, 0.6) if num_groups <= 4 else (1.75,))]
    return [
        tuple(share if j == group else (1 - share) / (num_groups - 1) for j in range(num_groups))
        for share, group in product(shares, range(num_groups))
    ]


def aioli_lines(args: argparse.Namespace, run: StudyRun) -> str:
    """As many sweeps as fit into the share of LearnParams: the same steps for every kind of mixtures."""
    round_steps, groups = args.steps // ROUNDS, len(run.grouping)
    mixtures = 2 * groups if run.method == "aioli_opposite" else groups
    steps = 4 if mixtures * 4 <= LEARN_PARAMS_SHARE * round_steps else 2
    sweeps = max(1, int(LEARN_PARAMS_SHARE * round_steps / (steps * mixtures)))
    lines = [f"num_sweeps = {sweeps}", f"steps_per_mixture = {steps}", f"steps_per_round = {round_steps}"]
    if run.method == "aioli_warmup":
        lines += [
            f"prior_steps = {round_steps}",
            f"prior = {{{', '.join(f'{g} = 1.0' for g in run.grouping)}}}",
        ]
    return "\n".join([*lines, METHODS.get(run.method, "")])


def config_text(args: argparse.Namespace, run: StudyRun) -> str:
    """One TOML is one experiment."""
    weights = run.proportions or (1.0,) * len(run.grouping)
    tables = "\n".join(
        f"[mixing.groups.{name}]\nweight = {weight}"
        for name, weight in zip(run.grouping, weights, strict=True)
    )
    method = "static" if run.proportions else run.method.split("_")[0]
    return f"""
[model]
name = "llama3"
flavor = "mixing_small"
hf_assets_path = "{args.output}/tokenizer"
[optimizer]
lr = {args.lr}
implementation = "foreach"
[lr_scheduler]
warmup_steps = {args.steps // 10}
decay_type = "cosine"
min_lr_factor = 0.1
[training]
local_batch_size = {args.batch_size}
seq_len = {args.seq_len}
steps = {args.steps}
mixed_precision_param = "float32"
[metrics]
log_freq = 100
[activation_checkpoint]
mode = "none"
[debug]
seed = {run.seed}
[mixing]
method = "{method}"
seed = {run.seed}
stores = "{args.output}/stores"
[mixing.aioli]
{aioli_lines(args, run)}
[mixing.evaluation]
sequences = {args.sequences}
budget = {args.budget}
{tables}
"""


def execute(args: argparse.Namespace, run: StudyRun) -> Result:
    """The result of a run: read if it is there, else trained as one rank."""
    folder = args.output / "runs" / run.name
    train_one_rank(folder, config_text(args, run))
    found = json.loads((folder / "results.json").read_text())
    last = json.loads((folder / "plan.json").read_text())["proportions"]
    evidence = signal_and_noise(folder / "ledger.jsonl")
    return Result(run, found["test_loss_mean"], found["test_loss"], last, *evidence)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--corpus", type=Path, default=Path("outputs/demo/corpus"), help="GROUP.jsonl.gz files"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/study"), help="runs, CSV, figure")
    parser.add_argument(
        "--groupings", nargs="+", required=True, help="groups of one grouping joined by commas"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16, help="sequences per step")
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=64, help="held-out sequences of a group")
    parser.add_argument("--budget", type=float, default=10.0, help="evaluations, percent of the training")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    args.output = args.output.resolve()
    args.methods = ["stratified", *(name for name in args.methods if name != "stratified")]
    groupings = [tuple(grouping.split(",")) for grouping in args.groupings]
    prepare(args.corpus, args.output, sorted({group for grouping in groupings for group in grouping}))
    runs = [StudyRun(*parts) for parts in product(groupings, args.methods, args.seeds)]
    first, *others = args.seeds
    runs += [StudyRun(g, "static", first, p) for g in groupings for p in grid(len(g))]
    results = execute_all(args, runs)
    best = [best_static(results, grouping, first) for grouping in groupings]
    runs = [run._replace(seed=seed) for run, seed in product(best, others) if run.method == "static"]
    results += execute_all(args, runs)
    write_csv(args.output / "study.csv", results)
    shown = (groupings, args.methods, args.seeds)
    console = Console(width=None if sys.stdout.isatty() else 60 + 20 * len(args.methods))
    console.print(summary(results, *shown))
    console.print(direction(results, *shown))
    draw(args.output / "study.png", results, *shown)
    print(f"numbers: {args.output / 'study.csv'}\nfigure: {args.output / 'study.png'}")


def execute_all(args: argparse.Namespace, runs: list[StudyRun]) -> list[Result]:
    """Their results, `--jobs` runs at a time."""
    with ThreadPoolExecutor(args.jobs) as pool:
        return list(tqdm(pool.map(lambda run: execute(args, run), runs), total=len(runs), unit="run"))


if __name__ == "__main__":
    main()
