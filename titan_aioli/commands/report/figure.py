"""The figure of `titan-aioli report`: a column of panels for each run."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from titan_aioli.commands.figures import draw_legend, draw_proportions, group_colors, save, subplots
from titan_aioli.commands.report.compared import UNITS, have_one_objective, run_title
from titan_aioli.runs.run import Run


def draw(runs: Sequence[Run], output: Path) -> None:
    """One column for each run: proportions, the objective of its targets, held-out losses, its last A.

    The objective is left out where there are no targets, A where no run has one.
    """
    has_matrix = any(run.last_matrix() is not None for run in runs)
    has_targets, num_rows = bool(runs[0].targets), 2
    num_rows += has_matrix + has_targets
    size = (1.2 + 4.2 * len(runs), 9.5 if num_rows == 3 else 6.6 if num_rows == 2 else 12.4)
    figure, axes = subplots(num_rows, len(runs), size)
    largest = max(max(r["proportions"]) for run in runs for r in run.trained_rounds() or run.records)
    for column, run in enumerate(runs):
        _draw_proportions(axes[0, column], run, largest)
        if has_targets:
            _draw_objective(axes[1, column], run)
        _draw_losses(axes[1 + has_targets, column], run)
        if has_matrix:
            _draw_matrix(axes[-1, column], run, figure)
    is_one = have_one_objective(runs)
    for row in axes[1 : 2 + has_targets] if is_one else axes[2:3]:
        _share_limits(row)
    axes[0, 0].set_ylabel("proportion")
    for axis, run in zip(axes[1], runs[:1] if is_one else runs, strict=False):
        axis.set_ylabel(f"objective ({UNITS[run.unit]})")
    axes[1 + has_targets, 0].set_ylabel("held-out loss (nats per token)")
    draw_legend(figure, axes[0, 0], 8)
    save(figure, output)


def _draw_proportions(axis, run: Run, largest: float) -> None:
    """What each phase of training drew from, and which updates were not taken.

    Shaded: the phases of LearnParams, or, of a method that judges whether it pays to move, where it does not.
    """
    ends = [record["step"] for record in run.records[1:]] + [run.last_step]
    judges = bool(run.judgements() or run.best_mixtures())
    for record, end in zip(run.records, ends, strict=True):
        moves = record.get("probability", 0.0) >= 0.5 or record.get("trust", 0.0) > 0
        is_shaded = not moves if judges else record["phase"] == "learn_params"
        if is_shaded and end > record["step"]:
            axis.axvspan(record["step"], end, color="0.92", linewidth=0)
    if rounds := run.trained_rounds():
        starts = [record["step"] for record in rounds]
        shares = np.array([record["proportions"] for record in rounds])
        everyone = np.arange(len(run.groups))
        draw_proportions(axis, starts, run.last_step, shares, run.groups, everyone)
    axis.set_ylim(0, largest * 1.15)
    axis.set_title(run_title(run))
    learns = run.last_matrix() is not None
    shaded = "no evidence to move by" if judges else "LearnParams" if learns else ""
    axis.set_xlabel(f"step (shaded: {shaded})" if shaded else "step")
    _mark_not_taken(axis, run)


def _mark_not_taken(axis, run: Run) -> None:
    """A marker at each update that was not taken; what each kind of marker means stands below the panel."""
    not_taken, handles = run.updates_not_taken(), []
    for steps, marker in zip(not_taken.values(), cycle("xvsDo"), strict=False):
        height, place = [0.96] * len(steps), axis.get_xaxis_transform()
        handles.append(axis.scatter(steps, height, 16, "0.3", marker=marker, transform=place, clip_on=False))
    if handles:
        words = [f"stays: {reason}" for reason in not_taken]
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "borderaxespad": 0.0}
        axis.legend(handles, words, frameon=False, fontsize=7, handletextpad=0.2, **below)


def _draw_objective(axis, run: Run) -> None:
    """What the mixture is for, as one bold curve; the fast fall of the first quarter runs off the panel."""
    measured = _measured(run, "target_loss", len(run.target_names))
    steps = list(measured)
    values = [run.objective.value(losses) for losses in measured.values()]
    axis.plot(steps, values, color="black", marker="o", ms=4, lw=2.8)
    if finite := [point for point in zip(steps, values, strict=True) if np.isfinite(point[1])]:
        last = finite[-1]
        place, side = ((-4, 10), "right") if last[0] > run.last_step / 2 else ((8, 2), "left")
        axis.annotate(f"{last[1]:.3f}", last, place, textcoords="offset points", ha=side)
        late = [value for step, value in finite if step >= run.last_step / 4] or [v for _, v in finite]
        room = 0.1 * (np.ptp(late) or 0.2 * abs(late[0])) + 1e-3
        axis.set_ylim(min(late) - room, max(late) + room)
    _show_steps(axis, run)


def _draw_losses(axis, run: Run) -> None:
    """Held-out losses: of targets that are no group in black, of the groups in their colors."""
    other = [index for index, name in enumerate(run.target_names) if name not in run.groups]
    measured = _measured(run, "target_loss", len(run.target_names)) if other else {}
    for index, style, marker in zip(other, cycle(("-", "--", ":", "-.")), cycle("o^sDv"), strict=False):
        values = [losses[index] for losses in measured.values()]
        label = f"target {run.target_names[index]}"
        axis.plot(list(measured), values, f"k{style}{marker}", ms=3.5, lw=1.5, label=label)
    measured = _measured(run, "validation_loss", len(run.groups))
    steps = list(measured)
    for index, color in enumerate(group_colors(len(run.groups))):
        values = [measured[step][index] for step in steps]
        axis.plot(steps, values, color=color, marker="o", ms=2.5, lw=1.2)
    if steps:
        mean = [np.mean(measured[step]) for step in steps]
        (line,) = axis.plot(
            steps, mean, "k--" if not run.targets else "0.6", lw=1.5, label="mean of the groups"
        )
        line.set_marker("_" if len(steps) == 1 else "None")
        axis.legend(frameon=False)
    _show_steps(axis, run)


def _measured(run: Run, key: str, size: int) -> dict[int, np.ndarray]:
    """The losses [size] of each evaluation by step, in order; those before the groups or targets changed are
    left out."""
    lines = {record["step"]: record[key] for record in run.losses if len(record.get(key, ())) == size}
    start = run.records[0]["step"]
    return {step: np.array(lines[step], dtype=np.float64) for step in sorted(lines) if step >= start}


def _show_steps(axis, run: Run) -> None:
    """The steps of the run, with room for the markers at both ends."""
    last = max(1, run.last_step)
    axis.set_xlim(-0.02 * last, 1.02 * last)
    axis.set_xlabel("step")
    if not _has_points(axis):
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not measured yet", transform=axis.transAxes, ha="center", color="0.5")


def _draw_matrix(axis, run: Run, figure) -> None:
    """The last round's normalised A: row = target whose loss drops, column = group trained on; or nothing."""
    matrix = run.last_matrix()
    if matrix is None:
        axis.axis("off")
        return
    image = axis.imshow(matrix, cmap="viridis")
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set_xticks(range(len(run.groups)), run.groups, rotation=45, ha="right")
    axis.set_yticks(range(len(run.target_names)), run.target_names)
    axis.set_title("mixing matrix A, last round", fontsize=10)
    axis.set_xlabel("trained on")
    axis.set_ylabel("loss drop of")


def _share_limits(axes) -> None:
    """One scale for a row of panels; those without anything measured do not widen it."""
    drawn = [axis for axis in axes if _has_points(axis)]
    limits = [axis.get_ylim() for axis in drawn]
    for axis in drawn:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _has_points(axis) -> bool:
    return any(len(line.get_xdata()) for line in axis.lines)
