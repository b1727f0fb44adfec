"""A flat NumPy array of token ids, as `numpy.save` writes it: PATH.npy.

OLMo-core gives the same suffix to files without NumPy's header, raw token ids of a dtype that the caller must
know; they are read too. Where their documents end is not known, so that `split` cuts them at tokens.
"""

import os
from pathlib import Path

import numpy as np

from titan_aioli.stores.metadata import read_sidecar
from titan_aioli.stores.raw import map_raw
from titan_aioli.stores.tokens import REMEDY, StoreFormat, TokenStore

SUFFIX = ".npy"
MAGIC = b"\x93NUMPY"


def _claims(path: str) -> bool:
    return path.endswith(SUFFIX) and os.path.isfile(path)


def _open(path: str, dtype: str | None) -> TokenStore:
    with open(path, "rb") as file:
        has_header = file.read(len(MAGIC)) == MAGIC
    if not has_header and dtype is not None:
        return TokenStore(path, map_raw(Path(path), dtype), None, {}, files=(path,))
    if not has_header and os.path.getsize(path):
        raise ValueError(
            f"{path}: not a whole NumPy array of integers: it has no NumPy header. If these are raw token "
            f"ids, as OLMo-core writes them, give their dtype (uint16, uint32); else {REMEDY}"
        )
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole NumPy array of integers ({error}); {REMEDY}") from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: an array of {tokens.dtype} and shape {list(tokens.shape)}, expected one flat array of "
            "integer token ids: save it with numpy.save(path, ids.reshape(-1).astype('uint16'))"
        )
    return TokenStore(
        path, tokens.view(np.ndarray), None, read_sidecar(path.removesuffix(SUFFIX)), files=(path,)
    )


NPY = StoreFormat(_claims, _open)
