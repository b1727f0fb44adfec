#!/usr/bin/env python
"""Tokens per second of our loader against its limit and its peers, and what restoring costs.

    .venv/bin/python scripts/bench_loader.py                        # some ten minutes; 8 GB of disk
    .venv/bin/python scripts/bench_loader.py --groups 7 --batch-sizes 8 --repeats 9 --json loader.json

All read packed sequences of the same stores on one rank and do nothing with them:

    ours        MixtureLoader, read in the calling thread and with its read-ahead in the background
    limit       (a) a bare NumPy gather of as many rows: out[i] = tokens[start : start + S + 1], int64
    torchdata   (b) torchdata.nodes.MultiNodeWeightedSampler over the same memory maps, one node a group
    datasets    (c) datasets.interleave_datasets over the same packed sequences, one dataset a group
    torchtitan  (d) torchtitan 0.2.2's text dataset, which tokenizes as it goes (one dataset, no groups)

They take turns, so that a noisy machine is noisy for all; a ratio is the median over turns of the ratio
within a turn. Everyone reads rows that nobody read before, as training does: a row is touched once an epoch,
so it is in no CPU cache. The files are in the page cache; each peer maps them once and keeps its maps.
Stores have 8 MB or more, so that Linux maps them with huge pages whatever their number: with --tokens
500000000 the 1,000 groups have 1 MB each, and every reader, the limit too, pays for small pages.
"""

import argparse
import gc
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from titan_aioli.data.group import Group
from titan_aioli.data.ledger import Ledger, LedgerEntry
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.megatron import MegatronWriter
from titan_aioli.data.schedule import Position
from titan_aioli.data.tokens import open_store
from titan_aioli.device import enable_cpu

VOCAB_SIZE = 50_000
PEERS = ("ours", "ours read ahead", "limit", "torchdata", "datasets", "torchtitan")
PLANNED = ("ours", "ours read ahead", "limit")
RESTORE_ROWS = (10**3, 10**9)
SHARE = {"datasets": 1 / 8, "torchtitan": 1 / 64}
"""How much of a turn's rows the slow peers read."""


def write_stores(folder: Path, num_groups: int, num_tokens: int) -> list[Path]:
    """Stores of random tokens, `num_tokens` in all."""
    rng, prefixes = np.random.default_rng(0), []
    tokens = rng.integers(0, VOCAB_SIZE, num_tokens // num_groups).astype(np.uint16)
    for index in range(num_groups):
        prefix = folder / f"group{index:04d}"
        with MegatronWriter(prefix, np.uint16) as writer:
            writer.add(np.roll(tokens, index))
        prefixes.append(prefix)
    return prefixes


def write_text(folder: Path) -> None:
    """Text of a small vocabulary and a tokenizer for it: 4 MB in documents of some 400 words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 9))) for _ in range(5000)]
    documents = [" ".join(rng.choice(words, 400)) for _ in range(2000)]
    (folder / "text").mkdir()
    (folder / "text" / "documents.jsonl").write_text(
        "".join(json.dumps({"text": d}) + "\n" for d in documents)
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(documents[:500], trainer)
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    names = {"bos_token": special[0], "eos_token": special[1]}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(names))


class Case:
    """One number of groups and batch size, and how each peer reads it."""

    def __init__(self, folder: Path, prefixes: list[Path], args: argparse.Namespace, batch_size: int):
        self.folder, self.prefixes, self.batch_size = folder, prefixes, batch_size
        self.seq_len, self.num_groups = args.seq_len, len(prefixes)
        self.clock = time.process_time if args.cpu_time else time.perf_counter
        self.steps = max(1, args.rows // batch_size)
        self.proportions = np.random.default_rng(1).dirichlet(np.full(self.num_groups, 4.0))
        self.turn = 0
        self._stores: dict[str, list[Any]] = {}
        loader = self.loader(0)
        self.starts, self.plans = [loader.position], []
        for _ in range((args.repeats + 1) * len(PLANNED)):
            self.plans.append(loader.schedule.plan(self.starts[-1], self.proportions, self.steps))
            self.starts.append(self.plans[-1].position_after(self.steps - 1))

    def stores(self, peer: str) -> list[Any]:
        """The stores as a peer mapped them when it first read: a training run maps them once too."""
        if peer not in self._stores:
            self._stores[peer] = [open_store(prefix) for prefix in self.prefixes]
        return self._stores[peer]

    def loader(self, read_ahead: int, peer: str = "ours") -> MixtureLoader:
        parts = zip(self.prefixes, self.stores(peer), strict=True)
        groups = [Group(prefix.name, [store], self.seq_len) for prefix, store in parts]
        ledger = Ledger([LedgerEntry(0, 0, self.proportions, "train", 0)])
        return MixtureLoader(groups, ledger, self.batch_size, self.batch_size, read_ahead=read_ahead)

    def part(self, peer: str) -> int:
        """Which part of the plan a peer reads in this turn: no part is read twice."""
        return self.turn * len(PLANNED) + PLANNED.index(peer)

    def ours(self, peer: str = "ours", read_ahead: int = 0) -> Iterator[Any]:
        loader = self.loader(read_ahead, peer)
        loader.seek(self.starts[self.part(peer)])
        loader.start_phase(loader.position.step + self.steps)
        return iter(loader)

    def ours_read_ahead(self) -> Iterator[Any]:
        return self.ours("ours read ahead", read_ahead=4)

    def limit(self) -> Iterator[Any]:
        maps = [store.tokens for store in self.stores("limit")]
        block = self.plans[self.part("limit")]
        rows = zip(block.groups.tolist(), (block.sequences * self.seq_len).tolist(), strict=True)
        return (self._gather(maps, groups, starts) for groups, starts in rows)

    def _gather(self, maps: list[Any], groups: list[int], starts: list[int]) -> np.ndarray:
        length = self.seq_len + 1
        out = np.empty((len(starts), length), dtype=np.int64)
        for index, (group, start) in enumerate(zip(groups, starts, strict=True)):
            out[index] = maps[group][start : start + length]
        return out

    def torchdata(self) -> Iterator[Any]:
        from torchdata.nodes import Batcher, IterableWrapper, Loader, Mapper, MultiNodeWeightedSampler

        rng = np.random.default_rng(self.turn)
        stores = [store.tokens for store in self.stores("torchdata")]
        orders = [rng.permutation((len(tokens) - 1) // self.seq_len).tolist() for tokens in stores]

        def rows(group: int) -> Iterator[tuple[int, Any]]:
            tokens = stores[group]
            for sequence in orders[group]:
                yield group, tokens[sequence * self.seq_len : (sequence + 1) * self.seq_len + 1]

        def collate(batch: list[tuple[int, Any]]) -> Any:
            tokens = torch.from_numpy(np.stack([row for _, row in batch]).astype(np.int64))
            group = torch.tensor([group for group, _ in batch])
            return {"input": tokens[:, :-1], "group": group}, tokens[:, 1:]

        sources = {str(group): IterableWrapper(rows(group)) for group in range(self.num_groups)}
        weights = {str(group): float(share) for group, share in enumerate(self.proportions)}
        mixed = MultiNodeWeightedSampler(sources, weights, stop_criteria="FIRST_DATASET_EXHAUSTED")
        return iter(Loader(Mapper(Batcher(mixed, self.batch_size), collate)))

    def datasets(self) -> Iterator[Any]:
        import datasets
        import pyarrow as pa

        parts = []
        for number, store in enumerate(self.stores("datasets")):
            tokens: Any = store.tokens
            count = (len(tokens) - 1) // self.seq_len
            buffer = pa.py_buffer(tokens[: count * self.seq_len])
            flat = pa.Array.from_buffers(pa.uint16(), count * self.seq_len, [None, buffer])
            packed = pa.FixedSizeListArray.from_arrays(flat, self.seq_len)
            table = pa.table({"tokens": packed})
            name = f"{self.num_groups}-{number}"  # else every store is read and copied, to hash it
            parts.append(datasets.Dataset(table, fingerprint=name).with_format("numpy"))
        mixed = datasets.interleave_datasets(
            parts,
            probabilities=self.proportions.tolist(),
            seed=self.turn,
            stopping_strategy="first_exhausted",
        )
        return (
            torch.from_numpy(np.asarray(batch["tokens"]).astype(np.int64))
            for batch in mixed.iter(self.batch_size)
        )

    def torchtitan(self) -> Iterator[Any]:
        enable_cpu()  # before the first import of torchtitan
        import datasets
        from torchtitan.components.tokenizer import HuggingFaceTokenizer
        from torchtitan.config import JobConfig
        from torchtitan.hf_datasets import text_datasets

        datasets.disable_progress_bars()
        text_datasets.DATASETS["bench"] = text_datasets.DatasetConfig(
            path=str(self.folder / "text"),
            loader=lambda path: datasets.load_dataset(
                path, split="train", cache_dir=str(self.folder / "cache")
            ),
            sample_processor=lambda sample: sample["text"],
        )
        config = JobConfig()
        config.training.dataset = "bench"
        config.training.local_batch_size, config.training.seq_len = self.batch_size, self.seq_len
        tokenizer = HuggingFaceTokenizer(str(self.folder / "tokenizer"))
        return iter(text_datasets.build_text_dataloader(1, 0, tokenizer, config))

    def tokens_per_second(self, peer: str) -> float:
        """Of one turn: what is planned and read, not the opening of the stores."""
        batches: Iterator[Any] = getattr(self, peer.replace(" ", "_"))()
        steps = max(1, round(self.steps * SHARE.get(peer, 1)))
        gc.collect()
        gc.disable()  # as torchtitan does
        start = self.clock()
        for _ in range(steps):
            next(batches)
        elapsed = self.clock() - start
        gc.enable()
        return steps * self.batch_size * self.seq_len / elapsed

    def restore_ms(self, row: int) -> float:
        """Milliseconds from a saved state at a row to the first batch."""
        loader, step = self.loader(0), row // self.batch_size
        drawn = np.floor(self.proportions * row).astype(np.int64)
        loader.seek(Position(step, step * self.batch_size, np.zeros(self.num_groups), drawn))
        state = loader.state_dict()
        start = self.clock()
        loader.load_state_dict(state)
        loader.start_phase(step + 10_000)
        next(iter(loader))
        return (self.clock() - start) * 1e3


def measure(case: Case, peers: list[str], repeats: int) -> dict[str, list[float]]:
    """Tokens per second of every peer in every turn but the first, in which they map the stores; the order
    rotates from turn to turn."""
    speeds: dict[str, list[float]] = {peer: [] for peer in peers}
    label = f"G={case.num_groups}, B={case.batch_size}"
    for turn in tqdm(range(repeats + 1), desc=label, leave=False, disable=None):
        case.turn = turn
        for peer in peers[turn % len(peers) :] + peers[: turn % len(peers)]:
            speeds[peer].append(case.tokens_per_second(peer))
    return {peer: values[1:] for peer, values in speeds.items()}


def restore_ratio(case: Case, repeats: int) -> tuple[dict[str, float], float]:
    """Milliseconds to restore at each row, and the ratio of the last to the first."""
    times = {row: [] for row in RESTORE_ROWS}
    for _ in range(repeats):
        for row in RESTORE_ROWS:
            times[row].append(case.restore_ms(row))
    medians = {f"1e{len(str(row)) - 1}": statistics.median(values) for row, values in times.items()}
    return medians, median_ratio(times[RESTORE_ROWS[-1]], times[RESTORE_ROWS[0]])


def median_ratio(ours: list[float], other: list[float]) -> float:
    """Of neighbouring turns."""
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def summary(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """What --json writes of one case; the ratios are those of the loader without read-ahead."""
    content: dict[str, Any] = {
        "tokens_per_s": {peer: statistics.median(values) for peer, values in speeds.items()}
    }
    for peer in speeds:
        if peer != "ours":
            content[f"ratio_to_{peer.replace(' ', '_')}"] = median_ratio(speeds["ours"], speeds[peer])
    return content


def show(results: dict[str, Any], console: Console) -> None:
    """Speeds and ratios as a table."""
    table = Table(title="million tokens/s (ours is so many times as fast)")
    table.add_column("case")
    for peer in PEERS:
        table.add_column(peer, justify="right")
    for name, result in results.items():
        cells = []
        for peer in PEERS:
            speed, ratio = result["tokens_per_s"].get(peer), result.get(f"ratio_to_{peer.replace(' ', '_')}")
            text = "-" if speed is None else f"{speed / 1e6:.3g}"
            cells.append(text + ("" if ratio is None else f" ({ratio:.2f})"))
        table.add_row(name, *cells)
    console.print(table)


def main() -> None:
    args = parse_args()
    console, results, restores = Console(width=120), {}, {}
    costs: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory(prefix="bench_loader", dir=args.folder) as name:
        folder = Path(name)
        if "torchtitan" in args.peers:
            write_text(folder)
        for num_groups in args.groups:
            stores = folder / "stores"
            prefixes = write_stores(stores, num_groups, args.tokens)
            for batch_size in args.batch_sizes:
                case = Case(folder, prefixes, args, batch_size)
                result = summary(measure(case, args.peers, args.repeats))
                results[f"G={num_groups},B={batch_size}"] = result
                costs[num_groups, batch_size] = 1e6 * args.seq_len / result["tokens_per_s"]["ours"]
                medians, ratio = restore_ratio(case, args.restores)
                result.update(restore_ms=medians, restore_ratio=ratio)
                restores[f"G={num_groups},B={batch_size}"] = (medians, ratio)
            shutil.rmtree(stores)
    show(results, console)
    for (num_groups, batch_size), cost in costs.items():
        growth = cost / costs[args.groups[0], batch_size]
        results[f"G={num_groups},B={batch_size}"].update(us_per_row=cost, cost_growth=growth)
        medians, ratio = restores[f"G={num_groups},B={batch_size}"]
        shown = ", ".join(f"{value:.1f} ms at row {row}" for row, value in medians.items())
        console.print(
            f"G={num_groups}, B={batch_size}: {cost:.2f} us a row ({growth:.2f} x that of "
            f"G={args.groups[0]}); restore {shown} (ratio {ratio:.2f})"
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[7, 100, 1000], help="numbers of groups")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64], help="rows of a step")
    parser.add_argument("--seq-len", type=int, default=2048, help="inputs of a sequence")
    parser.add_argument("--tokens", type=int, default=4_000_000_000, help="tokens of all groups together")
    parser.add_argument("--rows", type=int, default=8192, help="rows of a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every peer")
    parser.add_argument("--restores", type=int, default=15, help="restores timed at each row")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of all threads, for a busy machine")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="who takes part")
    parser.add_argument("--folder", type=Path, help="where the temporary stores go (2 bytes a token)")
    parser.add_argument("--json", type=Path, help="write the results here too")
    args = parser.parse_args()
    args.peers = [peer for peer in PEERS if peer in args.peers or peer == "ours"]
    return args


if __name__ == "__main__":
    main()
