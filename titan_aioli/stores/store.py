"""Token stores: one data group's tokens on disk, mapped into memory, any piece by random access.

    store = open_store("stores/web/train")          # Megatron .bin + .idx, as `titan-aioli tokenize` makes
    store = open_store("web.npy")                   # a flat NumPy array
    store = open_store("web.bin", dtype="uint16")   # raw little-endian integers
    store = open_store("web_tokenized:input_ids")   # a Hugging Face dataset saved to disk
    store = open_store("web_ds")                    # .ds shards of datatrove

Every number is checked before anything is mapped; nothing is copied, so opening takes milliseconds.
"""

from pathlib import Path

from titan_aioli.stores.arrow import ARROW
from titan_aioli.stores.datatrove import DATATROVE
from titan_aioli.stores.megatron import MEGATRON
from titan_aioli.stores.npy import NPY
from titan_aioli.stores.raw import RAW
from titan_aioli.stores.tokens import TokenStore, parse_dtype, prefix_of

FORMATS = [ARROW, NPY, DATATROVE, MEGATRON, RAW]
"""Formats in the order in which they are asked: the first that claims a path opens it. RAW is last, since it
claims every .bin."""


def open_store(path: str | Path, dtype: str | None = None) -> TokenStore:
    """The token store at a path.

    Args:
        path: prefix of a Megatron .bin and .idx (with or without suffix), a .npy file, a raw .bin without
            .idx, a tokenized Hugging Face dataset on disk, FOLDER or FOLDER:COLUMN (default: input_ids), or a
            .ds file of datatrove or a folder of them.
        dtype: integer dtype of a raw .bin, or of a .npy without a header, such as uint16. The other formats
            record theirs.
    Raises:
        FileNotFoundError: there is no store.
        ValueError: there is one, but it is damaged or holds no token ids; names what was found and expected.
    """
    name = str(path)
    for store_format in FORMATS:
        if store_format.claims(name):
            store = store_format.open(name, dtype)
            break
    else:
        raise FileNotFoundError(_missing(name))
    if dtype is not None and parse_dtype(dtype) != store.tokens.dtype:
        raise ValueError(
            f"{name}: the store says its dtype is {store.tokens.dtype}, but {dtype} was given: leave it out"
        )
    return store


def store_exists(path: str | Path) -> bool:
    """Whether there is a store at a path that `open_store` takes; it may still be damaged."""
    return any(store_format.claims(str(path)) for store_format in FORMATS)


def _missing(name: str) -> str:
    folder = Path(name)
    if folder.is_dir():
        inside = sorted(str(path.with_suffix("")) for path in folder.rglob("*.idx"))[:4]
        hint = f"the stores in it are {', '.join(inside)}" if inside else "it holds no token store"
        return f"{name} is a folder; {hint}. Give the path of a store without .bin or .idx"
    expected = name if name.endswith((".npy", ".ds")) else f"{prefix_of(name)}.bin"
    return f"no token store at {name} ({expected} does not exist): make one with `titan-aioli tokenize`"
