#!/usr/bin/env python
"""Train a tiny model while its ranks are killed, its layout changes and its disk fills up; then count rows.

    .venv/bin/python scripts/soak.py --steps 2000 --json soak.json

Each start trains on 1, 2 or 4 data-parallel ranks, with checkpoints written in place or asynchronously. At a
random moment (while it starts, in a step or an evaluation, while a checkpoint is written) one rank, all ranks
or all ranks and torchrun get SIGKILL, and the next start resumes from the last checkpoint. Once, the
checkpoint folder is a file system without room for another checkpoint (a tmpfs in a mount namespace of its
own; where namespaces are not allowed, that is left out and said so). Every step ends with an evaluation.

The audit compares every row in rows.csv with what the ledger asks for. Exit status 1 if a row was lost,
repeated or drawn otherwise, or if a killed run did not resume from its last checkpoint.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from support.killing import MARK, Soak, train_and_kill
from titan_aioli.runs.audit import blocks
from titan_aioli.runs.read import read_run


def audit(run: Path, steps: int) -> dict[str, int]:
    """Rows that the ledger asks for, compared with those in rows.csv."""
    loaded, expected = read_run(run), []
    for block in blocks(loaded, 0, steps):
        for columns in zip(block.groups, block.epochs, block.sequences, strict=True):
            step = len(expected) // loaded.mixture["batch_size"]
            for group, epoch, sequence in zip(*columns, strict=True):
                row = [len(expected), step, loaded.groups[group], epoch, sequence]
                expected.append([str(value) for value in row])
    with open(run / "rows.csv", encoding="utf-8") as file:
        found = [line.rstrip("\n").split(",") for line in file][1:]
    numbers = Counter(row[0] for row in found)
    return {
        "rows": len(expected),
        "rows_lost": sum(row[0] not in numbers for row in expected),
        "rows_repeated": sum(count - 1 for count in numbers.values()),
        "rows_different": sum(one != other for one, other in zip(expected, found, strict=False)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps of the run (2000)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--kills", type=int, help="how many starts are killed, at most (steps / 20)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the kills (0); their moments vary all the same"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/soak"), help="emptied first")
    options = parser.parse_args()
    begun = time.monotonic()
    if (options.folder / MARK).is_file():  # an earlier soak's
        shutil.rmtree(options.folder)
    soak = Soak(options.folder, options.steps)
    kills = options.steps // 20 if options.kills is None else options.kills
    spacing = max(1, options.steps // max(1, kills))
    rng = random.Random(options.seed)
    done = train_and_kill(soak, kills, spacing, {1: 0.35, 2: 0.5, 4: 0.15}, rng, fill=True)
    done.update(audit(soak.run, options.steps), steps=options.steps)
    done["seconds"] = round(time.monotonic() - begun)
    if options.json:
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    table = Table("", "", title=f"soak of {options.steps} steps", show_header=False)
    for name, value in done.items():
        shown = ", ".join(f"{k}: {n}" for k, n in value.items()) if isinstance(value, Counter) else str(value)
        table.add_row(name.replace("_", " "), shown)
    Console().print(table)
    wrong = done["rows_lost"] + done["rows_repeated"] + done["rows_different"]
    return int(wrong > 0 or done["kills"] != done["resumed"])


if __name__ == "__main__":
    sys.exit(main())
