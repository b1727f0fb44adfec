"""Checks of the `[mixing]` tables that torchtitan leaves out: unknown keys, and types of values from TOML."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from titan_aioli.config import Mixing
from titan_aioli.errors import UserError
from titan_aioli.files import read_toml

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def check_mixing_keys(args: list[str]) -> None:
    """Check the keys of the `[mixing]` tables of the config file that the arguments name.

    Raises: UserError: the file is missing or is not TOML, or a key is unknown; says where and what it may be.
    """
    path = _config_file(args)
    if path is None:
        return
    try:
        tables = read_toml(path)
    except OSError as error:
        raise UserError(f"the config file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"the config file {path} is not valid TOML: {error}") from None
    _check_keys(tables.get("mixing", {}), Mixing, "mixing")


def _config_file(args: list[str]) -> str | None:
    for index, arg in enumerate(args):
        key, equals, value = arg.partition("=")
        if key.replace("-", "_") == "__job.config_file":
            return value if equals else (args[index + 1] if index + 1 < len(args) else None)
    return None


def _check_keys(table: Any, section: type, name: str) -> None:
    if not isinstance(table, dict):
        raise UserError(f"{name} is {table!r}: it must be a table [{name}]")
    types = {entry.name: entry.type for entry in dataclasses.fields(section) if not is_hidden(entry)}
    for key, value in table.items():
        if key not in types:
            raise UserError(f"[{name}] has an unknown key {key!r}; it may have: {', '.join(types)}")
        if dataclasses.is_dataclass(types[key]):
            _check_keys(value, types[key], f"{name}.{key}")  # pyright: ignore[reportArgumentType]
        elif get_origin(types[key]) is dict and not isinstance(value, dict):
            raise UserError(f"{name}.{key} is {value!r}: it must be {_in_words(types[key])}")


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
        is_wrong = _holds_bool(value) and "bool" not in str(hints[entry.name])  # to Python, True is a number
        try:
            check_type(value, hints[entry.name], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError:
            is_wrong = True
        if is_wrong:
            raise UserError(f"{key} is {value!r}: it must be {_in_words(hints[entry.name])}")
        if isinstance(value, list):
            for number, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    check_types(item, f"{key}[{number}]")
        if isinstance(value, dict):
            for key_in_dict, item in value.items():
                if dataclasses.is_dataclass(item):
                    check_types(item, f"{key}.{key_in_dict}")


def _in_words(hint: Any) -> str:
    """What the values of a type of the config are, such as "a list of numbers"; TOML has no None."""
    origin, inner = get_origin(hint), [one for one in get_args(hint) if one is not NoneType]
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is None:
        return WORDS.get(hint, "a table")
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    return f"a {'table' if origin is dict else 'list'} of {_in_words(inner[-1]).removeprefix('a ')}s"


def _holds_bool(value: Any) -> bool:
    """Whether a value from TOML is true or false, or has one of them in it."""
    if isinstance(value, list | dict):
        return any(map(_holds_bool, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)
