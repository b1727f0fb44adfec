"""Toy token stores whose tokens tell where they come from."""

from pathlib import Path

import numpy as np

from titan_aioli.data.group import Group
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.tokens import TokenStore

VOCAB_SIZE = 256


def numbered_group(name: str, first_token: int, num_sequences: int, seq_len: int = 4) -> Group:
    """A group in memory whose sequence k starts with token first_token + k * seq_len."""
    tokens = np.arange(first_token, first_token + num_sequences * seq_len + 1)
    return Group(name, [TokenStore(name, tokens)], seq_len)


def write_stores(folder: Path, num_documents: int = 40) -> Path:
    """The folder, with stores of three groups of counting documents; each group has its own range of tokens.

    Args:
        folder: gets `a`, `b` and `c`, each with the stores `train`, `validation` and `test`, and a target `d`
            that is no group, without `train`; some 100 kB.
        num_documents: documents in `train`, 300 tokens each.
    """
    rng = np.random.default_rng(0)
    for name, low, high in (("a", 0, 60), ("b", 40, 160), ("c", 150, VOCAB_SIZE), ("d", 20, 120)):
        for split, count in (("train", num_documents * (name != "d")), ("validation", 8), ("test", 6)):
            if count:
                _write_store(folder / name / split, count, low, high, rng)
    return folder


def _write_store(prefix: Path, num_documents: int, low: int, high: int, rng: np.random.Generator) -> None:
    """A store of counting documents of 300 tokens in range(low, high)."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with MegatronWriter(prefix, "uint16") as writer:
        for _ in range(num_documents):
            start, stride = rng.integers(0, high - low), rng.integers(1, 4)
            writer.add(((start + np.arange(300) * stride) % (high - low) + low).astype(np.uint16))
