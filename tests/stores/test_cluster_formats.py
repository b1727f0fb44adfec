"""Stores that engines for clusters write: datatrove's shards, and OLMo-core's arrays without a header."""

import struct

import numpy as np
import pytest

from titan_aioli.stores.split import parse_split, split_store
from titan_aioli.stores.store import open_store, store_exists


def write_ds(path, documents, letter="H"):
    """As datatrove writes it: tokens, and the end of each document in tokens."""
    tokens = [token for document in documents for token in document]
    path.write_bytes(struct.pack(f"<{len(tokens)}{letter}", *tokens))
    ends = np.cumsum([len(document) for document in documents]).tolist()
    path.with_name(f"{path.name}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    path.with_name(f"{path.name}.metadata").write_text(f"gpt2|{struct.calcsize(letter)}\n{len(tokens)}\n7 T")
    return path


@pytest.mark.parametrize(("letter", "largest"), [("H", 65_535), ("I", 2**31 - 1)])
def test_a_shard_of_datatrove(tmp_path, letter, largest):
    store = open_store(write_ds(tmp_path / "a.ds", [[5, 6, 0], [largest, 0]], letter))
    assert store.tokens.tolist() == [5, 6, 0, largest, 0]
    assert store.document_offsets.tolist() == [0, 3, 5]


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_a_shard_of_another_width_than_the_dtype_is_refused(tmp_path, dtype):
    path = write_ds(tmp_path / "a.ds", [[5, 6, 0], [7, 8, 0]])
    assert open_store(path, "uint16").tokens.tolist() == [5, 6, 0, 7, 8, 0]
    with pytest.raises(ValueError, match=rf"its dtype is uint16, but {dtype} was given: leave it out"):
        open_store(path, dtype)


def test_a_folder_of_shards_is_one_store(tmp_path):
    write_ds(tmp_path / "00001.ds", [[3, 0]])
    write_ds(tmp_path / "00000.ds", [[1, 1, 0], [2, 0]])
    assert store_exists(tmp_path)
    store = open_store(tmp_path)
    assert store.tokens[0:7].tolist() == [1, 1, 0, 2, 0, 3, 0]
    assert store.document_offsets.tolist() == [0, 3, 5, 7]
    parts = split_store(store, parse_split("2,1"))
    assert [part.tokens[:].tolist() for part in parts.values()] == [[1, 1, 0, 2, 0], [3, 0], []]


@pytest.mark.parametrize("index", [None, b"", bytes(8)], ids=["none", "empty", "zero"])
def test_shards_without_documents_are_left_out(tmp_path, index):
    for name in ("00000.ds", "00002.ds"):
        (tmp_path / name).touch()
        if index is not None:
            (tmp_path / f"{name}.index").write_bytes(index)
    with pytest.raises(ValueError, match="none of its 2 shards holds a token"):
        open_store(tmp_path)
    write_ds(tmp_path / "00001.ds", [[1, 1, 0], [2, 0]])
    store = open_store(tmp_path)
    assert store.tokens[0:5].tolist() == [1, 1, 0, 2, 0]
    assert store.document_offsets.tolist() == [0, 3, 5] and len(store.files) == 1
    (tmp_path / "00002.ds.index").write_bytes(struct.pack("<Q", 3))  # the data was not copied
    with pytest.raises(ValueError, match=r"00002\.ds: 0 bytes for the 3 tokens"):
        open_store(tmp_path)


def test_damaged_shards_are_named(tmp_path):
    path = write_ds(tmp_path / "a.ds", [[5, 6, 0], [7, 0]])
    with pytest.raises(ValueError, match=r"a\.ds: 9 bytes for the 5 tokens of its index"):
        path.write_bytes(path.read_bytes()[:-1])
        open_store(path)
    index = tmp_path / "a.ds.index"
    for content in (b"", b"12345", struct.pack("<2Q", 3, 2)):
        index.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.ds\.index: not the ends of documents"):
            open_store(path)
    index.unlink()
    with pytest.raises(ValueError, match=r"has no index a\.ds\.index"):
        open_store(path)


def test_an_array_without_a_header_needs_its_dtype(tmp_path):
    path = tmp_path / "part-0.npy"
    np.array([5, 6, 70_000], np.uint32).tofile(path)
    assert open_store(path, "uint32").tokens.tolist() == [5, 6, 70_000]
    with pytest.raises(ValueError, match=r"no NumPy header. .*give their dtype"):
        open_store(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="11 bytes are no whole number of uint32"):
        open_store(path, "uint32")
