"""Refusals that the methods share: each names the hyperparameter, its value and what is allowed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from titan_aioli.proportions import normalize


def require_count(name: str, value: Any, smallest: int = 1, why: str = "") -> None:
    """Refuse what is not a whole number of at least `smallest`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < smallest:
        raise ValueError(
            f"{name} is {value!r}: it must be a whole number, at least {smallest}{why and f' ({why})'}"
        )


def require_number(
    name: str,
    value: Any,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    what: str = "it",
) -> None:
    """Refuse what is not a finite number within the bounds given."""
    bounds = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if (
        not is_number
        or not abs(value) < np.inf  # np.isfinite takes no whole number above 2^64
        or (above is not None and value <= above)
        or (at_least is not None and value < at_least)
        or (below is not None and value >= below)
        or (at_most is not None and value > at_most)
    ):
        raise ValueError(f"{name} is {value!r}: {what} must be a finite number {allowed}".rstrip())


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose {' or '.join(choices)}")


def require_weights(name: str, values: Sequence[float], num_groups: int) -> None:
    """Refuse weights that do not give every group one finite, non-negative number, not all zero."""
    if len(values) != num_groups:
        raise ValueError(f"{name} has {len(values)} numbers for {num_groups} groups")
    normalize(values, name)
