"""The checkpoints that torchtitan leaves in a run's folder."""

import re
from pathlib import Path

LAST_WRITTEN = (".metadata", "model.safetensors.index.json")
"""Files of a checkpoint that are written when all else is there."""


NEW = "-new"
"""Suffix of a converted checkpoint that is not yet where the old one was."""


def checkpoints(folder: Path) -> dict[int, Path]:
    """The whole checkpoints in a folder, by their step; none if it is not there.

    One that a killed run has left half-written does not count: torchtitan does not resume from it either.
    """
    named = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*"))
    return {
        int(match[1]): path
        for match, path in named
        if match and any((path / name).is_file() for name in LAST_WRITTEN)
    }


def put_in_place(folder: Path, aside: Path) -> Path | None:
    """Move a converted checkpoint to the place of the old one, which lies aside already; None without one.

    Both lie aside only between the last two steps of a conversion, so a killed one is finished with this.
    """
    for name in (kept.name for kept in checkpoints(aside).values()):
        if (aside / f"{name}{NEW}").is_dir() and not (folder / name).exists():
            return (aside / f"{name}{NEW}").rename(folder / name)
    return None
