"""numba for the two loops that NumPy has no call for: remainders carried from step to step, cycle walking.

The first process on a machine compiles for a few seconds, the others load the result.
"""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable) -> Any:
    """The function as machine code, kept between processes where numba finds a folder to write to."""
    try:
        return numba.njit(function, cache=True)
    except RuntimeError:
        return numba.njit(function)
