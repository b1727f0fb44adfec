"""The audit: one line for each row trained on, so that "which data did step 1,234 see" has an answer.

`rows.csv` in the dump folder holds the global plan (all ranks plan the same rows; one writes them). A
resumed run cuts it back to the rows that its checkpoint has trained.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from titan_aioli.data.schedule import Block

HEADER = "row,step,group,epoch,sequence\n"


class AuditFile:
    """Appends the rows of every step to a CSV file."""

    def __init__(self, path: Path, group_names: Sequence[str]):
        self.path = path
        self._group_names = list(group_names)
        self._rewound = False

    def write_step(self, block: Block, index: int) -> None:
        """The rows of one step of a block, in training order."""
        step, first_row = block.step(index), block.first_row(index)
        if not self._rewound:
            self._rewind(first_row)
        columns = zip(block.groups[index], block.epochs[index], block.sequences[index], strict=True)
        lines = [
            f"{first_row + place},{step},{self._group_names[group]},{epoch},{sequence}\n"
            for place, (group, epoch, sequence) in enumerate(columns)
        ]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _rewind(self, first_row: int) -> None:
        """Keep the header and the lines of rows before `first_row`."""
        self._rewound = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if first_row == 0 or not self.path.is_file():
            self.path.write_text(HEADER, encoding="utf-8")
            return
        with open(self.path, "rb") as file:
            file.readline()
            while line := file.readline():
                is_whole = line.endswith(b"\n")  # a killed run, or a full disk, may leave half a line
                if not is_whole or int(line.split(b",", 1)[0]) >= first_row:
                    os.truncate(self.path, file.tell() - len(line))
                    return
