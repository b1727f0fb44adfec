"""The config tables of the mixing methods, `[mixing.NAME]`.

A method's dataclass is its table. A subclass here holds only what people write in another way (by group
name, as the path of a file) and how something is measured. Where the method needs a plain argument instead, a
table says so in `resolve`.

No `from __future__ import annotations` here: torchtitan looks at the fields' types.
"""

# A table is read by people and by `resolve`, never run as a method, so its fields may have other types.
# pyright: reportIncompatibleVariableOverride=false, reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import tyro

from titan_aioli import methods
from titan_aioli.config.sources import (
    by_group,
    read_for,
    read_graph,
    read_losses,
    read_schedule,
    read_sweep_orders,
    require_every_group,
)
from titan_aioli.errors import UserError, unknown_key
from titan_aioli.methods.aioli import UpdateRule
from titan_aioli.methods.target_excess import TargetExcess
from titan_aioli.runs.plan_file import read_plan

T = TypeVar("T")
Hidden = Annotated[T, tyro.conf.Suppress, tyro.conf.Fixed]
"""Type of a field that a table inherits from its method but that is neither a key nor a flag."""


class Run(NamedTuple):
    """What a table is resolved for."""

    names: list[str]
    """[G], the groups."""
    weights: list[float]
    """[G], `weight` of every group."""
    num_tokens: Sequence[int]
    """[G], training tokens of every group."""
    seed: int
    targets: Sequence[str]
    """[K], names."""
    target_shares: Sequence[float]
    """[K], share of each target in the objective; 0 for guards and watched targets."""
    num_steps: int | None = None
    """Optimizer steps of the run. None: not known."""
    epochs_of_all: list[float] | None = None
    """[G], epochs of each group if the run were on nothing else. None: not known."""


@dataclass
class Stage:
    """A stage of the run, as a table `[[mixing.static.schedule]]`."""

    start_step: int = 0
    """Optimizer step at which it begins; it ends where the next one begins."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of every group; a group left out has none: it begins at the first stage that names it."""
    plan: str = ""
    """A plan to take the mixture from, instead of `weights`."""


@dataclass
class StaticTable:
    """Method `static`: one mixture for the whole run, or one for each stage of it."""

    by: Literal["weight", "tokens", "plan"] = "weight"
    """Proportions by the groups' `weight`, by their number of training tokens, or from a plan."""
    plan: str = ""
    """With by = "plan": file made by `titan-aioli plan`, or the plan.json that a run leaves."""
    temperature: float = 1.0
    """Proportions ** (1 / temperature), renormalised: above 1 flatter, below 1 sharper."""
    schedule: Annotated[list[Stage], tyro.conf.Fixed] = field(default_factory=list)
    """Mixtures by step, as tables [[mixing.static.schedule]] with start_step (the first 0) and weights or
    plan; `by` is then left out. Empty: one mixture."""

    def __post_init__(self):
        # torchtitan leaves the tables of a list as dicts
        if isinstance(self.schedule, list):
            self.schedule = [_to_stage(number, stage) for number, stage in enumerate(self.schedule)]

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        del written["schedule"]
        if self.plan and self.by != "plan":
            raise UserError(
                f'mixing.static.plan is set, but mixing.static.by is "{self.by}", so it changes nothing: set '
                'by = "plan", or leave the plan out'
            )
        if self.schedule:
            if self.by != "weight":
                raise UserError(
                    f'mixing.static.by is "{self.by}" and there is a schedule: leave out one of the two'
                )
            stages = [_resolve_stage(number, stage, run) for number, stage in enumerate(self.schedule)]
            return {"schedule": stages, **written}
        if self.by == "tokens":
            return {"sizes": list(run.num_tokens), **written}
        if self.by == "weight":
            return {"proportions": run.weights, **written}
        if not self.plan:
            raise UserError('mixing.static.by is "plan" but mixing.static.plan names no file')
        plan = read_for("mixing.static.plan", self.plan, read_plan, run.names)
        return {"proportions": plan.tolist(), **written}


def _to_stage(number: int, table: Any) -> Stage:
    """A stage from its table in a TOML file."""
    if isinstance(table, Stage):
        return table
    key, known = f"mixing.static.schedule[{number}]", [entry.name for entry in fields(Stage)]
    if not isinstance(table, dict):
        raise UserError(f"{key} is {table!r}: it must be a table [[mixing.static.schedule]]")
    for name in table:
        if name not in known:
            raise unknown_key(key, name, known)
    stage = Stage(**table)
    if not isinstance(stage.weights, dict):  # the parser of flags takes it for a dict
        raise UserError(f"{key}.weights is {stage.weights!r}: it must be a table of numbers")
    return stage


def _resolve_stage(number: int, stage: Stage, run: Run) -> list[Any]:
    """[start_step, weights [G]] of a stage."""
    key = f"mixing.static.schedule[{number}]"
    if bool(stage.plan) == bool(stage.weights):
        raise UserError(f"{key} needs either weights or a plan")
    if stage.plan:
        return [stage.start_step, read_for(f"{key}.plan", stage.plan, read_plan, run.names).tolist()]
    return [stage.start_step, by_group(stage.weights, run.names, f"{key}.weights")]


@dataclass(frozen=True)
class AioliTable(methods.Aioli):
    """Method `aioli` (Chen et al. 2024, arXiv:2411.05735)."""

    update: UpdateRule = "cumulative"
    """Weights multiply over the rounds (the paper), or start from uniform in every round."""
    orders_from: str = ""
    """Path of a recorded run's ledger.jsonl whose order of swept groups is repeated; the `mixtures` of that
    run must be "one_hot"."""
    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the mixture trained on first (Aioli restricted)."""
    prior_plan: str = ""
    """A plan to take the prior from, instead of `prior`."""
    update_rule: Hidden[UpdateRule] = "cumulative"
    seed: Hidden[int] = 0
    orders: Hidden[None] = None
    objective: Hidden[None] = None

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        del written["orders"]
        written["prior"] = by_group(self.prior, run.names, "mixing.aioli.prior") or None
        written["seed"] = run.seed
        self._check_prior()
        if self.diagonal and (targets := list(run.targets)) != run.names:
            raise UserError(
                f"mixing.aioli.diagonal is true, but A has no diagonal where the targets are not the groups "
                f"{', '.join(run.names)}, in this order: they are {', '.join(targets)}: leave one of them out"
            )
        if self.prior_plan:
            plan = read_for("mixing.aioli.prior_plan", self.prior_plan, read_plan, run.names)
            written["prior"] = plan.tolist()
        if self.orders_from:
            written["orders"] = read_for("mixing.aioli.orders_from", self.orders_from, read_sweep_orders)
        return written

    def _check_prior(self) -> None:
        """Refuse a prior from two places, and one that nothing is done with."""
        if self.prior and self.prior_plan:
            raise UserError("mixing.aioli.prior and prior_plan are both set: leave one out")
        key = "prior" if self.prior else "prior_plan"
        if (self.prior or self.prior_plan) and self.prior_steps == 0 and self.start == "uniform":
            raise UserError(
                f'mixing.aioli.{key} is set, but prior_steps is 0 and start is "uniform", so it changes '
                'nothing: set prior_steps or start = "prior", or leave it out'
            )


@dataclass(frozen=True)
class AioliBayesTable(methods.AioliBayes):
    """Method `aioli_bayes`: Aioli with the evidence of the whole run, and steps that fit it."""

    anchor: Literal["even", "weight", "tokens", "targets", "plan"] = "even"
    """The mixture to start from, and to return to without evidence: even, by the groups' `weight`, by their
    number of training tokens, by the weights of the targets (where all of them are groups), or a plan's."""
    plan: str = ""
    """With anchor = "plan": file made by `titan-aioli plan`, or the plan.json that a run leaves."""
    num_steps: Hidden[int] = 1024
    seed: Hidden[int] = 0
    objective: Hidden[None] = None

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        written |= {"seed": run.seed, "anchor": _anchor("aioli_bayes", self.anchor, self.plan, run)}
        return written if run.num_steps is None else {**written, "num_steps": run.num_steps}


def _of_targets(method: str, run: Run) -> list[float]:
    """[G], the share of each group in the objective."""
    shares = dict(zip(run.targets, run.target_shares, strict=True))
    if strangers := [name for name, share in shares.items() if share > 0 and name not in run.names]:
        raise UserError(
            f'mixing.{method}.anchor is "targets", but the targets {", ".join(strangers)} are no groups: '
            "choose even, weight, tokens or plan"
        )
    return [shares.get(name, 0.0) for name in run.names]


@dataclass(frozen=True)
class AioliGradientsTable(methods.AioliGradients):
    """Method `aioli_gradients`: Aioli with the gradients' alignment for A. Not with pipeline parallelism."""

    sequences: int | None = None
    """Sequences of every group in one measurement, and in all as many held-out ones. Unset: what
    `evaluation.budget` pays for, at most `evaluation.sequences`."""
    anchor: Literal["even", "weight", "tokens", "targets", "plan"] = "even"
    """The mixture to start from, and to stay at without evidence: see [mixing.aioli_bayes]."""
    plan: str = ""
    """With anchor = "plan": file made by `titan-aioli plan`, or the plan.json that a run leaves."""
    num_steps: Hidden[int] = 1024
    epochs_of_all: Hidden[None] = None

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        if self.sequences is not None and self.sequences < 1:
            raise UserError(f"mixing.aioli_gradients.sequences is {self.sequences}: at least 1")
        written["anchor"] = _anchor("aioli_gradients", self.anchor, self.plan, run)
        written["epochs_of_all"] = run.epochs_of_all
        return written if run.num_steps is None else {**written, "num_steps": run.num_steps}


def _anchor(method: str, choice: str, plan: str, run: Run) -> list[float] | None:
    """[G], the anchor of a method; None: even. A group without weight gets the method's least share."""
    if plan and choice != "plan":
        raise UserError(
            f'mixing.{method}.plan is set, but its anchor is "{choice}", so it changes nothing: set anchor = '
            '"plan", or leave the plan out'
        )
    if choice == "even":
        return None
    if choice == "plan":
        if not plan:
            raise UserError(f'mixing.{method}.anchor is "plan" but mixing.{method}.plan names no file')
        return read_for(f"mixing.{method}.plan", plan, read_plan, run.names).tolist()
    return list({"weight": run.weights, "tokens": run.num_tokens}.get(choice) or _of_targets(method, run))


@dataclass(frozen=True)
class SkillItTable(methods.SkillIt):
    """Method `skill_it` (Chen et al. 2023, arXiv:2307.14430)."""

    graph: str = ""
    """JSON file with the graph, as `titan-aioli sweep --single-groups` makes it. Unset: identity."""
    objective: Hidden[None] = None

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        if self.graph:
            graph = read_for("mixing.skill_it.graph", self.graph, read_graph, run.names, run.targets)
            return {**written, "graph": graph}
        if (targets := list(run.targets)) != run.names:
            raise UserError(
                f"mixing.skill_it.graph is not set, and the targets {targets} are not the groups: "
                "make a graph from the groups to them with `titan-aioli sweep CONFIG --single-groups`"
            )
        return {**written, "graph": None}


@dataclass(frozen=True)
class DoReMiTable(methods.DoReMi):
    """Method `doremi` (Xie et al. 2023, arXiv:2305.10429). Not with pipeline parallelism."""

    reference: str = ""
    """Checkpoint folder (.../checkpoint/step-N) of the reference model: same flavor, trained beforehand."""
    clip_tokens: bool = True
    """Clip the excess loss of each token at 0 (the paper), or only the mean of a group (False)."""


@dataclass(frozen=True)
class DoGETable(methods.DoGE):
    """Method `doge` (Fan et al. 2023, arXiv:2310.15393). Not with pipeline parallelism."""

    sequences: int = 4
    """Held-out sequences of every target in the held-out gradient."""

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        if self.sequences < 1:
            raise UserError(f"mixing.doge.sequences is {self.sequences}: at least 1")
        return written


@dataclass(frozen=True)
class ODMTable(methods.ODM):
    """Method `odm`, Online Data Mixing (Albalak et al. 2023, arXiv:2312.02406)."""

    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the warm-up. Empty: uniform."""

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        return {**written, "prior": by_group(self.prior, run.names, "mixing.odm.prior") or None}


@dataclass(frozen=True)
class ADOTable(methods.ADO):
    """Method `ado`, Adaptive Data Optimization (Jiang et al. 2024, arXiv:2410.11820)."""

    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the prior, usually its size. Empty: uniform."""

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        return {**written, "prior": by_group(self.prior, run.names, "mixing.ado.prior") or None}


@dataclass(frozen=True)
class TargetExcessTable(TargetExcess):
    """Method `target_excess`, dynamic batch loading (Xia et al. 2023, arXiv:2310.06694)."""

    target_losses: dict[str, float] = field(default_factory=dict)
    """Held-out loss that each group is to reach, nats per token. Empty, and no `target_losses_from`: 0."""
    target_losses_from: str = ""
    """Where the losses to reach come from instead: the dump folder of a finished run (its last validation
    losses), or a JSON file {"GROUP": loss, ...}."""
    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the mixture that the run starts with. Empty: uniform."""

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        key, losses = "mixing.target_excess.target_losses", self.target_losses
        if list(run.targets) != run.names:
            raise UserError(
                f"method target_excess follows the groups' own held-out losses, so its targets must be "
                f"{', '.join(run.names)}, in this order: they are {', '.join(run.targets)}: leave out "
                "[mixing.targets], or name the groups"
            )
        if self.target_losses_from:
            if losses:
                raise UserError(f"{key} and {key}_from are both set: leave one out")
            found = read_for(f"{key}_from", self.target_losses_from, read_losses)
            losses = {name: found[name] for name in run.names if name in found}
            key = self.target_losses_from
        if losses or self.target_losses_from:
            require_every_group(losses, run.names, key)
        written["target_losses"] = by_group(losses, run.names, key) or None
        written["prior"] = by_group(self.prior, run.names, "mixing.target_excess.prior") or None
        return written


@dataclass
class ReplayTable:
    """Method `replay`: the mixtures of a recorded run as a fixed schedule."""

    ledger: str = ""
    """The recorded run's ledger.jsonl. With its seed, batch size and stores the rows are its rows. Unset:
    uniform."""

    def resolve(self, written: dict[str, Any], run: Run) -> dict[str, Any]:
        if not self.ledger:
            return {}
        return {"schedule": read_for("mixing.replay.ledger", self.ledger, read_schedule, run.names)}


@dataclass
class GuardsTable:
    """Bounds on the proportions of any method; all off by default."""

    min_share: float = 0.0
    """Least share of every group. 0: off."""
    max_change: float = 1.0
    """Largest change of any group's share at one update. 1: off."""
    anchor: dict[str, float] = field(default_factory=dict)
    """Weights of the mixture that the proportions are pulled towards. Empty: uniform."""
    anchor_plan: str = ""
    """A plan to take the anchor from, instead of `anchor`."""
    anchor_strength: float = 0.0
    """From 0 (off) to 1 (the anchor alone)."""
