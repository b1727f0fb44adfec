"""The `[mixing]` tables of a training config, merged into torchtitan's own.

`python -m titan_aioli.train --job.config_file X.toml` reads them; every field is also a flag, such as
`--mixing.method stratified` or `--mixing.aioli.eta 0.5`. Values are checked by `validate.check_types` and by
the builders, since torchtitan does not check those that come from TOML.

No `from __future__ import annotations` here: torchtitan looks at the fields' types.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from titan_aioli.config.methods import (
    ADOTable,
    AioliBayesTable,
    AioliGradientsTable,
    AioliTable,
    DoGETable,
    DoReMiTable,
    GuardsTable,
    ODMTable,
    ReplayTable,
    SkillItTable,
    StaticTable,
    TargetExcessTable,
)
from titan_aioli.errors import UserError, unknown_key

T = TypeVar("T")


@dataclass
class Group:
    """One data group, as a table `[mixing.groups.NAME]`."""

    train: list[str] = field(default_factory=list)
    """Token stores to train on. Empty: STORES/NAME/train."""
    validation: list[str] = field(default_factory=list)
    """Held-out token stores that decide the mixture. Empty: STORES/NAME/validation."""
    test: list[str] = field(default_factory=list)
    """Token stores of the final result. Empty: STORES/NAME/test."""
    split: list[float] | str | None = None
    """Cut the `train` stores into train, validation and test instead, by documents: relative shares such as
    [0.98, 0.01, 0.01] or Megatron's "969,30,1". Train left out: STORES/NAME. Unset: not cut."""
    end_of_document: int | None = None
    """Token id that ends a document, for a `split` of arrays that do not say where documents end (`.npy`, raw
    `.bin`). Unset: those are cut at tokens."""
    store_weights: list[float] = field(default_factory=list)
    """Relative frequency of each of the `train` stores among the group's rows. Empty: by their sizes."""
    max_epochs: float | None = None
    """How often the group may be read; `mixing.when_used_up` says what happens then. Unset: no limit."""
    weight: float = 1.0
    """Weight of the group for method `static`; normalised over the groups."""
    dtype: str | None = None
    """NumPy name of the token type, for raw `.bin` stores without an index, and for `.npy` without a header
    (uint16, int32, ...)."""


@dataclass
class Target:
    """One held-out set that the mixture is for, as a table `[mixing.targets.NAME]`.

    Without any such table the targets are the groups' own held-out sets, all with the same weight. A target
    with the name of a group and without stores is the held-out set of that group.
    """

    validation: list[str] = field(default_factory=list)
    """Token stores whose loss decides the mixture. Empty: those of the group of this name, else
    STORES/NAME/validation."""
    test: list[str] = field(default_factory=list)
    """Token stores of the final result. Empty: those of the group of this name, else STORES/NAME/test."""
    weight: float = 1.0
    """How much the target counts beside the others. 0: it is only watched."""
    role: Literal["reward", "guard"] = "reward"
    """`reward`: the mixture lowers its loss. `guard`: it is never rewarded, and counts only while its loss is
    above the lowest of the run by more than `tolerance`."""
    tolerance: float = 0.02
    """Nats per token by which a guard's loss may be above its lowest."""
    bytes_per_token: float | None = None
    """Bytes of text per token, for unit = "bits_per_byte". Unset: as the stores' metadata say."""
    dtype: str | None = None
    """NumPy name of the token type, for raw `.bin` stores without an index, and for `.npy` without a header
    (uint16, int32, ...)."""


@dataclass
class ObjectiveTable:
    """What the proportions minimise: the weighted mean of the targets' losses."""

    unit: Literal["nats", "bits_per_byte", "relative"] = "nats"
    """Unit in which losses are added: nats per token, bits per byte of text, or relative to the target's loss
    at the start of the round."""
    combine: Literal["mean", "worst"] = "mean"
    """`mean`: by the targets' weights. `worst`: targets whose predicted relative improvement is least gain
    weight."""
    worst_eta: float = 0.5
    """With combine = "worst": step size of the logarithms of the weights at each round."""
    worst_pull: float = 0.2
    """With combine = "worst": share of the way back to the targets' weights at each round."""
    contamination: Literal["warn", "refuse"] = "warn"
    """What `titan-aioli check --contamination` does about held-out documents that are trained on: it prints
    them, or it also refuses the config. Without targets: the groups' own held-out documents."""


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
    sequence_losses: bool = False
    """When the run ends, also write the loss of every validation sequence of the targets (or groups):
    sequences.json, which `titan-aioli plan --law mixmin` needs of runs on single groups."""
    validation: bool = True
    """Measure the held-out losses. Off: groups need no validation stores; not with a method that decides from
    their losses, and not with targets."""
    test: bool = True
    """Evaluate the test stores when the run ends. Off: groups need none."""


@dataclass
class Mixing:
    """What the run is trained on, and what decides it."""

    method: str = "stratified"
    """The mixing method: stratified, static, aioli, aioli_bayes, aioli_gradients, skill_it, doremi, doge,
    odm, ado, target_excess or replay."""
    stores: str = ""
    """Folder of the token stores that `titan-aioli tokenize` made; groups may name their own."""
    groups: dict[str, Group] = field(default_factory=dict)
    """The data groups: tables [mixing.groups.NAME]. Their order is the order of the proportions."""
    targets: dict[str, Target] = field(default_factory=dict)
    """What the mixture is for: tables [mixing.targets.NAME]. Empty: the held-out sets of the groups."""
    train_share: float = 1.0
    """Train on this share of every group's documents only, the first ones: for short runs that are to repeat
    their groups as a longer run would. `titan-aioli sweep --for-tokens` sets it. Held-out data stay whole."""
    objective: ObjectiveTable = field(default_factory=ObjectiveTable)
    seed: int = 0
    """Seed of the rows' order, the sequences' order and the method's choices."""
    read_ahead: int = 4
    """Micro-batches read in the background, never beyond the current phase. 0: none."""
    audit: bool = False
    """Write rows.csv into the dump folder: one line for each row trained on."""
    when_used_up: Literal["repeat", "stop", "redistribute", "spread"] = "repeat"
    """What happens when a group has been read `max_epochs` times: training continues with a warning, it ends,
    or the group's share goes to the other groups in proportion. `spread`: from the start no group gets a
    larger share than one that lasts to the end of the run."""
    on_resume: Literal["refuse", "adapt"] = "refuse"
    """What happens if the checkpoint has other groups, targets, stores, limits, weights of `static` or
    another method. `refuse`: the run stops. `adapt`: it continues: groups that remain (by name) keep their
    position, new ones start at their first sequence, and the method restarts if it, the groups, the targets
    or those weights changed."""
    max_skipped_updates: int = 10
    """Number of consecutive updates skipped (their observation was not finite) after which the run stops."""
    train_losses: bool = True
    """Keep the training loss of every group (one more pass over the token losses, no host sync)."""
    separate_documents: bool = False
    """Keep attention and positions inside documents, which end with the end-of-text token of the tokenizer in
    `model.hf_assets_path`. For torchtitan 0.3; off: a token sees all earlier ones of its row."""
    progress: bool = False
    """Draw a progress bar on the standard error of rank 0."""
    static: StaticTable = field(default_factory=StaticTable)
    aioli: AioliTable = field(default_factory=AioliTable)
    aioli_bayes: AioliBayesTable = field(default_factory=AioliBayesTable)
    aioli_gradients: AioliGradientsTable = field(default_factory=AioliGradientsTable)
    skill_it: SkillItTable = field(default_factory=SkillItTable)
    doremi: DoReMiTable = field(default_factory=DoReMiTable)
    doge: DoGETable = field(default_factory=DoGETable)
    odm: ODMTable = field(default_factory=ODMTable)
    ado: ADOTable = field(default_factory=ADOTable)
    target_excess: TargetExcessTable = field(default_factory=TargetExcessTable)
    replay: ReplayTable = field(default_factory=ReplayTable)
    guards: GuardsTable = field(default_factory=GuardsTable)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self):
        # torchtitan leaves the tables of a dict as dicts, and calls this twice (TOML, then flags).
        self.groups = _to_tables("groups", self.groups, Group)
        self.targets = _to_tables("targets", self.targets, Target)


@dataclass
class JobConfig:
    """torchtitan's config with a `mixing` section."""

    mixing: Mixing = field(default_factory=Mixing)


def _to_tables(section: str, tables: Any, kind: type[T]) -> dict[str, T]:
    """The tables `[mixing.SECTION.NAME]` by name, as objects of their class."""
    if not isinstance(tables, dict):
        raise UserError(f"mixing.{section} is {tables!r}: it must hold tables [mixing.{section}.NAME]")
    return {name: _to_table(f"mixing.{section}.{name}", table, kind) for name, table in tables.items()}


def _to_table(key: str, table: Any, kind: type[T]) -> T:
    if isinstance(table, kind):
        return table
    if not isinstance(table, dict):
        raise UserError(f"{key} is {table!r}: it must be a table [{key}]")
    known = [entry.name for entry in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in table:
        if name not in known:
            raise unknown_key(key, name, known)
    return kind(**table)
