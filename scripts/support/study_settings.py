"""What the study trains, read from its TOML file: settings, arms, stores, rules fixed beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from titan_aioli.errors import UserError
from titan_aioli.files import read_toml
from titan_aioli.methods import METHODS

T = TypeVar("T")

STRATIFIED = "stratified"
BEST_STATIC = "best_static"
"""Name of the arm that is the best static mixture of the grid, chosen on seeds of its own."""


@dataclass(frozen=True)
class Arm:
    """What sets a run apart besides its setting, batch size and seed."""

    method: str
    table: Mapping[str, Any] = field(default_factory=dict)
    """Keys of [mixing.METHOD]."""
    weights: Mapping[str, float] | str | None = None
    """By group, of a static mixture; a group left out has none. "targets": the weights of the targets."""
    rounds: int | None = None
    """Updates in a run, of aioli and skill_it."""
    spread: bool = False
    """Whether groups are read no more often than the setting's `max_epochs`, spread over the run."""


@dataclass(frozen=True)
class Setting:
    """Groups, what the mixture is for, and the grid that the oracle is chosen from."""

    title: str
    groups: list[str]
    targets: Mapping[str, float] = field(default_factory=dict)
    """Weights; empty: the groups, all the same."""
    tokens: int | None = None
    """Of the run; None: the study's steps."""
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    """By group, how often the arms with `spread` read it."""
    single_shares: list[float] = field(default_factory=list)
    """The grid has every group alone at each of these."""
    mixtures: list[Mapping[str, float]] = field(default_factory=list)
    """More of the grid: shares, the rest even over the groups that are not named."""

    def grid(self) -> dict[str, Arm]:
        """The static mixtures by name, each with the share of every group."""
        singles = [{group: share} for share in self.single_shares for group in self.groups]
        found = {}
        for named in (*singles, *self.mixtures):
            others = [group for group in self.groups if group not in named]
            rest = dict.fromkeys(others, (1 - sum(named.values())) / max(1, len(others)))
            name = "_".join(["static", *(f"{group}{share:.2f}" for group, share in named.items())])
            found[name] = Arm("static", weights={**rest, **named})
        return found

    def arms(self, arms: Mapping[str, Arm]) -> dict[str, Arm]:
        """Those that this setting has.

        Target weights only where they are the weights of groups, limits only where it says which.
        """
        are_groups = bool(self.targets) and set(self.targets) <= set(self.groups)
        found = {}
        for name, arm in arms.items():
            if arm.spread and not self.max_epochs:
                continue
            if "targets" not in (arm.weights, arm.table.get("anchor")):
                found[name] = arm
            elif are_groups:
                found[name] = replace(arm, weights=self.targets) if arm.weights else arm
        return found


@dataclass(frozen=True)
class Training:
    """How every run is trained and evaluated; see the TOML file."""

    steps: int
    seq_len: int
    learning_rate: float
    sequences: int
    budget: float
    evaluations: int
    final_evaluations: int

    def steps_of(self, setting: Setting, batch_size: int, steps: int | None) -> int:
        """Optimizer steps of a run, a multiple of the number of evaluations.

        Args:
            steps: instead of what the file says, for a trial.
        Raises: UserError: fewer than one step between two evaluations.
        """
        if steps is None:
            steps = self.steps
            if setting.tokens is not None:
                steps = setting.tokens // (batch_size * self.seq_len)
        if steps < self.evaluations:
            raise UserError(f"{steps} steps are too few for {self.evaluations} evaluations in a run")
        return steps - steps % self.evaluations


@dataclass(frozen=True)
class StopRule:
    """When to train more pairs of runs; see the TOML file."""

    standard_errors: float
    pairs: int
    most_pairs: int


@dataclass(frozen=True)
class Study:
    """The whole file."""

    training: Training
    stop: StopRule
    oracle_seeds: list[int]
    arms: dict[str, Arm]
    stores: dict[str, dict[str, Any]]
    """Stores that are made from the corpus's, by name."""
    settings: dict[str, Setting]

    def names(self, settings: Sequence[str]) -> list[str]:
        """Groups and targets of these settings."""
        chosen = [self.settings[key] for key in settings]
        return sorted({name for setting in chosen for name in (*setting.groups, *setting.targets)})

    def derived(self, settings: Sequence[str]) -> list[str]:
        """Those of them that are made from others."""
        return [name for name in self.names(settings) if name in self.stores]

    def sources(self, settings: Sequence[str]) -> list[str]:
        """The files of the corpus that they come from."""
        found = set(self.names(settings)) - set(self.stores)
        for name in self.derived(settings):
            ((_, source),) = self.stores[name].items()
            found |= {source} if isinstance(source, str) else set(source)
        return sorted(found)


def read_study(path: Path) -> Study:
    """The study of a TOML file.

    Raises: UserError: a missing table, an unknown key, a mixture that is none, a group without a source.
    """
    content = read_toml(path)
    try:
        study = Study(
            training=_build(Training, content["training"], "training"),
            stop=_build(StopRule, content["stop"], "stop"),
            oracle_seeds=content["oracle"]["seeds"],
            arms={name: _build(Arm, table, f"arms.{name}") for name, table in content["arms"].items()},
            stores=content.get("stores", {}),
            settings={n: _build(Setting, table, f"settings.{n}") for n, table in content["settings"].items()},
        )
    except KeyError as error:
        raise UserError(f"{path} has no table or key {error}") from None
    for name, arm in study.arms.items():
        if arm.method not in METHODS:
            raise UserError(
                f"{path}: arms.{name}.method is {arm.method!r}: choose one of {', '.join(METHODS)}"
            )
    for name, setting in study.settings.items():
        _check_mixtures(f"{path}: settings.{name}", setting)
    return study


def _build(kind: type[T], table: Mapping[str, Any], key: str) -> T:
    known = [entry.name for entry in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in table:
        if name not in known:
            raise UserError(f"[{key}] has an unknown key {name!r}; it may have: {', '.join(known)}")
    try:
        return kind(**table)
    except TypeError as error:
        raise UserError(f"[{key}] is not whole: {error}") from None


def _check_mixtures(key: str, setting: Setting) -> None:
    """Every mixture of the grid is one."""
    for named in setting.mixtures:
        if strangers := set(named) - set(setting.groups):
            raise UserError(f"{key}.mixtures names {', '.join(sorted(strangers))}: not among the groups")
        if sum(named.values()) > 1 + 1e-9 or min(named.values()) < 0:
            raise UserError(
                f"{key}.mixtures has {dict(named)}: shares are at least 0, and at most 1 together"
            )
