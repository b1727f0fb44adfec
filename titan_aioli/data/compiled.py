"""numba for the two loops that NumPy has no call for: remainders carried from step to step, cycle walking.

The first process on a machine compiles for a few seconds; later ones load the result.
"""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable) -> Any:
    """The function as machine code, cached on disk if numba finds a folder that it can write to."""
    try:
        return numba.njit(function, cache=True)
    except RuntimeError:
        return numba.njit(function)
