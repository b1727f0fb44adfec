"""State as bytes: what a checkpoint keeps of the mixture, and how it is read back.

torch's distributed checkpoint stores a `bytes` leaf of any length as it is, while tensors may not change
shape between save and load. So each owner of state saves one leaf: an .npz of plain arrays. Nothing is
pickled, and loading executes nothing.
"""

import io
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

State = TypeVar("State")


def pack(values: Mapping[str, Any]) -> bytes:
    """Numbers, strings and arrays of plain dtypes as the bytes of an .npz file."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name, array in arrays.items():
        assert array.dtype != object, f"{name} cannot be saved: it is not a plain array"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that `pack` saved, by name; a number or string is an array of shape []."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"the saved mixture state cannot be read: {error}") from None


def to_arrays(state: Any, prefix: str) -> dict[str, Any]:
    """The fields of a state, each under `prefix.field`."""
    return {f"{prefix}.{name}": value for name, value in state._asdict().items()}


def from_arrays(template: State, arrays: Mapping[str, np.ndarray], prefix: str) -> State:
    """A state of the template's type, its fields taken from `prefix.field`.

    Raises: ValueError: a field is missing or has another shape or kind than the template's.
    """
    fields = {}
    for name, example in template._asdict().items():  # pyright: ignore[reportAttributeAccessIssue]
        value = arrays.get(f"{prefix}.{name}")
        if value is None:
            raise ValueError(f"the saved state has no {prefix}.{name}")
        expected = np.asarray(example)
        if value.shape != expected.shape or value.dtype.kind != expected.dtype.kind:
            raise ValueError(
                f"the saved {prefix}.{name} is {value.dtype}{list(value.shape)}, "
                f"this run needs {expected.dtype}{list(expected.shape)}"
            )
        fields[name] = value if isinstance(example, np.ndarray) else value.item()
    return type(template)(**fields)
