"""State as bytes: what a checkpoint keeps of the mixture, and how it is read back.

torch's distributed checkpoint stores a `bytes` leaf of any length unchanged, while tensors may not change
shape between save and load. Each owner of state therefore saves one leaf: an .npz of plain arrays. Nothing is
pickled, loading executes no code, and sizes are checked before memory is allocated.
"""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from titan_aioli.errors import ResumeRefused


class Fields(Protocol):
    """A NamedTuple, whatever its fields."""

    def _asdict(self) -> dict[str, Any]: ...


State = TypeVar("State", bound=Fields)


def pack(values: Mapping[str, Any]) -> bytes:
    """Numbers, strings and arrays of plain dtypes as the bytes of an .npz file."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name, array in arrays.items():
        assert array.dtype != object, f"{name} cannot be saved: it is not a plain array"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


class Arrays(dict[str, np.ndarray]):
    """Arrays by name, read from a checkpoint."""

    def __missing__(self, name: str) -> np.ndarray:
        raise ResumeRefused(f"the saved mixture state has no {name}: the checkpoint is damaged, or too old")


def unpack(data: bytes) -> Arrays:
    """The arrays that `pack` saved, by name; a number or string is an array of shape [].

    Raises: ResumeRefused: not such an archive, or one whose headers promise more than it holds.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return Arrays(_read_arrays(archive, len(data)))
    except Exception as error:  # zipfile and numpy raise many kinds for damaged bytes
        raise ResumeRefused(
            f"the saved mixture state cannot be read: {' '.join(str(error).split())}"
        ) from None


def _read_arrays(archive: zipfile.ZipFile, num_bytes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every array, after checking that it is uncompressed and as large as its header says."""
    members = archive.infolist()
    if sum(member.file_size for member in members) > num_bytes:
        raise ValueError(f"its arrays are said to be larger than its {num_bytes} bytes")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")
        content = archive.read(member)
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(stream)
        size, found = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
        if dtype.hasobject or size != found:
            raise ValueError(f"{member.filename} says {dtype}{list(shape)}, {size} bytes, and has {found}")
        yield member.filename.removesuffix(".npy"), np.load(io.BytesIO(content), allow_pickle=False)


def to_arrays(state: Fields, prefix: str) -> dict[str, Any]:
    """The fields of a state (a NamedTuple), each under `prefix.field`."""
    return {f"{prefix}.{name}": value for name, value in state._asdict().items()}


def from_arrays(template: State, arrays: Mapping[str, np.ndarray], prefix: str) -> State:
    """A state of the template's type, its fields taken from `prefix.field`.

    An array of size 0 is a field that its run had no use for. Where the saved one or the template's is such,
    the template's stands: Aioli without pooling no longer saves its pooled evidence, older ones did. The same
    where an older version did not know the field.

    Raises: ResumeRefused: a field is missing or has another shape or kind than the template's.
    """
    fields = {}
    for name, example in template._asdict().items():
        value, expected = arrays.get(f"{prefix}.{name}"), np.asarray(example)
        if value is None and expected.ndim and not expected.size:
            value = expected
        if value is None:
            raise ResumeRefused(f"the saved state has no {prefix}.{name}")
        if value.ndim == expected.ndim and 0 in (value.size, expected.size):
            value = expected
        if value.shape != expected.shape or value.dtype.kind != expected.dtype.kind:
            raise ResumeRefused(
                f"the saved {prefix}.{name} is {value.dtype}{list(value.shape)}, "
                f"this run needs {expected.dtype}{list(expected.shape)}"
            )
        fields[name] = value if isinstance(example, np.ndarray) else value.item()
    return type(template)(**fields)
