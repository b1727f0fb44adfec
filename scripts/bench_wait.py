"""How long a training step waits for its rows, on one rank of many.

    .venv/bin/python scripts/bench_wait.py --ranks 1 64 256 2048

One rank of so many plans all rows of a step and reads its own, as in training. Reading is slowed down to
--read-ms a row, as on a cold network disk, and a step sleeps for --step-ms in place of training: with less to
read than that, no step but a phase's first ought to wait.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.methods import UNTIL_END
from titan_aioli.testing.stores import numbered_group


def main() -> None:
    args = parse_args()
    table = Table("ranks", "rows a step", "first step, ms", "mean wait", "longest wait")
    waits(1, args)  # what is compiled at the first use
    for ranks in args.ranks:
        first, *later = waits(ranks, args)
        numbers = first, float(np.mean(later)), max(later)
        table.add_row(str(ranks), str(ranks * args.rows), *(f"{1e3 * each:.1f}" for each in numbers))
        print(f"{ranks} ranks done", flush=True)
    Console().print(table)


def waits(ranks: int, args: argparse.Namespace) -> list[float]:
    """Seconds that each step waits for its rows."""
    groups = [numbered_group(name, at * 10**6, 100_000) for at, name in enumerate("ab")]
    ledger = Ledger([LedgerEntry(0, 0, np.array([0.5, 0.5]), "train", 0)])
    loader = MixtureLoader(groups, ledger, ranks * args.rows, args.rows, 0, ranks)
    read = loader.reader.read

    def read_slowly(kinds: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        time.sleep(len(places) * args.read_ms / 1e3)
        read(kinds, places, out)

    loader.reader.read = read_slowly
    loader.start_phase(UNTIL_END)
    batches, seconds = iter(loader), []
    for _ in range(args.steps):
        start = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - start)
        time.sleep(args.step_ms / 1e3)
    return seconds


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 64, 256, 2048], help="data-parallel ranks"
    )
    parser.add_argument("--rows", type=int, default=8, help="rows of a rank in a step")
    parser.add_argument("--steps", type=int, default=60, help="steps")
    parser.add_argument("--read-ms", type=float, default=2.0, help="what reading a row takes")
    parser.add_argument("--step-ms", type=float, default=50.0, help="what a step takes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
