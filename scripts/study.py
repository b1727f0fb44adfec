#!/usr/bin/env python
"""Does it help? Groupings x methods x seeds through the product itself, against the best static mixture.

    .venv/bin/python scripts/study.py --corpus CORPUS --output outputs/study \\
        --groupings python,java prose,legal legal,i18n,changelog --seeds 0 1 2

CORPUS is a folder of GROUP.jsonl.gz files (as the demo's outputs/demo/corpus). Killed and run again, it
goes on: a run with a result is not run twice. The same seed gives every method the same initial weights
and, per group, the same order of sequences. Metric as in the Aioli paper: exp(mean over groups of the test
loss), and the difference to `stratified` in nats. The oracle is the best of a small grid of static mixtures
(first seed only); a method's share of the gap is (stratified - method) / (stratified - best static).
"""

import argparse
import csv
import gzip
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from titan_aioli.data.demo_corpus import train_tokenizer
from titan_aioli.data.tokenize import tokenize

ROOT = Path(__file__).resolve().parent.parent
POOLED = "eta = 1.0\npooling = 0.8"
METHODS = {
    "stratified": "",
    "aioli": "eta = 0.2",
    "aioli_eta1": "eta = 1.0",
    "aioli_pooled": POOLED,
    "aioli_centred": f'{POOLED}\nmixtures = "centred"',
    "aioli_opposite": f'{POOLED}\nmixtures = "opposite"',
    "aioli_shrink": f"{POOLED}\nshrink = true",
    "aioli_warmup": "eta = 1.0",
}
"""Methods by the name in the table: their lines in [mixing.aioli], besides how long LearnParams is."""
VOCAB_SIZE = 1024  # of flavor mixing_small
ROUNDS = 5
LEARN_PARAMS_SHARE = 0.2
"""At most, of the steps of a round."""


class StudyRun(NamedTuple):
    grouping: tuple[str, ...]
    method: str
    seed: int
    proportions: tuple[float, ...] | None = None
    """For a static run of the oracle's grid."""

    @property
    def name(self) -> str:
        shares = "" if self.proportions is None else "_" + "_".join(f"{p:.2f}" for p in self.proportions)
        return f"{'+'.join(self.grouping)}/{self.method}{shares}_seed{self.seed}"


def prepare(args: argparse.Namespace, groups: list[str]) -> None:
    """One tokenizer over all groups, and the stores of each; skipped where they are."""
    tokenizer = args.output / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        corpus = {}
        for group in groups:
            with gzip.open(args.corpus / f"{group}.jsonl.gz", "rt", encoding="utf-8") as file:
                corpus[group] = [json.loads(line) for line in file]
        train_tokenizer(corpus, tokenizer, VOCAB_SIZE)
    for group in groups:
        source = (str(args.corpus / f"{group}.jsonl.gz"),)
        tokenize(source, tokenizer=tokenizer, output=args.output / "stores", group=group,
                 val_share=0.05, test_share=0.1)  # fmt: skip


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


def execute(args: argparse.Namespace, run: StudyRun) -> dict[str, Any]:
    """The result of a run: read if it is there, else trained as one rank."""
    folder = args.output / "runs" / run.name
    result = folder / "results.json"
    if not result.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(config_text(args, run))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        command = [
            sys.executable,
            "-m",
            "titan_aioli.train",
            "--job.config_file",
            str(folder / "config.toml"),
        ]
        command += ["--job.dump_folder", str(folder), "--checkpoint.no-enable"]
        with open(folder / "log.txt", "w") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{run.name} failed, see {folder / 'log.txt'}")
    found = json.loads(result.read_text())
    last = json.loads((folder / "plan.json").read_text())["proportions"]
    return {"run": run, "loss": found["test_loss_mean"], "losses": found["test_loss"], "proportions": last}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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
    parser.add_argument("--batch-size", type=int, default=16, help="sequences a step")
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=64, help="held-out sequences of a group")
    parser.add_argument("--budget", type=float, default=10.0, help="evaluations, percent of the training")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--no-oracle", action="store_true", help="leave out the grid of static mixtures")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    args.output = args.output.resolve()
    groupings = [tuple(grouping.split(",")) for grouping in args.groupings]
    prepare(args, sorted({group for grouping in groupings for group in grouping}))
    runs = [StudyRun(*parts) for parts in product(groupings, args.methods, args.seeds)]
    if not args.no_oracle:
        runs += [StudyRun(g, "static", args.seeds[0], p) for g in groupings for p in grid(len(g))]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = pool.map(lambda run: execute(args, run), runs)
        results = list(tqdm(jobs, total=len(runs), unit="run"))
    write_csv(args.output / "study.csv", results)
    Console(width=None if sys.stdout.isatty() else 110).print(summary(results, groupings, args))
    draw(results, groupings, args)
    print(f"numbers: {args.output / 'study.csv'}\nfigure: {args.output / 'study.png'}")


def write_csv(path: Path, results: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["grouping", "method", "seed", "test_loss_mean", "perplexity", "test_losses", "proportions"]
        )
        for found in results:
            run = found["run"]
            numbers = [json.dumps(found["losses"]), json.dumps(found["proportions"])]
            row = [
                "+".join(run.grouping),
                run.method,
                run.seed,
                found["loss"],
                np.exp(found["loss"]),
                *numbers,
            ]
            writer.writerow(row)


def select(results: list[dict[str, Any]], grouping: tuple[str, ...], method: str) -> dict[int, float]:
    """Mean test loss by seed; for the oracle's grid the lowest."""
    losses: dict[int, float] = {}
    for found in results:
        run = found["run"]
        if run.grouping == grouping and run.method == method:
            losses[run.seed] = min(found["loss"], losses.get(run.seed, np.inf))
    return losses


def summary(
    results: list[dict[str, Any]], groupings: list[tuple[str, ...]], args: argparse.Namespace
) -> Table:
    """Differences to stratified, paired by seed: mean and standard deviation over the seeds."""
    table = Table(title=f"mean test loss minus stratified's, nats (mean +- sd over {len(args.seeds)} seeds)")
    others = [name for name in args.methods if name != "stratified"]
    for name in (
        "grouping",
        "stratified",
        *others,
        "best static",
        *(f"gap closed\n{name}" for name in others),
    ):
        table.add_column(name, justify="left" if name == "grouping" else "right", overflow="fold")
    for grouping in groupings:
        base = select(results, grouping, "stratified")
        first = args.seeds[0]
        oracle = min([base[first], *select(results, grouping, "static").values()]) - base[first]
        cells, closed = [], []
        for name in others:
            differences = np.array(
                [select(results, grouping, name)[seed] - base[seed] for seed in args.seeds]
            )
            cells.append(
                f"{differences.mean():+.4f} +- {differences.std(ddof=1) if len(differences) > 1 else 0:.4f}"
            )
            closed.append(f"{differences[0] / oracle:.0%}" if oracle < 0 else "-")
        losses = np.array(list(base.values()))
        table.add_row("+".join(grouping), f"{losses.mean():.4f}", *cells, f"{oracle:+.4f}", *closed)
    return table


def draw(results: list[dict[str, Any]], groupings: list[tuple[str, ...]], args: argparse.Namespace) -> None:
    """A point for each seed and method; the oracle as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.7 * len(groupings)), layout="constrained")
    others = [name for name in args.methods if name != "stratified"]
    for row, grouping in enumerate(groupings):
        base = select(results, grouping, "stratified")
        for place, name in enumerate(others):
            losses = select(results, grouping, name)
            points = [losses[seed] - base[seed] for seed in args.seeds]
            height = row + 0.18 * (place - (len(others) - 1) / 2)
            label = name if row == 0 else None
            axis.plot(points, [height] * len(points), "o", color=f"C{place}", ms=5, alpha=0.7, label=label)
        first = args.seeds[0]
        oracle = min([base[first], *select(results, grouping, "static").values()]) - base[first]
        label = f"best static (seed {first})" if row == 0 else None
        axis.plot([oracle], [row], "k|", ms=22, mew=2, label=label)
    axis.axvline(0, color="0.6", lw=1)
    axis.set_yticks(range(len(groupings)), ["+".join(grouping) for grouping in groupings])
    axis.invert_yaxis()
    axis.set_xlabel("mean test loss minus stratified's (nats per token; left is better)")
    axis.legend(frameon=False, loc="best")
    figure.savefig(args.output / "study.png", dpi=130)


if __name__ == "__main__":
    main()
