"""PREFIX.json, beside a token store: where its tokens come from and what they mean."""

import json
import os
from pathlib import Path
from typing import Any

from titan_aioli.files import write_json

FORMAT = "titan_aioli token store 1"
"""Mark of our own files: a JSON file of another origin beside a store is ignored."""

TYPES: dict[str, type] = {
    **dict.fromkeys(("documents", "tokens", "text_bytes", "vocab_size", "end_of_document"), int),
    **dict.fromkeys(("group", "split", "role", "tokenizer", "end_of_document_token"), str),
    "shares": dict,
}
"""Types of what a file of ours holds; keys may be missing, and no number is below 0."""

LARGEST_BYTES = 1 << 20
"""Size of the largest file that is read; a larger one is not ours."""


def write_sidecar(prefix: str, metadata: dict[str, Any]) -> None:
    """Write PREFIX.json with sorted keys, so that equal stores have equal files."""
    write_json(f"{prefix}.json", {**metadata, "format": FORMAT}, indent=2, sort_keys=True)


def read_sidecar(prefix: str) -> dict[str, Any]:
    """The metadata of a store; {} if it has none.

    Raises: ValueError: the file has our mark but cannot be read.
    """
    path = Path(f"{prefix}.json")
    if not path.is_file() or os.path.getsize(path) > LARGEST_BYTES:
        return {}
    content = path.read_bytes()
    if FORMAT.encode() not in content:
        return {}
    try:
        metadata = dict(json.loads(content))
        for key in TYPES.keys() & metadata.keys():
            value = metadata[key]
            if type(value) is not TYPES[key] or (TYPES[key] is int and value < 0):
                raise ValueError(f"{key} is {value!r}")
        return metadata
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: the metadata of the store cannot be read ({error}): make the store again"
        ) from None
