"""The `[mixing]` tables of a training config, merged into torchtitan's own.

`python -m titan_aioli.train --job.config_file X.toml` reads them; every field is also a flag, such as
`--mixing.method stratified` or `--mixing.aioli.eta 0.5`. Values are checked by `validate.check_types` and by
the builders, since torchtitan does not check those that come from TOML.

No `from __future__ import annotations` here: torchtitan looks at the fields' types.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from titan_aioli.config.methods import (
    ADOTable,
    AioliTable,
    DoGETable,
    DoReMiTable,
    GuardsTable,
    ODMTable,
    ReplayTable,
    SkillItTable,
    StaticTable,
)
from titan_aioli.errors import UserError


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
    static: StaticTable = field(default_factory=StaticTable)
    aioli: AioliTable = field(default_factory=AioliTable)
    skill_it: SkillItTable = field(default_factory=SkillItTable)
    doremi: DoReMiTable = field(default_factory=DoReMiTable)
    doge: DoGETable = field(default_factory=DoGETable)
    odm: ODMTable = field(default_factory=ODMTable)
    ado: ADOTable = field(default_factory=ADOTable)
    replay: ReplayTable = field(default_factory=ReplayTable)
    guards: GuardsTable = field(default_factory=GuardsTable)
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


def _to_group(name: str, table: Any) -> Group:
    if isinstance(table, Group):
        return table
    if not isinstance(table, dict):
        raise UserError(f"mixing.groups.{name} is {table!r}: it must be a table [mixing.groups.{name}]")
    known = [entry.name for entry in fields(Group)]
    for key in table:
        if key not in known:
            raise UserError(
                f"mixing.groups.{name} has an unknown key {key!r}; it may have: {', '.join(known)}"
            )
    return Group(**table)
