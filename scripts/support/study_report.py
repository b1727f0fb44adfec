"""What study.py shows: a table, a figure and a CSV of every run's numbers."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from titan_aioli.commands.figures import save, subplots

Grouping = tuple[str, ...]


class StudyRun(NamedTuple):
    """One run of the study, by what sets it apart."""

    grouping: Grouping
    method: str
    seed: int
    proportions: tuple[float, ...] | None = None
    """Of a static run of the oracle's grid."""

    @property
    def name(self) -> str:
        shares = "" if self.proportions is None else "_" + "_".join(f"{p:.2f}" for p in self.proportions)
        return f"{'+'.join(self.grouping)}/{self.method}{shares}_seed{self.seed}"


class Result(NamedTuple):
    """What a run ended with."""

    run: StudyRun
    loss: float
    """Mean over the groups of the test loss, nats per token."""
    losses: dict[str, float]
    """Test loss of each group."""
    proportions: list[float]
    """The last ones, in the order of the grouping."""
    signal: float
    """Spread over the groups of the column sums of A, root mean square over the rounds; nan without A."""
    noise: float
    """Their standard error, likewise."""


def signal_and_noise(ledger: Path) -> tuple[float, float]:
    """Spread over the groups of the column sums of A, and their standard error: root mean squares over the
    rounds in a ledger.jsonl; nan where no round has both (one sweep does not tell noise from signal)."""
    records = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    found = [record for record in records if record.get("stderr") and record.get("normalized_A")]
    found = [record for record in found if np.isfinite(np.array(record["stderr"], dtype=float)).all()]
    if not found:
        return np.nan, np.nan
    spreads = [np.std(np.sum(record["normalized_A"], axis=0)) for record in found]
    errors = np.array([record["stderr"] for record in found], dtype=float)
    return float(np.sqrt(np.mean(np.square(spreads)))), float(np.sqrt(np.mean(errors**2)))


def write_csv(path: Path, results: list[Result]) -> None:
    """One line per run."""
    header = ["grouping", "method", "seed", "test_loss_mean", "perplexity", "test_losses", "proportions"]
    header += ["signal_of_A", "noise_of_A"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for run, loss, losses, proportions, signal, noise in results:
            method = run.name.partition("/")[2].rpartition("_seed")[0]
            numbers = [loss, np.exp(loss), json.dumps(losses), json.dumps(proportions), signal, noise]
            writer.writerow(["+".join(run.grouping), method, run.seed, *numbers])


def best_static(results: list[Result], grouping: Grouping, seed: int) -> StudyRun:
    """The run with the lowest loss of the oracle's grid and `stratified`, of one seed."""
    methods = ("static", "stratified")
    candidates = [
        r for r in results if r.run[0] == grouping and r.run.seed == seed and r.run.method in methods
    ]
    return min(candidates, key=lambda result: result.loss).run


def differences(results: list[Result], grouping: Grouping, method: str, seeds: list[int]) -> np.ndarray:
    """Mean test loss minus that of `stratified` with the same seed, [seeds]; of the grid of "static" the best
    mixture of the first seed."""
    losses = {result.run: result.loss for result in results}
    run = StudyRun(grouping, method, seeds[0])
    if method == "static":
        run = best_static(results, grouping, seeds[0])
    base = StudyRun(grouping, "stratified", seeds[0])
    return np.array([losses[run._replace(seed=seed)] - losses[base._replace(seed=seed)] for seed in seeds])


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{values.mean():+.4f} \u00b1 {values.std(ddof=1) if len(values) > 1 else 0:.4f}"


def summary(results: list[Result], groupings: list[Grouping], methods: list[str], seeds: list[int]) -> Table:
    """Differences to stratified, paired by seed, and the share of the oracle's gap that a method closes."""
    title = f"mean test loss minus stratified's, nats: mean \u00b1 sd over {len(seeds)} seeds"
    table = Table(title=f"{title}; share of the gap closed")
    others = [name for name in methods if name != "stratified"]
    table.add_column("grouping", overflow="fold")
    for name in ("stratified", *others, "best static"):
        table.add_column(name, justify="right")
    for grouping in groupings:
        base = [
            r.loss for r in results if r.run in [StudyRun(grouping, "stratified", seed) for seed in seeds]
        ]
        oracle = differences(results, grouping, "static", seeds)
        cells = [f"{np.mean(base):.4f}"]
        for name in others:
            values = differences(results, grouping, name, seeds)
            closed = f"\n{values.mean() / oracle.mean():.0%}" if oracle.mean() < 0 else "\n-"
            cells.append(spread(values) + closed)
        mixture = best_static(results, grouping, seeds[0]).proportions
        shares = "uniform" if mixture is None else " ".join(f"{share:.2f}" for share in mixture)
        table.add_row("+".join(grouping), *cells, f"{spread(oracle)}\n{shares}")
    table.add_section()
    means = [
        np.mean([differences(results, grouping, name, seeds) for grouping in groupings], axis=0)
        for name in (*others, "static")
    ]
    table.add_row("mean of the groupings", "", *(spread(values) for values in means))
    return table


def direction(
    results: list[Result], groupings: list[Grouping], methods: list[str], seeds: list[int]
) -> Table:
    """How large the differences between the column sums of A are, in standard errors, and the cosine between
    where the proportions went from uniform and where the best static mixture lies; medians over the seeds (of
    the cosine, those where the proportions moved)."""
    table = Table(
        title="A: spread of the column sums / their standard error | cosine with the best static mixture"
    )
    aiolis = [name for name in methods if name.startswith("aioli")]
    for name in ("grouping", *aiolis):
        table.add_column(name, justify="left" if name == "grouping" else "right", overflow="fold")
    for grouping in groupings:
        mixture = best_static(results, grouping, seeds[0]).proportions
        cells = []
        for name in aiolis:
            found = [r for r in results if r.run.grouping == grouping and r.run.method == name]
            ratio = np.median([result.signal / result.noise for result in found])
            cosine = "-"
            moved = [r.proportions for r in found if np.ptp(r.proportions) > 1e-6]
            if mixture is not None and moved:
                cosine = f"{np.median([_cosine(shares, mixture) for shares in moved]):+.2f}"
            cells.append(f"{ratio:.1f} | {cosine}")
        table.add_row("+".join(grouping), *cells)
    return table


def _cosine(proportions: Sequence[float], mixture: Sequence[float]) -> float:
    """Cosine between two mixtures, both as differences from uniform."""
    one, other = (np.array(shares) - 1 / len(shares) for shares in (proportions, mixture))
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def draw(
    path: Path, results: list[Result], groupings: list[Grouping], methods: list[str], seeds: list[int]
) -> None:
    """A point for each grouping, method and seed."""
    figure, ((axis,),) = subplots(1, 1, (9, 1.4 + 0.8 * len(groupings)))
    others = [*(name for name in methods if name != "stratified"), "static"]
    for row, grouping in enumerate(groupings):
        for place, name in enumerate(others):
            points = differences(results, grouping, name, seeds)
            height = row + 0.8 * (place - (len(others) - 1) / 2) / len(others)
            is_oracle = name == "static"
            style = {"color": "k" if is_oracle else f"C{place}", "label": None}
            if row == 0:
                style["label"] = "best static of a grid" if is_oracle else name
            axis.plot(points, [height] * len(points), "o", ms=4, alpha=0.6, **style)
            axis.plot([points.mean()], [height], "|", ms=11, mew=2, color=style["color"])
    axis.axvline(0, color="0.6", lw=1)
    axis.set_yticks(range(len(groupings)), [_wrapped(grouping) for grouping in groupings])
    axis.invert_yaxis()
    axis.set_xlabel(
        "mean test loss minus stratified's (nats per token; left is better; bar: mean over seeds)"
    )
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def _wrapped(grouping: Grouping) -> str:
    """The names of a grouping, four per line."""
    lines = ["+".join(grouping[start : start + 4]) for start in range(0, len(grouping), 4)]
    return "+\n".join(lines)
