"""What the figures and tables of several commands share: set-up, proportions over time, saving, long tables.

matplotlib is imported where a figure is made, and draws to files only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray
Row = TypeVar("Row")

MAX_DRAWN = 12
"""Number of groups drawn; of more, those with the largest shares at the end."""
DOTS_PER_INCH = 130


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Array]:
    """A figure and its axes [rows, columns].

    Args:
        size: width and height in inches.
        options: of matplotlib's `subplots`, such as sharey.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def check_suffix(output: Path, option: str) -> None:
    """Check before the work that the figure can be written in the format of the file's suffix.

    Args:
        output: the file.
        option: that names it, for the message.
    Raises: ValueError: it has no suffix, or one that matplotlib does not write.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    if output.suffix.lower().removeprefix(".") not in FigureCanvasBase.filetypes:
        what = f"the suffix {output.suffix}" if output.suffix else "no suffix"
        others = ", ".join(sorted(f".{name}" for name in FigureCanvasBase.filetypes))
        raise ValueError(f"{option} {output} has {what}, which chooses the format: give it one of {others}")


def save(figure: Any, output: Path) -> None:
    """Write the figure, in the format of the file's suffix; the folder is made where it is missing."""
    from matplotlib import pyplot as plt

    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=DOTS_PER_INCH)
    plt.close(figure)


def group_colors(num_groups: int) -> list[Any]:
    """A color for each group, the same in every panel; of more than 20 groups some share one."""
    import matplotlib

    colors = matplotlib.colormaps["tab20" if num_groups > 10 else "tab10"].colors  # pyright: ignore
    return [colors[index % len(colors)] for index in range(num_groups)]


def trained(phases: Sequence[str]) -> list[int]:
    """Places of the phases of training: those of LearnParams and of mere measuring are left out."""
    return [n for n, phase in enumerate(phases) if phase in ("train", "prior")]


def largest(shares: Array) -> Array:
    """The groups to draw: at most MAX_DRAWN, those with the largest of the shares [G], in their order."""
    return np.sort(np.argsort(-shares, kind="stable")[:MAX_DRAWN])


def draw_proportions(
    axis: Any, starts: Sequence[int] | Array, end: int, shares: Array, names: Sequence[str], groups: Array
) -> None:
    """The proportions of each phase, a step line for each group.

    Args:
        axis: to draw on.
        starts: [P], steps at which the phases begin.
        end: step at which the last one ends.
        shares: [P, G].
        names: [G].
        groups: which of them to draw.
    """
    steps, colors = np.append(starts, end), group_colors(len(groups))
    for color, group in zip(colors, groups, strict=True):
        values = np.append(shares[:, group], shares[-1, group])
        axis.step(steps, values, where="post", label=names[group], color=color, lw=1.6)
    axis.set(xlabel="step", ylim=(0, None))


def draw_legend(figure: Any, axis: Any, most_columns: int) -> None:
    """The labels of one axis, as the legend above all of a figure."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        ncols = min(len(labels), most_columns)
        figure.legend(handles, labels, loc="outside upper center", ncols=ncols, frameon=False)


def first_and_last(rows: Sequence[Row], limit: int) -> list[Row]:
    """All rows, or if there are more than `limit`, the first and the last `limit // 2` of them."""
    half = limit // 2
    return list(rows) if len(rows) <= 2 * half else [*rows[:half], *rows[len(rows) - half :]]
