"""What several commands take: hyperparameters as METHOD.NAME=VALUE, numbers by name, at least one input."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from titan_aioli.errors import UserError


def at_least_one(name: str) -> Any:
    """How the help shows a tuple of positional arguments that the command refuses where it is empty."""
    return tyro.conf.arg(metavar=f"{name} [{name} ...]", help_behavior_hint="(required)")


def parse_settings(settings: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Hyperparameters by method, from METHOD.NAME=VALUE; a value is JSON, or else a string.

    Raises: ValueError: not of that form, or for a method that is not run.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, dot, rest = setting.partition(".")
        key, equals, text = rest.partition("=")
        if not (dot and equals and key):
            raise ValueError(f"{setting!r}: write METHOD.NAME=VALUE, such as aioli.eta=0.5")
        if name not in methods:
            raise ValueError(
                f"{setting!r} is for {name}, which is not run; the methods are {', '.join(methods)}"
            )
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        chosen.setdefault(name, {})[key] = value
    return chosen


def numbers_in_order(
    pairs: Sequence[tuple[str, float]], names: Sequence[str], option: str, where: str
) -> np.ndarray:
    """Numbers given by name, in the order of `names`; a name left out has 0.

    Args:
        pairs: value of an option NAME NUMBER ...
        names: of groups or targets.
        option: its name, for errors.
        where: what has these names, for errors.
    Raises: UserError: a name is unknown or given twice, or a number is negative or not finite.
    """
    numbers: dict[str, float] = {}
    for name, value in pairs:
        if name not in names:
            raise UserError(f"--{option} names {name!r}; {where} has the groups {', '.join(names)}")
        if name in numbers:
            raise UserError(f"--{option} gives {name} twice, {numbers[name]:g} and {value:g}: leave out one")
        if not 0 <= value < np.inf:
            raise UserError(f"--{option} gives {name} {value}: it must be finite and at least 0")
        numbers[name] = value
    return np.array([numbers.get(name, 0.0) for name in names])
