"""`titan-aioli tokenize`: the same documents give the same bytes, however they come."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.splits import split_of
from titan_aioli.testing.text import TRAIN_ONLY, WORDS, numbered, save_jsonl, save_tokenizer, stores_in


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    return save_tokenizer(tmp_path / "tokenizer")


def test_tokens_and_an_end_after_every_document(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", [{"text": "one two"}, {"text": ""}, {"text": "three nine"}])
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out", **TRAIN_ONLY)
    store = open_store(tmp_path / "out/web/train")
    assert store.tokens.tolist() == [2, 3, 0, 4, 9, 0]
    assert store.document_offsets.tolist() == [0, 3, 6]  # type: ignore[union-attr]
    assert store.tokens.dtype == np.uint16
    expected = {"group": "web", "split": "train", "documents": 2, "tokens": 6, "text_bytes": 17}
    assert expected.items() <= store.metadata.items()
    assert store.metadata["vocab_size"] == 10 and store.metadata["end_of_document"] == 0


def test_a_special_token_spelled_out_in_a_text_ends_nothing(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", [{"text": "one <|endoftext|> two"}])
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out", **TRAIN_ONLY)
    tokens = open_store(tmp_path / "out/web/train").tokens.tolist()
    assert tokens[-1] == 0 and 0 not in tokens[:-1]


def test_ids_beyond_uint16_make_an_int32_store(tmp_path):
    folder = save_tokenizer(tmp_path / "large", [*WORDS, *(f"w{index}" for index in range(65536))])
    docs = save_jsonl(tmp_path / "docs.jsonl", [{"text": "one w65535"}])
    tokenize((docs,), group="web", tokenizer=folder, output=tmp_path / "out", **TRAIN_ONLY)
    store = open_store(tmp_path / "out/web/train")
    assert store.tokens.dtype == np.int32 and store.tokens.tolist() == [2, 65545, 0]


def save_as(kind, folder, records) -> str:
    """The records in a format, all with the same base name."""
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    folder.mkdir()
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(records), folder / "docs.parquet", row_group_size=70)
    elif kind == "saved dataset":
        datasets.Dataset.from_list(records).save_to_disk(folder)
        return str(folder)
    else:
        compressed = {"jsonl.gz": gzip.compress, "jsonl.zst": two_frames}.get(kind, bytes)(text)
        (folder / f"docs.{kind.removeprefix('hub ')}").write_bytes(compressed)
    return f"hf:{folder}" if kind.startswith("hub") else str(folder)


def two_frames(text: bytes) -> bytes:
    return zstandard.compress(text[:1000]) + zstandard.compress(text[1000:])


@pytest.mark.filterwarnings("ignore")
def test_every_format_gives_the_same_stores(tmp_path, tokenizer):
    records = [{**record, "meta": {"set": "ab"[index % 2]}} for index, record in enumerate(numbered(300))]
    found = {}
    for kind in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "saved dataset", "hub jsonl"):
        given, output = save_as(kind, tmp_path / kind, records), tmp_path / f"out {kind}"
        tokenize((given,), group_by="meta.set", tokenizer=tokenizer, output=output, processes=1)
        found[kind] = stores_in(output)
    assert len(found["jsonl"]) == 18  # two groups, three splits, three files
    for kind, stores in found.items():
        assert stores == found["jsonl"], kind


def test_one_and_four_processes_give_the_same_stores(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(500))
    for processes in (1, 4):
        tokenize(
            (docs,),
            group="web",
            tokenizer=tokenizer,
            output=tmp_path / f"out{processes}",
            processes=processes,
            shard_megabytes=0.001,
        )
    assert stores_in(tmp_path / "out1") == stores_in(tmp_path / "out4") != {}


def test_group_by_a_nested_field(tmp_path, tokenizer):
    sets = ["CommonCrawl", "Book", "CommonCrawl"]
    records = [{"text": f"one {index}", "meta": {"set": name}} for index, name in enumerate(sets)]
    docs = save_jsonl(tmp_path / "docs.jsonl", records)
    tokenize((docs,), group_by="meta.set", tokenizer=tokenizer, output=tmp_path / "out", **TRAIN_ONLY)
    assert open_store(tmp_path / "out/CommonCrawl/train").num_documents == 2
    assert open_store(tmp_path / "out/Book/train").num_documents == 1


def test_more_groups_than_are_merged_at_once(tmp_path, tokenizer, monkeypatch):
    records = [{"text": f"one {index}", "set": f"group {index % 5}"} for index in range(20)]
    docs = save_jsonl(tmp_path / "docs.jsonl", records)
    for at_once in (100, 2):
        monkeypatch.setattr("titan_aioli.stores.tokenize.merge.GROUPS_AT_ONCE", at_once)
        tokenize(
            (docs,), group_by="set", tokenizer=tokenizer, output=tmp_path / f"out{at_once}", **TRAIN_ONLY
        )
    assert stores_in(tmp_path / "out2") == stores_in(tmp_path / "out100")
    assert len(stores_in(tmp_path / "out2")) == 15


def test_a_folder_of_texts_is_one_document_a_file(tmp_path, tokenizer):
    for name, text in (("b.md", "two"), ("a.txt", "one"), ("deep/c.txt", "three"), (".hidden", "zero")):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(text)
    given = (str(tmp_path / "texts"),)
    tokenize(given, group="web", tokenizer=tokenizer, output=tmp_path / "out", **TRAIN_ONLY)
    assert open_store(tmp_path / "out/web/train").tokens.tolist() == [2, 0, 3, 0, 4, 0]


def test_the_split_of_a_text_never_changes():
    texts = [f"document {index}".encode() for index in range(10_000)]
    assert [split_of(text, 0.3, 0.3) for text in texts[:4]] == ["test", "test", "validation", "train"]
    splits = [split_of(text, 0.02, 0.05) for text in texts]
    assert 150 < splits.count("validation") < 250 and 430 < splits.count("test") < 570
    wider = [split_of(text, 0.10, 0.05) for text in texts]
    assert all(new == old for new, old in zip(wider, splits, strict=True) if old != "train")
