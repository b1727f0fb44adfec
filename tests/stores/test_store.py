"""Token stores: bytes written by hand are read back, and a damaged store is named, not mapped."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.metadata import write_sidecar
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokens import ChunkedTokens

INTEGER_CODES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}


def write_by_hand(prefix, code=8, sequences=((5, 6, 7), (8,), (9, 10)), documents=(0, 2, 3), **changed):
    """A store from the format's definition: three sequences, the first two of them one document."""
    letter = {**INTEGER_CODES, 6: "d", 7: "f"}.get(code, "H")
    width = struct.calcsize(letter)
    sizes = changed.get("sizes", [len(sequence) for sequence in sequences])
    starts = [sum(sizes[:index]) * width for index in range(len(sizes))]
    pointers = changed.get("pointers", starts)
    index = changed.get("magic", b"MMIDIDX\x00\x00") + struct.pack("<QB", changed.get("version", 1), code)
    index += struct.pack("<QQ", changed.get("count", len(sizes)), len(documents))
    index += struct.pack(f"<{len(sizes)}i", *sizes) + struct.pack(f"<{len(pointers)}q", *pointers)
    index += struct.pack(f"<{len(documents)}q", *documents)
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    data = b"".join(struct.pack(f"<{len(sequence)}{letter}", *sequence) for sequence in sequences)
    prefix.with_name(prefix.name + ".bin").write_bytes(data)
    return prefix


@pytest.mark.parametrize("code", INTEGER_CODES)
def test_every_integer_dtype_is_read_token_for_token(tmp_path, code):
    width = struct.calcsize(INTEGER_CODES[code])
    largest = 2 ** (8 * width - (code not in (1, 8))) - 1
    store = open_store(write_by_hand(tmp_path / "web", code, ((5, 6, 7), (8,), (9, largest))))
    assert store.tokens.tolist() == [5, 6, 7, 8, 9, largest]
    assert store.tokens.dtype.itemsize == width
    assert store.document_offsets.tolist() == [0, 4, 6]
    assert store.num_tokens == 6 and store.num_documents == 2


@pytest.mark.parametrize("suffix", ["", ".bin", ".idx"])
def test_prefix_with_or_without_suffix(tmp_path, suffix):
    write_by_hand(tmp_path / "web.v1")
    assert open_store(str(tmp_path / "web.v1") + suffix).num_tokens == 6


DAMAGES = {
    "magic": ({"magic": b"NOTANIDX\x00"}, r"web\.idx: not a Megatron index: it starts with b'NOTANIDX"),
    "version": ({"version": 2}, "version 2"),
    "unknown dtype": ({"code": 9}, "dtype code 9 is not known"),
    "float dtype": ({"code": 7}, "dtype code 7 is float32; floats are no token ids"),
    "too many sequences": ({"count": 4}, "holds 94 bytes, expected 106 for 4 sequences"),
    "huge count": ({"count": 2**62}, "holds 94 bytes, expected"),
    "negative size": ({"sizes": (3, -1, 2)}, "sequence 1 has the size -1 tokens"),
    "gap": (
        {"pointers": (0, 8, 10)},
        "sequence 1 starts at byte 8, but the sequences before it end at byte 6",
    ),
    "merged without documents": (
        {"documents": (0, 2)},
        "covers 2 of 3 sequences, as if stores were merged",
    ),
    "documents too long": (
        {"documents": (0, 4)},
        r"must rise from 0 to the number of sequences, 3, but it is",
    ),
    "documents fall": ({"documents": (0, 2, 1, 3)}, r"it is \[0, 2, 1, 3\]"),
    "no documents": ({"documents": ()}, "the document index must rise"),
    "more tokens than data": (
        {"sizes": (3, 1, 3)},
        r"web\.bin: holds 12 bytes, expected 14 for the 7 tokens",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_is_refused_with_the_reason(tmp_path, damage):
    changed, message = DAMAGES[damage]
    write_by_hand(tmp_path / "web", **changed)
    with pytest.raises(ValueError, match=message):
        open_store(tmp_path / "web")


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_every_truncation_is_refused(tmp_path, suffix):
    write_by_hand(tmp_path / "web")
    file = tmp_path / f"web{suffix}"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"web\{suffix}"):
            open_store(tmp_path / "web")


def test_missing_store_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no token store at .*web.*titan-aioli tokenize"):
        open_store(tmp_path / "web")
    write_by_hand(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match=r"is a folder; the stores in it are .*train\."):
        open_store(tmp_path)


def test_an_index_without_its_data_is_named(tmp_path):
    write_by_hand(tmp_path / "web").with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"web\.idx is there, but not its data .*web\.bin: copy it there"):
        open_store(tmp_path / "web")


def test_data_without_index_needs_a_dtype(tmp_path):
    (tmp_path / "raw.bin").write_bytes(struct.pack("<3H", 1, 2, 65535))
    assert open_store(tmp_path / "raw.bin", dtype="uint16").tokens.tolist() == [1, 2, 65535]
    with pytest.raises(ValueError, match="give the dtype if this is a raw array"):
        open_store(tmp_path / "raw.bin")
    with pytest.raises(ValueError, match="6 bytes are no whole number of int32"):
        open_store(tmp_path / "raw.bin", dtype="int32")
    with pytest.raises(ValueError, match="dtype float32 holds no token ids"):
        open_store(tmp_path / "raw.bin", dtype="float32")


def test_a_dtype_that_contradicts_the_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="says its dtype is uint16, but int32 was given"):
        open_store(write_by_hand(tmp_path / "web"), dtype="int32")


def test_npy(tmp_path):
    np.save(tmp_path / "web.npy", np.array([3, 1, 2], dtype=np.uint32))
    assert open_store(tmp_path / "web.npy").tokens.tolist() == [3, 1, 2]
    np.save(tmp_path / "square.npy", np.zeros((2, 2), dtype=np.uint16))
    with pytest.raises(ValueError, match=r"shape \[2, 2\], expected one flat array"):
        open_store(tmp_path / "square.npy")
    whole = (tmp_path / "web.npy").read_bytes()
    (tmp_path / "web.npy").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"web\.npy: not a whole NumPy array"):
        open_store(tmp_path / "web.npy")


def test_saved_dataset_is_one_run_of_tokens(tmp_path):
    import datasets

    rows = [[1, 2], [3], [], [4, 5, 6]] * 600  # three record batches
    datasets.Dataset.from_dict({"ids": rows, "text": ["x"] * 2400}).save_to_disk(tmp_path / "tokenized")
    store = open_store(f"{tmp_path / 'tokenized'}:ids")
    assert store.num_tokens == 3600 and store.document_offsets[:5].tolist() == [0, 2, 3, 3, 6]
    expected = np.tile([1, 2, 3, 4, 5, 6], 600)
    for start, stop in ((0, 7), (1495, 1507), (0, 3600), (3599, 3600), (1500, 1500)):
        assert store.tokens[start:stop].tolist() == expected[start:stop].tolist()
    with pytest.raises(ValueError, match="no column 'input_ids'; it has ids, text"):
        open_store(tmp_path / "tokenized")
    with pytest.raises(ValueError, match="a column of string, expected lists of integer"):
        open_store(f"{tmp_path / 'tokenized'}:text")


def test_a_store_exists_in_each_format_that_opens(tmp_path):
    import datasets

    assert not any(store_exists(tmp_path / name) for name in ("web", "web.bin", "web.npy", ""))
    write_by_hand(tmp_path / "web")
    (tmp_path / "raw.bin").write_bytes(b"\0\0")
    np.save(tmp_path / "flat.npy", np.arange(3))
    datasets.Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(tmp_path / "tokenized")
    for name in ("web", "web.idx", "raw", "raw.bin", "flat.npy", "tokenized", "tokenized:input_ids"):
        assert store_exists(tmp_path / name), name
        assert open_store(tmp_path / name, "uint16" if name.startswith("raw") else None).num_tokens > 0


def test_chunked_tokens_equal_the_joined_array():
    chunks = [np.arange(0, 3), np.arange(3, 3), np.arange(3, 4), np.arange(4, 9)]
    tokens = ChunkedTokens(chunks)
    for start in range(10):
        for stop in range(11):
            assert tokens[start:stop].tolist() == list(range(9))[start:stop]
    assert tokens[np.array([8, 0, 3, 3])].tolist() == [8, 0, 3, 3]


def test_written_store_equals_the_one_written_by_hand(tmp_path):
    write_by_hand(tmp_path / "hand", 8, ((5, 6, 7), (), (9, 10)), (0, 1, 2, 3))
    with MegatronWriter(tmp_path / "ours", "uint16") as writer:
        for document in ([5, 6, 7], [], np.array([9, 10], dtype=np.int64)):
            writer.add(document)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"hand{suffix}").read_bytes()


def test_writer_leaves_nothing_when_it_fails(tmp_path):
    with (
        pytest.raises(ValueError, match="token id 65536 does not fit uint16"),
        MegatronWriter(tmp_path / "web", "uint16") as writer,
    ):
        writer.add([65535])
        writer.add([65536])
    with pytest.raises(ValueError, match="cannot be stored as float32"):
        MegatronWriter(tmp_path / "web", "float32")
    assert list(tmp_path.iterdir()) == []


def test_store_does_not_look_whole_while_it_is_written(tmp_path):
    with MegatronWriter(tmp_path / "web", "uint16") as writer:
        writer.add([1, 2])
        with pytest.raises(FileNotFoundError):
            open_store(tmp_path / "web")
    assert open_store(tmp_path / "web").tokens.tolist() == [1, 2]


def test_metadata_comes_from_the_sidecar_and_must_fit(tmp_path):
    with MegatronWriter(tmp_path / "web", "uint16") as writer:
        writer.metadata = {"group": "web"}
        writer.add([1, 2])
    assert open_store(tmp_path / "web").metadata["group"] == "web"
    assert open_store(tmp_path / "web").metadata["tokens"] == 2
    sidecar = json.loads((tmp_path / "web.json").read_text())
    (tmp_path / "web.json").write_text(json.dumps({**sidecar, "tokens": 3}))
    with pytest.raises(ValueError, match="says 3 tokens, but the index counts 2"):
        open_store(tmp_path / "web")
    (tmp_path / "web.json").write_text('{"text": "a corpus of somebody"}\n' * 2)
    assert open_store(tmp_path / "web").metadata == {}


@pytest.mark.parametrize(
    "wrong",
    [{"text_bytes": "many"}, {"text_bytes": -1}, {"vocab_size": True}, {"tokenizer": 3}, {"shares": 1}],
)
def test_metadata_of_another_type_are_refused(tmp_path, wrong):
    write_sidecar(str(write_by_hand(tmp_path / "web")), wrong)
    ((key, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"web\.json: .* \({key} is {value!r}\): make the store again"):
        open_store(tmp_path / "web")


def test_fingerprint_follows_the_content_alone(tmp_path):
    first = open_store(write_by_hand(tmp_path / "web")).fingerprint()
    (tmp_path / "other").mkdir()
    assert open_store(write_by_hand(tmp_path / "other" / "name")).fingerprint() == first
    other_token = write_by_hand(tmp_path / "web", sequences=((5, 6, 7), (8,), (9, 11)))
    assert open_store(other_token).fingerprint() != first
    other_documents = write_by_hand(tmp_path / "web", documents=(0, 1, 3))
    assert open_store(other_documents).fingerprint() != first


def test_an_empty_store_opens(tmp_path):
    store = open_store(write_by_hand(tmp_path / "web", sequences=(), documents=(0,)))
    assert store.num_tokens == store.num_documents == 0
    assert store.fingerprint()


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="no list of this process's mappings")
def test_gigabytes_are_mapped_and_not_read(tmp_path):
    documents, length = 1000, 4_000_000
    prefix = write_by_hand(tmp_path / "web", 8, (), range(documents + 1), sizes=[length] * documents)
    with open(tmp_path / "web.bin", "wb") as data:
        data.truncate(documents * length * 2)  # 8 GB that take no room on disk
    store = open_store(prefix)
    assert store.num_tokens == 4_000_000_000
    assert resident_kilobytes(tmp_path / "web.bin") == 0
    assert store.tokens[-3:].tolist() == [0, 0, 0]
    assert 0 < resident_kilobytes(tmp_path / "web.bin") < 10_000


def resident_kilobytes(path):
    """How much of a file that this process maps is in its memory."""
    mappings = Path("/proc/self/smaps").read_text().split(f"{path}\n")
    assert len(mappings) == 2, "mapped once"
    return int(re.search(r"Rss: +(\d+) kB", mappings[1])[1])  # type: ignore[index]
