"""The `[mixing]` tables of a TOML file as a `Mixing`, for hosts without a config system of their own."""

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from titan_aioli.config import Mixing
from titan_aioli.config.validate import check_mixing_keys
from titan_aioli.files import read_toml


def read_mixing(path: Path) -> Mixing:
    """The `[mixing]` section of a config file; values are checked where the mixture is built.

    Raises: UserError: the file is missing or is not TOML, or a key is unknown.
    """
    check_mixing_keys(["--job.config_file", str(path)])
    return build_section(Mixing, read_toml(path).get("mixing", {}))


def build_section(section: Any, table: dict[str, Any]) -> Any:
    """A config dataclass from a table, nested ones too."""
    kinds = get_type_hints(section)
    values = {}
    for key, value in table.items():
        values[key] = build_section(kinds[key], value) if dataclasses.is_dataclass(kinds[key]) else value
    return section(**values)
