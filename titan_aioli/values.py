"""Values from JSON or TOML: whether they are of a type, and what that type is in words."""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Any: "a value"}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON or TOML, with all that is in it, is of a type; a bool is no number."""
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    has_bool = any(isinstance(leaf, bool) for leaf in leaves(value))
    return not has_bool or re.search(r"\bbool\b|\bAny\b", str(hint)) is not None


def in_words(hint: Any) -> str:
    """What the values of a type are, such as "a list of numbers"; None is left out."""
    origin, inner = get_origin(hint), [one for one in get_args(hint) if one is not NoneType]
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is None:
        return WORDS.get(hint, "a table")
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, inner))
    noun, of, rest = in_words(inner[-1]).removeprefix("a ").partition(" of ")
    return f"a {'table' if origin is dict else 'list'} of {noun}s{of}{rest}"


def leaves(value: Any) -> Iterator[Any]:
    """What is in a value, in its lists and tables too."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value
