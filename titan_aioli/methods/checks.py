"""Refusals that the methods share: each names the hyperparameter, its value and what is allowed."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np

from titan_aioli.files import to_plain
from titan_aioli.proportions import normalize
from titan_aioli.values import fits, in_words


def require_fields(name: str, kind: type, values: Mapping[str, Any]) -> None:
    """Refuse what is no field of the dataclass `kind`, or of another type; its own check knows choices."""
    known, hints = [field.name for field in fields(kind)], get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            allowed = ", ".join(known) if known else "none"
            raise ValueError(f"{name} has no hyperparameter {key!r}; it has: {allowed}")
        hint = hints[key]
        if not (get_origin(hint) is Literal or fits(value, hint) or fits(to_plain(value), hint)):
            raise ValueError(f"{name}.{key} is {value!r}: it must be {in_words(hint)}")


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
    if np.ndim(values) != 1:
        raise ValueError(f"{name} is {values!r}: it must be a list of numbers")
    if len(values) != num_groups:
        raise ValueError(f"{name} has {len(values)} numbers for {num_groups} groups")
    normalize(values, name)
