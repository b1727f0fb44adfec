#!/usr/bin/env python
"""How many held-out sequences does Aioli need? One real run, its A computed again from fewer of them.

    .venv/bin/python scripts/evaluation_budget.py CONFIG --output budget.png --steps 600 --sequences 256

Trains CONFIG's groups and model as one process with method `aioli`, and keeps the loss of every held-out
sequence at every evaluation. Then A and the proportions are computed again from random subsets of the
sequences and compared with those from all of them. Evaluations are paired (always the same sequences), so
the error falls fast; below the standard error over the sweeps, which more sequences do not change, there is
nothing to gain. The last column is what the evaluations of such a run cost, in percent of its training.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from titan_aioli.commands.figures import save, subplots
from titan_aioli.hosts.installed import InstalledHost, load_config
from titan_aioli.measure.budget import relative_overhead
from titan_aioli.measure.evaluate import held_out_batches
from titan_aioli.methods.walk import walk
from titan_aioli.testing.torchrun import rank_environment
from titan_aioli.train import MixingTrainer

SUBSETS = 20
"""Number of random subsets of each size."""


class RecordingHost(InstalledHost):
    """Keeps the loss of every held-out row in every evaluation: `recorded`, [rows] for each evaluation."""

    recorded: list[list[float]]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        self.recorded.append([])
        with super().evaluating():
            yield

    def forward(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        super().forward(inputs_BS, labels_BS)
        sums, counts = self.row_loss.rows().sums_2B.cpu().numpy()
        self.recorded[-1] += (sums[counts > 0] / counts[counts > 0]).tolist()  # padding has no tokens


class RecordingTrainer(MixingTrainer):
    """Measures through a RecordingHost: `host`."""

    def build_host(self) -> RecordingHost:
        self.host = RecordingHost(self, self.row_loss, self.loader)
        self.host.recorded = []
        return self.host


def train(config: Any) -> tuple[np.ndarray, Any]:
    """Losses [evaluations, G, K] of a whole run, and its method."""
    trainer = RecordingTrainer(config)
    trainer.train()
    recorded, session = trainer.host.recorded, trainer.session
    if session.controller.step != session.controller.ledger[-1].step:
        recorded.pop()  # the one at the end of the run, which no phase asked for
    batches = held_out_batches(trainer.host, session.held_out.groups, config.mixing.evaluation.sequences)
    groups = np.concatenate([group.numpy() for _, _, group in batches])
    groups = groups[groups >= 0]
    fewest = int(np.bincount(groups).min())
    losses = np.array(recorded)
    by_group = [losses[:, groups == group][:, :fewest] for group in range(len(session.group_names))]
    trainer.close()
    return np.stack(by_group, axis=1), session.controller.method


def learned(method: Any, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column sums of A less their mean [T, G], their standard errors [T, G] and the proportions [T, G].

    Args:
        losses: [evaluations, G], what the method is shown.
    """
    observations, found = iter(losses), []
    stretches = walk(method, losses.shape[1], lambda _: next(observations))
    for _, _, phase, state in islice(stretches, len(losses) + 1):
        if phase.name == "train":
            sums = state.normalized_A.sum(axis=0)
            found.append((sums - sums.mean(), state.stderr, state.proportions))
    return tuple(np.array(part) for part in zip(*found, strict=True))  # pyright: ignore[reportReturnType]


def errors(method: Any, losses: np.ndarray, sizes: list[int]) -> list[dict[str, float]]:
    """For each number of sequences: error of the column sums and of the proportions, and the stderr seen."""
    rng, rows = np.random.default_rng(0), []
    all_sums, all_stderr, all_proportions = learned(method, losses.mean(axis=2))
    for size in sizes:
        squared, distance, stderr = [], [], []
        for _ in range(SUBSETS):
            chosen = [rng.choice(losses.shape[2], size, replace=False) for _ in range(losses.shape[1])]
            part = np.stack([losses[:, group, places] for group, places in enumerate(chosen)], axis=1)
            sums, seen, proportions = learned(method, part.mean(axis=2))
            squared.append((sums - all_sums) ** 2)
            distance.append(0.5 * np.abs(proportions - all_proportions).sum(axis=1)[-1])
            stderr.append(seen**2)
        rows.append(
            {
                "sequences": size,
                "error": float(np.sqrt(np.mean(squared))),
                "proportions": float(np.mean(distance)),
                "stderr": float(np.sqrt(np.nanmean(stderr))),
            }
        )
    return [*rows, {"sweeps": float(np.sqrt(np.nanmean(all_stderr**2))), "sums": float(all_sums.std())}]


def draw(results: dict[str, Any], output: Path) -> None:
    """Error of the column sums and of the proportions against the number of held-out sequences."""
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure, ((left, right),) = subplots(1, 2, (9.5, 3.8))
    rows, last = results["sizes"], results["all"]
    sizes = [row["sequences"] for row in rows]
    left.loglog(sizes, [row["error"] for row in rows], "o-", label="error from fewer sequences")
    left.axhline(last["sweeps"], color="C3", ls="--", label="standard error over the sweeps")
    left.axhline(last["sums"], color="0.5", ls=":", label="spread of the column sums")
    left.set_ylabel("column sums of A")
    right.loglog(sizes, [row["proportions"] for row in rows], "o-", color="C2")
    right.set_ylabel("proportions at the end (total variation)")
    for axis in (left, right):
        axis.set_xlabel("held-out sequences of each group")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ScalarFormatter())
    left.legend(frameon=False)
    figure.suptitle(results["title"], fontsize=10)
    save(figure, output)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("config", type=Path, help="TOML of a run: its model, groups and hyperparameters")
    parser.add_argument("--output", type=Path, default=Path("evaluation_budget.png"), help="the figure")
    parser.add_argument("--steps", type=int, help="steps to train, if not the config's")
    parser.add_argument("--sequences", type=int, default=256, help="held-out sequences of each group")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args, flags = parser.parse_known_args()
    os.environ.update(rank_environment())
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--job.config_file",
            str(args.config),
            "--job.dump_folder",
            folder,
            "--mixing.method",
            "aioli",
        ]
        words += ["--mixing.evaluation.sequences", str(args.sequences), "--checkpoint.no-enable", *flags]
        words += ["--mixing.evaluation.no-test", "--mixing.evaluation.budget", "0"]
        words += ["--mixing.evaluation.freq", "0"]
        words += ["--training.steps", str(args.steps)] if args.steps else []
        config = load_config(words)
        losses, method = train(config)
    sizes = [2**power for power in range(12) if 2**power <= losses.shape[2] // 2]
    *rows, last = errors(method, losses, sizes)
    batch, evaluations = config.training.local_batch_size, len(losses)
    for row in rows:
        row["cost_percent"] = 100 * relative_overhead(
            evaluations, int(row["sequences"]) * losses.shape[1], config.training.steps, batch
        )
    title = (
        f"{losses.shape[1]} groups, {config.training.steps} steps of {batch} x {config.training.seq_len} "
        f"tokens, {method.num_sweeps} sweeps; against {losses.shape[2]} sequences of each group"
    )
    results = {"title": title, "sizes": rows, "all": last}
    print_table(results)
    draw(results, args.output)
    print(f"figure: {args.output}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def print_table(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    last = results["all"]
    table = Table(title=results["title"], caption=f"spread of the column sums themselves: {last['sums']:.4f}")
    for name in ("sequences", "error of the\ncolumn sums", "in standard errors\nover the sweeps"):
        table.add_column(name, justify="right")
    table.add_column("error of the\nproportions", justify="right")
    table.add_column("cost, % of\nthe training", justify="right")
    for row in results["sizes"]:
        table.add_row(
            str(row["sequences"]),
            f"{row['error']:.4f}",
            f"{row['error'] / last['sweeps']:.2f}",
            f"{row['proportions']:.4f}",
            f"{row['cost_percent']:.1f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
