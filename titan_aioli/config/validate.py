"""Checks of a config's tables that torchtitan leaves out: unknown keys, and types of values from TOML."""

import dataclasses
from typing import Any, get_origin, get_type_hints

import tyro

from titan_aioli.config import Mixing
from titan_aioli.errors import UserError, unknown_key
from titan_aioli.files import read_toml
from titan_aioli.values import fits, in_words, leaves

LARGEST_WHOLE = 1 << 64
"""Whole numbers from here on are no numbers to NumPy."""


def check_mixing_keys(args: list[str]) -> dict[str, Any]:
    """All tables of the config file that the arguments name; the keys of `[mixing]` and below are checked.

    Raises: UserError: the file is missing or is not TOML, or a key is unknown; says where and what it may be.
    """
    path = _config_file(args)
    if path is None:
        return {}
    try:
        tables = read_toml(path)
    except OSError as error:
        raise UserError(f"the config file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"the config file {path} is not valid TOML: {error}") from None
    check_keys(tables.get("mixing", {}), Mixing, "mixing")
    return tables


def _config_file(args: list[str]) -> str | None:
    for index, arg in enumerate(args):
        key, equals, value = arg.partition("=")
        if key.replace("-", "_") == "__job.config_file":
            return value if equals else (args[index + 1] if index + 1 < len(args) else None)
    return None


def check_keys(table: Any, section: type, name: str = "") -> None:
    """Check the keys of a table, and of the tables in it.

    Args:
        table: from a TOML file.
        section: the dataclass that it is for.
        name: of the table. "": the whole file.
    Raises: UserError: a key is unknown, or no table where there must be one.
    """
    if not isinstance(table, dict):
        raise UserError(f"{name} is {table!r}: it must be a table [{name}]")
    types = {entry.name: entry.type for entry in dataclasses.fields(section) if not is_hidden(entry)}
    for key, value in table.items():
        if key not in types:
            raise unknown_key(f"[{name}]" if name else "the config file", key, types)
        key_in_full = f"{name}.{key}" if name else key
        if dataclasses.is_dataclass(types[key]):
            check_keys(value, types[key], key_in_full)  # pyright: ignore[reportArgumentType]
        elif get_origin(types[key]) is dict and not isinstance(value, dict):
            raise UserError(f"{key_in_full} is {value!r}: it must be {in_words(types[key])}")


def is_hidden(entry: dataclasses.Field) -> bool:
    """Whether the field is neither a key nor a flag (config.methods.Hidden)."""
    return tyro.conf.Suppress in getattr(entry.type, "__metadata__", ())


def check_sections(config: Any) -> None:
    """Check every value of the sections of a host's config.

    Raises: UserError: names the key, the value and the type.
    """
    for entry in dataclasses.fields(config):
        if dataclasses.is_dataclass(section := getattr(config, entry.name)):
            check_types(section, entry.name)


def check_types(section: Any, name: str) -> None:
    """Check every value of a config section against the type of its field, nested sections too.

    Raises: UserError: names the key, the value and the type.
    """
    hints = get_type_hints(type(section))
    for entry in dataclasses.fields(section):
        value, key = getattr(section, entry.name), f"{name}.{entry.name}"
        if dataclasses.is_dataclass(value):
            check_types(value, key)
            continue
        if not fits(value, hints[entry.name]):
            raise UserError(f"{key} is {value!r}: it must be {in_words(hints[entry.name])}")
        if any(isinstance(leaf, int) and abs(leaf) >= LARGEST_WHOLE for leaf in leaves(value)):
            raise UserError(f"{key} is {value!r}: whole numbers must be below 2^64")
        if isinstance(value, list):
            for number, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    check_types(item, f"{key}[{number}]")
        if isinstance(value, dict):
            for key_in_dict, item in value.items():
                if dataclasses.is_dataclass(item):
                    check_types(item, f"{key}.{key_in_dict}")
