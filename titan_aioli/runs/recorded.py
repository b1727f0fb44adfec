"""An object in a file of a run, which somebody may have edited: what it lacks, the shapes of numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from titan_aioli.errors import UserError

RESULTS = {
    "epochs": "G",
    "validation_loss": "G",
    "test_loss": "G",
    "target_validation_loss": "K",
    "target_test_loss": "K",
    "objective": "",
    "test_objective": "",
}
"""Shapes of the numbers in results.json: a letter or a digit for each axis, G groups and K targets."""
RECORD = {
    "proportions": "G",
    "drawn": "G",
    "carry": "G",
    "normalized_A": "KG",
    "stderr": "G",
    "predicted_drop": "K",
    "measured_drop": "K",
    "centre": "G",
    "best": "G",
    "best_stderr": "",
    "trust": "",
    "speed": "2",
    "gain_steps": "2",
    "slopes": "G",
    "noise": "",
    "probability": "",
    "gain": "2",
    "measured_gain": "2",
}
"""Shapes of the numbers in a line of ledger.jsonl, besides the observation."""


class Recorded(dict[str, Any]):
    """The object; a key that is needed and not there is an error that names the file."""

    def __init__(self, content: Mapping[str, Any], where: str):
        """Args:
        content: the object.
        where: the file, and the line in it.
        """
        super().__init__(content)
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise self.fault(f"it has no {key!r}")

    def fault(self, what: str) -> UserError:
        """The error that says what is wrong with the object."""
        return UserError(f"{self.where} is not what a run writes: {what}")

    def require_all(self, shapes: Mapping[str, str], **sizes: int) -> None:
        """Check the numbers that are there.

        Args:
            shapes: by key, such as RECORD.
            sizes: of the axes that are letters.
        Raises: UserError: names the key, the value and the shape.
        """
        for key in shapes.keys() & self.keys():
            self.require(key, tuple(sizes[axis] if axis in sizes else int(axis) for axis in shapes[key]))

    def require(self, key: str, shape: tuple[int, ...]) -> None:
        """Check that the value of a key is numbers of that shape.

        Raises: UserError: names the key, the value and the shape.
        """
        if not _are_numbers(self[key], shape):
            wanted = f"numbers of shape {list(shape)}" if shape else "a number"
            raise self.fault(f"{key} is {str(self[key])[:100]}: it must be {wanted}")


def _are_numbers(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.array(value)
    except ValueError:  # lists of different lengths
        return False
    return array.dtype.kind in "iuf" and array.shape == shape
