"""Hyperparameters on the command line, as METHOD.NAME=VALUE."""

import json
from collections.abc import Sequence
from typing import Any


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
