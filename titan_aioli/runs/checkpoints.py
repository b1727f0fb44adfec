"""The checkpoints that torchtitan leaves in a run's folder."""

import re
from pathlib import Path


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder, by their step; none if it is not there."""
    named = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*"))
    return {int(match[1]): path for match, path in named if match}
