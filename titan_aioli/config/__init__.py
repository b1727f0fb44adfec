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
    """Relative frequency of each of the `train` stores among the group's rows. Empty: by their sizes."""
    max_epochs: float | None = None
    """How often the group may be read; `mixing.when_used_up` says what happens then. Unset: no limit."""
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
    """Upper bound on the cost of the evaluations that a method requests, in percent of the training compute.
    If `sequences` would cost more, the method sees fewer. 0: no bound."""
    freq: int = 0
    """Steps between two evaluations for the log, whatever the method needs. 0: only when it needs one."""
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
    """What happens when a group has been read `max_epochs` times: training continues with a warning, it ends,
    or the group's share goes to the other groups in proportion."""
    on_resume: Literal["refuse", "adapt"] = "refuse"
    """What happens if the checkpoint has other groups, stores, limits or another method. `refuse`: the run
    stops. `adapt`: it continues: groups that remain (by name) keep their position, new ones start at their
    first sequence, and the method restarts if it or the groups changed."""
    max_skipped_updates: int = 10
    """Number of consecutive updates skipped (their observation was not finite) after which the run stops."""
    train_losses: bool = True
    """Keep the training loss of every group (one more pass over the token losses, no host sync)."""
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
