"""Megatron indexed datasets, from the definition of the format: PREFIX.bin and PREFIX.idx.

The data file holds only token ids, one sequence after the other. The index, little-endian, is

    magic "MMIDIDX" 00 00 | uint64 version = 1 | uint8 dtype code | uint64 sequences S | uint64 D + 1 |
    int32 sizes [S] in tokens | int64 pointers [S] in bytes | int64 first sequence of every document [D + 1]

(the last entry of the document index is S). Opening reads the index, 20 bytes per document, keeps 8 of them,
and maps the data without reading it.
"""

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.stores.metadata import read_sidecar, write_sidecar
from titan_aioli.stores.tokens import REMEDY, StoreFormat, TokenStore, map_tokens, prefix_of

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")

DTYPES: dict[int, np.dtype] = {
    1: np.dtype("uint8"),
    2: np.dtype("int8"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
"""Dtype codes of the index. The two float codes are refused: floats are no token ids."""


READ_NUMBERS = 1 << 20
"""Numbers of the index that are looked at together: an index may have hundreds of millions."""


class MegatronIndex(NamedTuple):
    """The content of an .idx file."""

    dtype: np.dtype
    document_offsets: np.ndarray
    """int64 [D + 1], offset in tokens of every document, and the number of tokens."""


def read_index(path: Path) -> MegatronIndex:
    """The index, every number in it checked against the others.

    Args:
        path: an .idx file.
    Raises: ValueError: not an index, or an impossible one; names what was found and what was expected.
    """
    with open(path, "rb") as file:
        dtype, num_sequences, num_entries = _read_header(path, file.read(HEADER.size))
    place, parts = HEADER.size, []
    for kind, count in (("<i4", num_sequences), ("<i8", num_sequences), ("<i8", num_entries)):
        parts.append(np.memmap(path, kind, "r", place, (count,)) if count else np.empty(0, kind))
        place += parts[-1].nbytes
    sizes, pointers, documents = (part.view(np.ndarray) for part in parts)
    offsets = _sequence_offsets(path, sizes, pointers, dtype.itemsize)
    return MegatronIndex(dtype, _document_offsets(path, documents, offsets))


def _sequence_offsets(path: Path, sizes: np.ndarray, pointers: np.ndarray, itemsize: int) -> np.ndarray:
    """int64 [S + 1], offset in tokens of every sequence, and the number of tokens.

    Raises: ValueError: a size is negative, or a pointer is not where the sequences before it end.
    """
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    for part in _parts(len(sizes)):
        negative = np.flatnonzero(sizes[part] < 0)
        if negative.size:
            at = part.start + negative[0]
            raise ValueError(f"{path}: sequence {at} has the size {sizes[at]} tokens; {REMEDY}")
        ends = offsets[part.start + 1 : part.stop + 1]
        np.cumsum(sizes[part], out=ends)
        ends += offsets[part.start]
        moved = np.flatnonzero(pointers[part] != offsets[part] * itemsize)
        if moved.size:
            at = part.start + moved[0]
            raise ValueError(
                f"{path}: sequence {at} starts at byte {pointers[at]}, but the sequences before it end at "
                f"byte {offsets[at] * itemsize}; only data without gaps is read. {REMEDY}"
            )
    return offsets


def _document_offsets(path: Path, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 [D + 1], offset in tokens of every document, by the offsets of the sequences [S + 1].

    Raises: ValueError: the document index does not rise from 0 to the number of sequences.
    """
    num_sequences = len(offsets) - 1
    is_rising = len(documents) > 0 and documents[0] == 0
    is_each = len(documents) == len(offsets)  # a sequence is a document, as nearly always
    for part in _parts(max(0, len(documents) - 1)):
        steps = np.diff(documents[part.start : part.stop + 1])
        is_rising = is_rising and bool((steps >= 0).all())
        is_each = is_each and bool((steps == 1).all())
    if is_rising and documents[-1] < num_sequences:
        raise ValueError(
            f"{path}: the document index covers {documents[-1]} of {num_sequences} sequences, as if stores "
            "were merged without their document indexes: merge them again with Megatron's "
            "tools/merge_datasets.py, or give the stores that were merged, one by one"
        )
    if not is_rising or documents[-1] != num_sequences:
        raise ValueError(
            f"{path}: the document index must rise from 0 to the number of sequences, {num_sequences}, but "
            f"it is {_ends(documents)}; {REMEDY}"
        )
    return offsets if is_each else offsets[documents]


def _parts(count: int) -> Iterator[slice]:
    """Consecutive parts of so many numbers."""
    return (slice(start, min(start + READ_NUMBERS, count)) for start in range(0, count, READ_NUMBERS))


def _read_header(path: Path, header: bytes) -> tuple[np.dtype, int, int]:
    """(dtype, number of sequences, entries of the document index), checked against the size of the file."""
    found = os.path.getsize(path)
    if not header.startswith(MAGIC):
        raise ValueError(
            f"{path}: not a Megatron index: it starts with {header[: len(MAGIC)]!r}, expected {MAGIC!r}. "
            "For a raw array of tokens without an index, remove this file and give the dtype"
        )
    if len(header) < HEADER.size:
        raise ValueError(f"{path}: holds {found} bytes, the header alone has {HEADER.size}; {REMEDY}")
    _, version, code, num_sequences, num_entries = HEADER.unpack(header)
    if version != VERSION:
        raise ValueError(f"{path}: version {version} of the index format; only version {VERSION} is read")
    if code not in DTYPES:
        known = ", ".join(f"{key} ({dtype})" for key, dtype in DTYPES.items())
        raise ValueError(f"{path}: dtype code {code} is not known; known: {known}")
    if DTYPES[code].kind == "f":
        raise ValueError(
            f"{path}: dtype code {code} is {DTYPES[code]}; floats are no token ids: store them as integers"
        )
    expected = HEADER.size + 12 * num_sequences + 8 * num_entries
    if found == expected + num_sequences and num_sequences:
        raise ValueError(
            f"{path}: a multimodal index (one mode byte per sequence); only text stores are read"
        )
    if found != expected:
        raise ValueError(
            f"{path}: holds {found} bytes, expected {expected} for {num_sequences} sequences and a document "
            f"index of {num_entries} entries; {REMEDY}"
        )
    return DTYPES[code], num_sequences, num_entries


def _claims(path: str) -> bool:
    return os.path.isfile(f"{prefix_of(path)}.idx")


def _open(path: str, dtype: str | None) -> TokenStore:
    prefix = prefix_of(path)
    index = read_index(Path(f"{prefix}.idx"))
    data = Path(f"{prefix}.bin")
    if not data.is_file():
        raise ValueError(
            f"{prefix}.idx is there, but not its data {data}: copy it there, or make the store again with "
            "`titan-aioli tokenize`"
        )
    num_tokens = int(index.document_offsets[-1])
    expected, found = num_tokens * index.dtype.itemsize, os.path.getsize(data)
    if found != expected:
        raise ValueError(
            f"{data}: holds {found} bytes, expected {expected} for the {num_tokens} tokens of {index.dtype} "
            f"that {prefix}.idx counts; {REMEDY}"
        )
    metadata = read_sidecar(prefix)
    counts = {"tokens": num_tokens, "documents": len(index.document_offsets) - 1}
    for key, count in counts.items():
        if metadata.get(key, count) != count:
            raise ValueError(
                f"{prefix}.json: says {metadata[key]} {key}, but the index counts {count}: the files are not "
                "of one store. Make it again with `titan-aioli tokenize`"
            )
    tokens = map_tokens(data, index.dtype, num_tokens)
    prompts = _prompts(prefix, index.document_offsets) if metadata.get("role") == "target" else None
    return TokenStore(path, tokens, index.document_offsets, metadata, prompts, files=(str(data),))


def _prompts(prefix: str, offsets: np.ndarray) -> np.ndarray:
    """int64 [D], tokens of each document's prompt, from PREFIX.prompts.npy.

    Raises: ValueError: the file is missing, or is not of this store.
    """
    path = Path(f"{prefix}.prompts.npy")
    try:
        prompts = np.load(path, allow_pickle=False).astype(np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: the lengths of the prompts cannot be read ({error}); {REMEDY}") from None
    sizes = np.diff(offsets)
    if prompts.shape != sizes.shape or (prompts < 0).any() or (prompts >= sizes).any():
        raise ValueError(f"{path}: not the lengths of the prompts of this store; {REMEDY}")
    return prompts


MEGATRON = StoreFormat(_claims, _open)


def _ends(values: np.ndarray) -> str:
    if len(values) <= 6:
        return str(values.tolist())
    return f"[{values[0]}, {values[1]}, {values[2]}, ..., {values[-2]}, {values[-1]}]"


class MegatronWriter:
    """Writes PREFIX.bin, PREFIX.json and PREFIX.idx, one document after the other.

    Memory: 4 bytes per document. The bytes go to PREFIX.bin.tmp; the files get their names when the block
    ends, the data first and the index last, so that an unfinished store can never be opened. If the block
    fails, it leaves no file.

        with MegatronWriter("stores/web/train", "uint16") as writer:
            writer.add([17, 4, 0])
    """

    def __init__(self, prefix: str | Path, dtype: str | np.dtype):
        """
        Args:
            prefix: path of the store without .bin or .idx. Its folder is made; a store there is replaced.
            dtype: an integer dtype of DTYPES, such as uint16.
        Raises: ValueError: a dtype that is not in the format.
        """
        self.prefix = str(prefix)
        self.dtype = np.dtype(dtype)
        self.metadata: dict[str, Any] = {}
        """Content of PREFIX.json, besides the counts of documents and tokens; {}: no such file is written."""
        codes = [code for code, known in DTYPES.items() if known == self.dtype and known.kind != "f"]
        if not codes:
            allowed = ", ".join(known.name for known in DTYPES.values() if known.kind != "f")
            raise ValueError(
                f"{self.prefix}: tokens cannot be stored as {self.dtype}: choose one of {allowed}"
            )
        self.prompts: list[np.ndarray] | None = None
        """Lengths of the documents' prompts, in parts, for a store of prompts and answers."""
        self._code = codes[0]
        self._sizes = array("i")
        self.num_tokens = 0
        Path(self.prefix).parent.mkdir(parents=True, exist_ok=True)
        self._data = open(f"{self.prefix}.bin.tmp", "wb")  # noqa: SIM115, closed in __exit__

    def add(self, token_ids: Sequence[int] | np.ndarray) -> None:
        """Append one document.

        Args:
            token_ids: its tokens, the end-of-document token included.
        Raises: ValueError: an id that the dtype cannot hold.
        """
        self.add_many(np.asarray(token_ids), np.array([len(token_ids)]))

    def add_many(self, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Append consecutive documents.

        Args:
            tokens: integers [sum of sizes], one document after the other.
            sizes: [documents], number of tokens of each, at most 2**31 - 1.
        Raises: ValueError: an id that the dtype cannot hold.
        """
        assert tokens.ndim == 1 and tokens.size == sizes.sum(), (tokens.shape, sizes.sum())
        if tokens.dtype != self.dtype and tokens.size:
            limits = np.iinfo(self.dtype)
            for token in (tokens.min(), tokens.max()):
                if tokens.dtype.kind not in "iu" or not limits.min <= token <= limits.max:
                    raise ValueError(
                        f"{self.prefix}: token id {token} does not fit {self.dtype} (0 to {limits.max})"
                    )
        self._data.write(tokens.astype(self.dtype).tobytes())
        self._sizes.extend(sizes.tolist())
        self.num_tokens += tokens.size

    @property
    def num_documents(self) -> int:
        return len(self._sizes)

    def __enter__(self) -> "MegatronWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ):
        try:
            if kind is None:
                self._finish()
        finally:
            self._data.close()
            for suffix in (".bin.tmp", ".idx.tmp"):
                Path(self.prefix + suffix).unlink(missing_ok=True)

    def _finish(self) -> None:
        self._data.flush()
        os.fsync(self._data.fileno())
        sizes = np.array(self._sizes, dtype="<i4")
        ends = np.cumsum(sizes, dtype="<i8")
        with open(f"{self.prefix}.idx.tmp", "wb") as index:
            index.write(HEADER.pack(MAGIC, VERSION, self._code, len(sizes), len(sizes) + 1))
            index.write(sizes.tobytes())
            index.write(((ends - sizes) * self.dtype.itemsize).tobytes())
            index.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())
            index.flush()
            os.fsync(index.fileno())
        Path(f"{self.prefix}.idx").unlink(missing_ok=True)  # an old index must not stand beside new data
        os.replace(f"{self.prefix}.bin.tmp", f"{self.prefix}.bin")
        Path(f"{self.prefix}.prompts.npy").unlink(missing_ok=True)
        if self.prompts is not None:
            np.save(f"{self.prefix}.prompts.npy", np.concatenate(self.prompts))
        if self.metadata:
            counts = {"documents": self.num_documents, "tokens": self.num_tokens}
            write_sidecar(self.prefix, {**self.metadata, **counts})
        os.replace(f"{self.prefix}.idx.tmp", f"{self.prefix}.idx")
