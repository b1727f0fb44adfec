"""What study.py shows: a table for each setting, a figure, and a CSV of every run's numbers."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from titan_aioli.commands.figures import save, subplots

from .study_runs import Result, Run
from .study_settings import BEST_STATIC, STRATIFIED, Setting, StopRule
from .study_statistics import Comparison, advice, compare, share_of_gap

Scene = tuple[str, int]
"""A setting's name and a batch size."""
NUMBERS = ("loss", "groups_loss", "test_loss", "extra_compute")
"""Columns of the CSV, as a Result has them between its run and its proportions."""
FARTHEST = 0.25
"""Mean difference to stratified, nats per token, above which the figure shows a number in place of points."""


class Outcome(NamedTuple):
    """What one arm ended with, over the seeds."""

    results: list[Result]
    loss: Comparison
    groups: Comparison
    """The same of the mean over the groups: what the target costs them."""


def outcomes(results: Iterable[Result]) -> dict[Scene, dict[str, Outcome]]:
    """By scene and arm, the best for the objective first; stratified is among them."""
    by_scene: dict[Scene, dict[str, list[Result]]] = {}
    for result in results:
        run = result.run
        by_scene.setdefault((run.setting, run.batch_size), {}).setdefault(run.arm, []).append(result)
    return {scene: _of_arms(arms) for scene, arms in by_scene.items()}


def _of_arms(arms: dict[str, list[Result]]) -> dict[str, Outcome]:
    base = {result.run.seed: result for result in arms[STRATIFIED]}
    found = {}
    for name, results in arms.items():
        pairs = [(result, base[result.run.seed]) for result in results]
        columns = [
            compare(*np.array([[getattr(each, key) for each in pair] for pair in pairs]).T)
            for key in ("loss", "groups")
        ]
        found[name] = Outcome(results, *columns)
    return dict(sorted(found.items(), key=lambda item: item[1].loss.mean))


def table(scene: Scene, setting: Setting, arms: dict[str, Outcome], chosen: str, rule: StopRule) -> Table:
    """A line for each arm of a scene.

    Args:
        chosen: name of the mixture that the arm BEST_STATIC trains on; "" where it was not run.
    """
    base, (name, batch_size) = arms[STRATIFIED], scene
    shown = Table(
        title=f"{name}, {setting.title}, {batch_size} sequences a step: loss minus stratified's "
        f"({np.mean([r.loss for r in base.results]):.4f}), nats per token, n = {len(base.results)}",
        caption=f"{BEST_STATIC}: {chosen}" if chosen else None,
    )
    shown.add_column("arm")
    for heading in ("mean", "95 % t interval", "sd paired", "sd unpaired", "of the gap", "groups",
                    "extra compute", "more pairs?"):  # fmt: skip
        shown.add_column(heading, justify="right")
    for arm, outcome in arms.items():
        extra = f"{np.mean([result.extra for result in outcome.results]):.0%}"
        if arm == STRATIFIED:
            shown.add_row(arm, "0", "", "", "", "", "0", extra, "")
            continue
        loss, closed = outcome.loss, None
        if BEST_STATIC in arms:
            closed = share_of_gap(loss, arms[BEST_STATIC].loss, rule.standard_errors)
        low, high = loss.mean - loss.half_width, loss.mean + loss.half_width
        cells = [f"{loss.mean:+.4f}", f"{low:+.4f} to {high:+.4f}"]
        cells += [
            f"{loss.paired_sd:.4f}",
            f"{loss.unpaired_sd:.4f}",
            "-" if closed is None else f"{closed:.0%}",
        ]
        shown.add_row(arm, *cells, f"{outcome.groups.mean:+.4f}", extra, advice(loss, rule))
    return shown


def write_csv(path: Path, reported: Sequence[Result], choice: Sequence[Result]) -> None:
    """A line for each run: first those that are reported, then those that the oracle was chosen by."""
    header = ["setting", "batch_size", "arm", "seed", "used_for", *NUMBERS, "proportions"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for used_for, results in (("report", reported), ("choice", choice)):
            for run, *numbers, proportions in results:
                shares = json.dumps({group: round(share, 4) for group, share in proportions.items()})
                cells = [f"{number:.6f}" for number in numbers]
                writer.writerow([run.setting, run.batch_size, run.arm, run.seed, used_for, *cells, shares])


def read_csv(path: Path) -> list[Result]:
    """The runs that are reported in a file of `write_csv`."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["used_for"] == "report"]
    return [
        Result(
            Run(line["setting"], int(line["batch_size"]), line["arm"], int(line["seed"])),
            *(float(line[number]) for number in NUMBERS),
            json.loads(line["proportions"]),
        )
        for line in lines
    ]


def draw(path: Path, found: dict[Scene, dict[str, Outcome]], settings: dict[str, Setting]) -> None:
    """A panel for each setting: a point for each arm, batch size and seed, the loss minus stratified's."""
    names = list(dict.fromkeys(name for name, _ in found))
    batch_sizes = sorted({batch_size for _, batch_size in found})
    arms = [
        arm for arm in dict.fromkeys(arm for scene in found.values() for arm in scene) if arm != STRATIFIED
    ]
    arms.sort(key=lambda arm: np.mean([scene[arm].loss.mean for scene in found.values() if arm in scene]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (1.6 + 3.0 * columns, rows * (0.9 + 0.24 * len(arms)) + 0.3)
    figure, axes = subplots(rows, columns, size, sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        for place, batch_size in enumerate(batch_sizes):
            offset = 0.36 * (place - (len(batch_sizes) - 1) / 2)
            _draw_scene(axis, found.get((name, batch_size), {}), arms, offset, f"C{place}")
        axis.set_title(f"{name}: {settings[name].title}", fontsize=9)
        axis.axvline(0, color="0.6", lw=1, zorder=0)
        axis.grid(axis="x", color="0.92", zorder=0)
        axis.set_yticks(range(len(arms)), [arm.replace("_", " ") for arm in arms])
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].invert_yaxis()  # the axis is shared
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    label = "loss minus stratified's, nats per token\n(same seed; left is better; dashed: best static)"
    figure.supxlabel(label, fontsize=9)
    _draw_legend(figure, batch_sizes)
    save(figure, path)


def _draw_scene(axis: Any, arms: dict[str, Outcome], order: list[str], offset: float, color: str) -> None:
    """The points of one setting and batch size, and the mean of the best static mixture as a line."""
    for name, outcome in arms.items():
        if name == STRATIFIED:
            continue
        height, points = order.index(name) + offset, outcome.loss.differences
        if outcome.loss.mean > FARTHEST:  # would leave no room for the others
            place = {"xycoords": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
            axis.annotate(
                f"{outcome.loss.mean:+.2f} \u2192", (0.99, height), fontsize=7, color=color, **place
            )
            continue
        axis.plot(points, np.full(len(points), height), "o", ms=4, alpha=0.6, mew=0, color=color)
        axis.plot([outcome.loss.mean], [height], "|", ms=9, mew=1.8, color=color)
    if BEST_STATIC in arms:
        axis.axvline(arms[BEST_STATIC].loss.mean, color=color, lw=1, ls="--", zorder=0)


def _draw_legend(figure: Any, batch_sizes: list[int]) -> None:
    """Which color is which batch size, where there are several."""
    from matplotlib.lines import Line2D

    if len(batch_sizes) > 1:
        handles = [
            Line2D([], [], marker="o", ls="", color=f"C{place}", label=f"{batch_size} sequences a step")
            for place, batch_size in enumerate(batch_sizes)
        ]
        figure.legend(
            handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8
        )
