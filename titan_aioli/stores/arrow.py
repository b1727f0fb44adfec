"""A tokenized Hugging Face dataset on disk, as one long sequence of tokens.

The dataset's Arrow files stay memory-mapped: every record batch gives a view of its own values, and views are
joined only for a slice that crosses from one into the next. Costs one array view and 8 bytes per record batch
(1,000 rows by default), and 8 bytes per row for the document offsets.
"""

import os
from typing import Any

import numpy as np

from titan_aioli.stores.tokens import ChunkedTokens, StoreFormat, TokenStore

DEFAULT_COLUMN = "input_ids"


def is_dataset_folder(folder: str) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` made this folder."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("state.json", "dataset_dict.json"))


def _claims(path: str) -> bool:
    return is_dataset_folder(_split(path)[0])


def _split(path: str) -> tuple[str, str]:
    """(folder, column) of FOLDER or FOLDER:COLUMN."""
    folder, colon, column = path.rpartition(":")
    return (folder, column) if colon and os.path.isdir(folder) else (path, DEFAULT_COLUMN)


def _open(path: str, dtype: str | None) -> TokenStore:
    folder, column = _split(path)
    dataset = load_dataset_folder(folder)
    if column not in dataset.column_names:
        raise ValueError(
            f"{folder}: no column {column!r}; it has {', '.join(dataset.column_names)}: give {folder}:COLUMN"
        )
    chunks, offsets = [], [np.zeros(1, dtype=np.int64)]
    for chunk in dataset.data.column(column).chunks:
        values, ends = _flat(chunk, f"{folder}:{column}")
        chunks.append(values)
        offsets.append(ends + offsets[-1][-1])
    if not chunks:
        raise ValueError(f"{folder}: the dataset has no rows")
    tokens = chunks[0] if len(chunks) == 1 else ChunkedTokens(chunks)
    return TokenStore(path, tokens, np.concatenate(offsets), files=(folder,))


ARROW = StoreFormat(_claims, _open)


def load_dataset_folder(folder: str) -> Any:
    """A `datasets.Dataset` saved to disk, memory-mapped.

    Raises: ValueError: a folder of several splits, or one that `datasets` cannot read.
    """
    import datasets

    try:
        dataset = datasets.load_from_disk(folder)
    except Exception as error:  # `datasets` and Arrow raise many kinds for a damaged folder
        raise ValueError(f"{folder}: not a whole Hugging Face dataset ({error}): save it again") from error
    if isinstance(dataset, datasets.DatasetDict):
        splits = ", ".join(os.path.join(folder, str(split)) for split in dataset)
        raise ValueError(f"{folder} holds several splits: give one of {splits}")
    # `datasets` stores a selection or a shuffle as a list of row numbers beside the data
    return dataset if dataset._indices is None else dataset.flatten_indices()


def _flat(chunk: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(values [n], end of every row [rows]) of one Arrow chunk; the values are a view of the mapped file."""
    import pyarrow as pa

    kind = chunk.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_integer(kind.value_type):
        raise ValueError(f"{name}: a column of {kind}, expected lists of integer token ids")
    values = chunk.flatten()
    if chunk.null_count or values.null_count:
        raise ValueError(
            f"{name}: {chunk.null_count + values.null_count} values are null: drop those rows first"
        )
    if pa.types.is_fixed_size_list(kind):
        ends = np.arange(1, len(chunk) + 1, dtype=np.int64) * kind.list_size
    else:
        bounds = chunk.offsets.to_numpy().astype(np.int64)
        ends = bounds[1:] - bounds[0]
    return values.to_numpy(zero_copy_only=True), ends
