"""The `[mixing]` tables of a training config, merged into torchtitan's own.

`python -m titan_aioli.train --job.config_file X.toml` reads them; every field is also a flag, such as
`--mixing.method stratified` or `--mixing.aioli.eta 0.5`. Values are checked by `check_types` and by the
builders, since torchtitan does not check those that come from TOML.

No `from __future__ import annotations` here: torchtitan looks at the fields' types.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from typeguard import TypeCheckError, check_type

from titan_aioli.config.methods import ADO, ODM, Aioli, DoGE, DoReMi, Guards, Replay, SkillIt, Static
from titan_aioli.errors import UserError
from titan_aioli.files import read_toml


@dataclass
class Group:
    """One data group, as a table `[mixing.groups.NAME]`."""

    train: list[str] = field(default_factory=list)
    """Token stores to train on. Empty: STORES/NAME/train."""
    validation: list[str] = field(default_factory=list)
    """Held-out token stores that decide the mixture. Empty: STORES/NAME/validation."""
    test: list[str] = field(default_factory=list)
    """Token stores of the final result. Empty: STORES/NAME/test."""
    store_weights: list[float] = field(default_factory=list)
    """How often rows are drawn from each of the `train` stores, in any unit. Empty: by their sizes."""
    max_epochs: float | None = None
    """How often the group may be read through; `mixing.when_used_up` says what then. Unset: no limit."""
    weight: float = 1.0
    """Weight of the group for method `static`; normalised over the groups."""
    dtype: str | None = None
    """NumPy name of the token type, for raw `.bin` stores without an index (uint16, int32, ...)."""


@dataclass
class Evaluation:
    """Held-out losses: always the same sequences, spread over the data-parallel ranks."""

    sequences: int = 64
    """Held-out sequences of every group (all of them where a group has fewer)."""
    budget: float = 3.0
    """Most that the evaluations a method asks for may cost, in percent of the training compute: it is shown
    fewer of the `sequences` where all would cost more. 0: no bound."""
    freq: int = 0
    """Evaluate every so many steps for the log, whatever the method needs. 0: only when it needs to."""
    at_start: bool = False
    """Evaluate before the first step, whatever the method needs."""
    test: bool = True
    """Evaluate the test stores when the run ends."""


@dataclass
class Mixing:
    """What the run is trained on, and what decides it."""

    method: str = "stratified"
    """The mixing method: stratified, static, aioli, skill_it, doremi, doge, odm, ado or replay."""
    stores: str = ""
    """Folder of the token stores that `titan-aioli tokenize` made; groups may name their own."""
    groups: dict[str, Group] = field(default_factory=dict)
    """The data groups: tables [mixing.groups.NAME]. Their order is the order of the proportions."""
    seed: int = 0
    """Seed of the rows' order, the sequences' order and the method's choices."""
    read_ahead: int = 4
    """Micro-batches read in the background, never beyond the current phase. 0: none."""
    audit: bool = False
    """Write rows.csv into the dump folder: one line for each row trained on."""
    when_used_up: Literal["repeat", "stop", "redistribute"] = "repeat"
    """When a group has been read `max_epochs` times: go on with a warning, end the training, or give its
    share to the other groups in proportion."""
    on_resume: Literal["refuse", "adapt"] = "refuse"
    """A checkpoint of other groups, stores, limits or method: refuse it, or go on from it. Kept groups (by
    name) then go on where they were, and the method starts anew if it or the groups are others."""
    max_skipped_updates: int = 10
    """Stop after so many updates in a row that were skipped, since what they observed was not finite."""
    train_losses: bool = True
    """Keep the training loss of every group (one more pass over the token losses, no wait)."""
    progress: bool = False
    """Draw a progress bar on the standard error of rank 0."""
    static: Static = field(default_factory=Static)
    aioli: Aioli = field(default_factory=Aioli)
    skill_it: SkillIt = field(default_factory=SkillIt)
    doremi: DoReMi = field(default_factory=DoReMi)
    doge: DoGE = field(default_factory=DoGE)
    odm: ODM = field(default_factory=ODM)
    ado: ADO = field(default_factory=ADO)
    replay: Replay = field(default_factory=Replay)
    guards: Guards = field(default_factory=Guards)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self):
        if not isinstance(self.groups, dict):
            raise UserError(f"mixing.groups is {self.groups!r}: it must hold tables [mixing.groups.NAME]")
        # torchtitan leaves the tables of a dict as dicts, and calls this twice (TOML, then flags).
        self.groups = {name: _to_group(name, table) for name, table in self.groups.items()}


@dataclass
class JobConfig:
    """torchtitan's config with a `mixing` section."""

    mixing: Mixing = field(default_factory=Mixing)


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
        key, equals, value = arg.replace("config-file", "config_file").partition("=")
        if key == "--job.config_file":
            return value if equals else (args[index + 1] if index + 1 < len(args) else None)
    return None


def _check_keys(table: Any, section: type, name: str) -> None:
    if not isinstance(table, dict):
        raise UserError(f"{name} is {table!r}: it must be a table [{name}]")
    types = {entry.name: entry.type for entry in dataclasses.fields(section)}
    for key, value in table.items():
        if key not in types:
            raise UserError(f"[{name}] has an unknown key {key!r}; it may have: {', '.join(types)}")
        if dataclasses.is_dataclass(types[key]):
            _check_keys(value, types[key], f"{name}.{key}")  # pyright: ignore[reportArgumentType]


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
        is_bool_for_number = isinstance(value, bool) and hints[entry.name] in (int, float)
        try:
            check_type(value, hints[entry.name])
        except TypeCheckError:
            is_bool_for_number = True
        if is_bool_for_number:
            allowed = str(hints[entry.name]).replace("typing.", "")
            allowed = getattr(hints[entry.name], "__name__", allowed) if "[" not in allowed else allowed
            raise UserError(f"{key} is {value!r}: it must be {allowed}")
        if isinstance(value, dict):
            for key_in_dict, item in value.items():
                if dataclasses.is_dataclass(item):
                    check_types(item, f"{key}.{key_in_dict}")


def _to_group(name: str, table: Any) -> Group:
    if isinstance(table, Group):
        return table
    if not isinstance(table, dict):
        raise UserError(f"mixing.groups.{name} is {table!r}: it must be a table [mixing.groups.{name}]")
    known = [entry.name for entry in dataclasses.fields(Group)]
    for key in table:
        if key not in known:
            raise UserError(
                f"mixing.groups.{name} has an unknown key {key!r}; it may have: {', '.join(known)}"
            )
    return Group(**table)
