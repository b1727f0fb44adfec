"""Writes TOML: the standard library (`tomllib`, also here) only reads it. Enough for configs."""

import json
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["format_toml", "tomllib"]


def format_toml(tables: Mapping[str, Any], name: str = "") -> str:
    """Nested dicts as TOML text that reads back as the same values.

    Args:
        tables: strings, numbers, booleans, lists of these and dicts with string keys.
        name: dotted name of the table that they stand in; "" at the top.
    """
    lines = [
        f"{_key(key)} = {_value(value)}\n" for key, value in tables.items() if not isinstance(value, Mapping)
    ]
    if name and (lines or not tables):
        lines.insert(0, f"\n[{name}]\n")
    for key, value in tables.items():
        if isinstance(value, Mapping):
            lines.append(format_toml(value, f"{name}.{_key(key)}" if name else _key(key)))
    return "".join(lines)


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):  # inside a list
        return f"{{{', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())}}}"
    return str(value)  # dates and times, which TOML writes as Python does
