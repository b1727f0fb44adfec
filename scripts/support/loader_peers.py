"""Our loader and the others that bench_loader.py times, each as an iterator over packed sequences."""

import argparse
import functools
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.group import Group
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.schedule import Position
from titan_aioli.hosts.titan.cpu import enable_cpu
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.store import open_store

VOCAB_SIZE = 50_000
PEERS = ("ours", "ours read ahead", "limit", "torchdata", "datasets", "torchtitan")
PLANNED = ("ours", "ours read ahead", "limit")
SHARE = {"datasets": 1 / 8, "torchtitan": 1 / 64}
"""Share of a turn's rows that a slow peer reads."""


def write_stores(folder: Path, num_groups: int, num_tokens: int) -> list[Path]:
    """Stores of random tokens, `num_tokens` in all."""
    rng, prefixes = np.random.default_rng(0), []
    tokens = rng.integers(0, VOCAB_SIZE, num_tokens // num_groups).astype(np.uint16)
    for index in range(num_groups):
        prefix = folder / f"group{index:04d}"
        with MegatronWriter(prefix, "uint16") as writer:
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


@functools.cache
def mapped_stores(prefixes: tuple[Path, ...], peer: str) -> list[Any]:
    """Stores as a peer maps them, once, as a training run does; all their pages are mapped in already."""
    stores = [open_store(prefix) for prefix in prefixes]
    for store in stores:
        store.tokens[::1024].max()
    return stores


class Case:
    """One number of groups and batch size, and how each peer reads it."""

    def __init__(self, folder: Path, prefixes: list[Path], args: argparse.Namespace, batch_size: int):
        """Args:
        folder: has the text and its tokenizer, for torchtitan.
        prefixes: of the stores, one per group.
        args: of the command.
        batch_size: rows per step.
        """
        self.name = f"G={len(prefixes)},B={batch_size}"
        self.folder, self.prefixes, self.batch_size = folder, prefixes, batch_size
        self.seq_len, self.num_groups = args.seq_len, len(prefixes)
        self.clock = time.process_time if args.cpu_time else time.perf_counter
        self.steps = max(1, args.rows // batch_size)
        self.proportions = np.random.default_rng(1).dirichlet(np.full(self.num_groups, 4.0))
        self.turn = 0
        loader = self.loader(0)
        self.starts, self.plans = [loader.position], []
        for _ in range((args.repeats + 1) * len(PLANNED)):
            self.plans.append(loader.schedule.plan(self.starts[-1], self.proportions, self.steps))
            self.starts.append(self.plans[-1].position_after(self.steps - 1))

    def stores(self, peer: str) -> list[Any]:
        return mapped_stores(tuple(self.prefixes), peer)

    def loader(self, read_ahead: int, peer: str = "ours") -> MixtureLoader:
        parts = zip(self.prefixes, self.stores(peer), strict=True)
        groups = [Group(prefix.name, [store], self.seq_len, vocab_size=VOCAB_SIZE) for prefix, store in parts]
        ledger = Ledger([LedgerEntry(0, 0, self.proportions, "train", 0)])
        size = self.batch_size  # and the seed: other rows than the case beside, which would be in a CPU cache
        settings: Any = {"seed": size, "read_ahead": read_ahead, "pin_memory": torch.cuda.is_available()}
        return MixtureLoader(groups, ledger, size, size, **settings)

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
