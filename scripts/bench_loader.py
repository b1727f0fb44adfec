#!/usr/bin/env python
"""Tokens per second of our loader against its limit and its peers, and what restoring costs.

    .venv/bin/python scripts/bench_loader.py                        # four minutes; 13 GB of disk
    .venv/bin/python scripts/bench_loader.py --groups 7 --batch-sizes 8 --repeats 9 --json loader.json

All read packed sequences of the same stores on one rank and do nothing with them:

    ours        MixtureLoader, read in the calling thread and with its read-ahead in the background
    limit       (a) a bare NumPy gather of as many rows: out[i] = tokens[start : start + S + 1], int64
    torchdata   (b) torchdata.nodes.MultiNodeWeightedSampler over the same memory maps, one node per group
    datasets    (c) datasets.interleave_datasets over the same packed sequences, one dataset per group
    torchtitan  (d) torchtitan 0.2.2's text dataset, which tokenizes as it goes (one dataset, no groups)

In a turn every peer reads in every case, so that a noisy machine is noisy for all. A ratio, of two peers or
of two numbers of groups, is the median over turns of the ratio within a turn; the first turn does not count.
Everyone reads rows that nobody read before, as training does: a row is touched once per epoch, so it is in no
CPU cache. The files are in the page cache and mapped before. By default stores are whole multiples of 2 MiB,
which Linux maps with huge pages: the tail of a file beyond them has small pages, for which every reader pays,
the limit too. In large stores it is next to nothing; in 1,000 of 4 MB it would be half.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from support.loader_peers import PEERS, Case, write_stores, write_text

Speeds = dict[str, list[float]]
"""Tokens per second of each peer in every turn that counts."""


def measure(cases: list[Case], peers: list[str], repeats: int) -> list[Speeds]:
    """The speeds in each case; the order of cases and peers rotates from turn to turn."""
    speeds: list[Speeds] = [{peer: [] for peer in peers} for _ in cases]
    for turn in tqdm(range(repeats + 1), desc="turns", leave=False, disable=None):
        for index in _rotated(range(len(cases)), turn):
            cases[index].turn = turn
            for peer in _rotated(peers, turn):
                speeds[index][peer].append(cases[index].tokens_per_second(peer))
    return [{peer: values[1:] for peer, values in of_case.items()} for of_case in speeds]


def _rotated(items: Any, turn: int) -> list[Any]:
    start = turn % len(items)
    return [*items[start:], *items[:start]]


def restore_times(case: Case, repeats: int) -> tuple[dict[str, float], float]:
    """Milliseconds to restore at rows 10^3 and 10^9, and the ratio of the last to the first."""
    early, late = [], []
    for _ in range(repeats):
        early.append(case.restore_ms(10**3))
        late.append(case.restore_ms(10**9))
    return {"1e3": statistics.median(early), "1e9": statistics.median(late)}, median_ratio(late, early)


def median_ratio(ours: list[float], other: list[float]) -> float:
    """Median over the turns of the ratio within a turn."""
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def summary(case: Case, speeds: Speeds, smallest: Speeds, restores: int) -> dict[str, Any]:
    """What --json writes of one case; the ratios are those of the loader without read-ahead.

    Args:
        speeds: of the case.
        smallest: of the case with as large a batch and the first number of groups.
        restores: how often restoring is timed.
    """
    medians = {peer: statistics.median(values) for peer, values in speeds.items()}
    content: dict[str, Any] = {"tokens_per_s": medians}
    for peer in speeds:
        if peer != "ours":
            content[f"ratio_to_{peer.replace(' ', '_')}"] = median_ratio(speeds["ours"], speeds[peer])
    content["us_per_row"] = 1e6 * case.seq_len / medians["ours"]
    content["cost_growth"] = median_ratio(smallest["ours"], speeds["ours"])
    if "limit" in speeds:
        content["limit_cost_growth"] = median_ratio(smallest["limit"], speeds["limit"])
    content["restore_ms"], content["restore_ratio"] = restore_times(case, restores)
    return content


def show(results: dict[str, Any], first: int, console: Console) -> None:
    """Speeds, what a row costs and what restoring costs, as two tables."""
    table = Table(title="million tokens/s (ours is so many times as fast)")
    table.add_column("case")
    for peer in PEERS:
        table.add_column(peer, justify="right")
    costs = Table(title=f"ours: what a row costs (times that with {first} groups), and to restore")
    for name in ("case", "us per row", "growth", "that of the limit", "ms at row 10^3", "at 10^9", "ratio"):
        costs.add_column(name, justify="left" if name == "case" else "right")
    for name, result in results.items():
        cells = []
        for peer in PEERS:
            speed, ratio = result["tokens_per_s"].get(peer), result.get(f"ratio_to_{peer.replace(' ', '_')}")
            text = "-" if speed is None else f"{speed / 1e6:.3g}"
            cells.append(text + ("" if ratio is None else f" ({ratio:.2f})"))
        table.add_row(name, *cells)
        numbers = [result["us_per_row"], result["cost_growth"], result.get("limit_cost_growth", np.nan)]
        numbers += [*result["restore_ms"].values(), result["restore_ratio"]]
        costs.add_row(name, *(f"{number:.2f}" for number in numbers))
    console.print(table, costs)


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_loader", dir=args.folder) as name:
        folder = Path(name)
        if "torchtitan" in args.peers:
            write_text(folder)
        stores = [write_stores(folder / f"{number}_groups", number, args.tokens) for number in args.groups]
        cases = [Case(folder, prefixes, args, size) for prefixes in stores for size in args.batch_sizes]
        speeds = measure(cases, args.peers, args.repeats)
        smallest = speeds[: len(args.batch_sizes)] * len(args.groups)
        results = {
            case.name: summary(case, own, first, args.restores)
            for case, own, first in zip(cases, speeds, smallest, strict=True)
        }
    show(results, args.groups[0], Console(width=120))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[7, 100, 1000], help="numbers of groups")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64], help="rows per step")
    parser.add_argument("--seq-len", type=int, default=2048, help="inputs of a sequence")
    parser.add_argument("--tokens", type=int, default=1000 * 2**21, help="tokens of all groups together")
    parser.add_argument("--rows", type=int, default=8192, help="rows per turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every peer that count")
    parser.add_argument("--restores", type=int, default=15, help="restores timed at each row")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of all threads, for a busy machine")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="who takes part")
    parser.add_argument("--folder", type=Path, help="where the temporary stores go (2 bytes per token)")
    parser.add_argument("--json", type=Path, help="write the results here too")
    args = parser.parse_args()
    args.peers = [peer for peer in PEERS if peer in args.peers or peer == "ours"]
    return args


if __name__ == "__main__":
    main()
