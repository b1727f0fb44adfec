"""From the methods' config tables to plain arguments, and to the bounds around the method."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from titan_aioli.config import Mixing
from titan_aioli.config.methods import GuardsTable, Run
from titan_aioli.config.sources import by_group, read_for
from titan_aioli.errors import UserError
from titan_aioli.methods import METHODS, Objective
from titan_aioli.runs.plan_file import read_plan


def hyperparameters(
    mixing: Mixing,
    num_tokens: Sequence[int],
    targets: Sequence[str] | None = None,
    objective: Objective | None = None,
    num_steps: int | None = None,
    epochs_of_all: list[float] | None = None,
) -> dict[str, Any]:
    """The method's hyperparameters as plain arguments, per-group values in the order of the groups.

    Args:
        mixing: the config section.
        num_tokens: [G], training tokens of each group.
        targets: [K], names. None: the groups.
        objective: what each target counts. None: every target the same.
        num_steps: optimizer steps of the run. None: not known.
        epochs_of_all: [G], epochs of each group if the run were on nothing else. None: not known.
    """
    table, method = getattr(mixing, mixing.method, None), METHODS[mixing.method]
    written_as = {name: alias for alias, name in getattr(method, "aliases", {}).items()}
    names = [written_as.get(entry.name, entry.name) for entry in fields(method)]
    written = {name: getattr(table, name) for name in names if hasattr(table, name)}
    if "objective" in names:
        del written["objective"]
        if objective is not None and objective != Objective():
            written["objective"] = asdict(objective)
    resolve = getattr(table, "resolve", None)
    if resolve is None:
        return written
    names = list(mixing.groups) if targets is None else list(targets)
    run = Run(
        names=list(mixing.groups),
        weights=[group.weight for group in mixing.groups.values()],
        num_tokens=num_tokens,
        seed=mixing.seed,
        targets=names,
        target_shares=(objective or Objective()).shares(len(names)).tolist(),
        num_steps=num_steps,
        epochs_of_all=epochs_of_all,
    )
    return resolve(written, run)


def guard_arguments(mixing: Mixing, max_share: list[float] | None = None) -> dict[str, Any] | None:
    """The bounds of `[mixing.guards]`, and the largest shares [G], as arguments of Guarded; None: all off."""
    values = {**vars(mixing.guards), "max_share": max_share}
    names, plan = list(mixing.groups), values.pop("anchor_plan")
    if plan and values["anchor"]:
        raise UserError("mixing.guards.anchor and anchor_plan are both set: leave one out")
    values["anchor"] = by_group(values["anchor"], names, "mixing.guards.anchor") or None
    if plan:
        values["anchor"] = read_for("mixing.guards.anchor_plan", plan, read_plan, names).tolist()
    off = {**vars(GuardsTable()), "anchor": None, "max_share": None}
    return None if all(value == off[name] for name, value in values.items()) else values
