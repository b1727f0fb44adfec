"""A flat NumPy array of token ids, as `numpy.save` writes it: PATH.npy."""

import os

import numpy as np

from titan_aioli.stores.metadata import read_sidecar
from titan_aioli.stores.tokens import REMEDY, StoreFormat, TokenStore

SUFFIX = ".npy"


def _claims(path: str) -> bool:
    return path.endswith(SUFFIX) and os.path.isfile(path)


def _open(path: str, dtype: str | None) -> TokenStore:
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole NumPy array of integers ({error}); {REMEDY}") from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: an array of {tokens.dtype} and shape {list(tokens.shape)}, expected one flat array of "
            "integer token ids: save it with numpy.save(path, ids.reshape(-1).astype('uint16'))"
        )
    return TokenStore(path, tokens.view(np.ndarray), None, read_sidecar(path.removesuffix(SUFFIX)), (path,))


NPY = StoreFormat(_claims, _open)
