"""Where per-group values come from: tables by group name, graphs and ledgers in files."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from titan_aioli.control.ledger_file import read_ledger_file
from titan_aioli.errors import UserError
from titan_aioli.files import read_json
from titan_aioli.runs.read import read_mixture, read_run, replaced_name

T = TypeVar("T")
P = ParamSpec("P")


def read_for(
    key: str, path: str, read: Callable[Concatenate[Path, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What a reader finds in the file or folder that a key of the config names.

    Args:
        key: of the config.
        path: its value.
        read: the reader; further arguments are passed on.
    Raises: UserError: it cannot be read, or holds something else; names the key.
    """
    try:
        return read(Path(path), *args, **kwargs)
    except OSError as error:
        raise UserError(f"{key} is {path!r}, which cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{key}: {error}") from None


def by_group(values: Mapping[str, float], names: Sequence[str], key: str) -> list[float]:
    """Values by group name as a list in the order of the groups, [] for none; a group left out has 0.

    Raises: UserError: a name is not a group.
    """
    for name in values:
        if name not in names:
            raise UserError(f"{key} names an unknown group {name!r}; the groups are: {', '.join(names)}")
    return [float(values.get(name, 0.0)) for name in names] if values else []


def require_every_group(values: Mapping[str, float], names: Sequence[str], key: str) -> None:
    """Refuse values by group name that leave out a group.

    Raises: UserError: names the groups that have none.
    """
    if missing := [name for name in names if name not in values]:
        raise UserError(f"{key} leaves out {', '.join(missing)}: give a number for every group")


def read_losses(path: Path) -> dict[str, float]:
    """Held-out losses by name, nats per token: the last of a run's folder, or those of a JSON file.

    Of a run with targets both those of its groups and those of its targets.

    Raises: UserError: the run is not finished or measured none, or the file is no table of numbers.
    """
    if not path.is_dir():
        content = read_json(path, "a table of losses by group")
        is_table = isinstance(content, dict) and all(
            isinstance(loss, int | float) and not isinstance(loss, bool) for loss in content.values()
        )
        if not is_table:
            raise UserError(f'{path} is not a table of losses by group: write {{"GROUP": 2.5, ...}}')
        return content
    run = read_run(path)
    if run.results is None or "validation_loss" not in run.results:
        raise UserError(
            f"{path} has no last validation losses: give a run that is finished, with "
            "evaluation.validation on"
        )
    losses = dict(zip(run.groups, run.results["validation_loss"], strict=True))
    if run.targets is not None:
        losses |= zip(run.targets, run.results["target_validation_loss"], strict=True)
    return losses


def read_graph(path: Path, names: Sequence[str], targets: Sequence[str] | None = None) -> list[list[float]]:
    """Skill-It's graph [G][K] (row = group trained on) from a JSON file, in the order of groups and targets.

    A file without `targets` is of groups that are their own targets; so is a run where they are None.

    Raises: UserError: the file holds no graph, or one of other groups or targets.
    """
    content = read_json(path, "a graph made by `titan-aioli sweep --single-groups`")
    try:
        targets = names if targets is None else targets
        trained = list(content["groups"])
        evaluated = list(content.get("targets", trained))
        graph = np.array(content["graph"], dtype=np.float64).reshape(len(trained), len(evaluated))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a graph made by `titan-aioli sweep --single-groups` ({error!r})"
        ) from None
    for kind, found, wanted in (("groups", trained, names), ("targets", evaluated, targets)):
        if set(found) != set(wanted):
            raise UserError(f"{path} is a graph of the {kind} {sorted(found)}, this run has {sorted(wanted)}")
    rows, columns = [trained.index(name) for name in names], [evaluated.index(name) for name in targets]
    return graph[np.ix_(rows, columns)].tolist()


def read_sweep_orders(path: Path) -> list[list[int]]:
    """The swept groups of every LearnParams that a ledger.jsonl records, one list per round.

    The run's mixture.json beside it says which perturbed mixtures it used; without it, the paper's.

    Raises: UserError: the ledger is not of such a run, or does not tell the swept groups.
    """
    _refuse_other_mixtures(path)
    orders: dict[int, list[int]] = {}
    for record in read_ledger_file(path):
        if record["phase"] in ("measure", "prior"):  # the method begins, at a resume once more
            orders.clear()
        if record["phase"] == "learn_params" and "reason" not in record:  # with one, it repeats the segment
            orders.setdefault(record["round"], []).append(int(np.argmax(record["proportions"])))
    if not orders:
        raise UserError(f"{path} records no LearnParams: give the ledger of an aioli run")
    rounds = [orders[round_] for round_ in sorted(orders)]
    if len(rounds[-1]) < len(rounds[0]):  # the recorded run ended inside LearnParams
        rounds.pop()
    return rounds


def _refuse_other_mixtures(ledger: Path) -> None:
    """Refuse a run in whose perturbed mixtures the swept group need not have the largest share.

    Raises: UserError: says how to have the run's orders without its ledger.
    """
    described = ledger.with_name("mixture.json")
    if not described.is_file():
        return
    mixture = read_mixture(described)
    if mixture["method"] != "aioli":
        raise UserError(f"{ledger} is of a run of {mixture['method']}: give the ledger of an aioli run")
    kind = mixture.get("hyperparameters", {}).get("mixtures", "one_hot")
    if kind != "one_hot":
        raise UserError(
            f'{ledger} is of a run with mixtures = "{kind}", whose swept groups a ledger does not tell '
            '(only those of "one_hot"): leave out mixing.aioli.orders_from, and set mixing.seed, num_sweeps '
            f"and order as in {described}: the orders follow from them"
        )


def read_schedule(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """The entries of a ledger.jsonl for method `replay`, with proportions in the order of the groups.

    The run's mixture.json beside it names the groups; without it the proportions are taken to be in the order
    of `names` already.

    Raises: UserError: the ledger is empty, of other groups, or of groups that changed at a resume.
    """
    records, described = read_ledger_file(path), path.with_name("mixture.json")
    try:
        groups = json.loads(described.read_text(encoding="utf-8"))["groups"] if described.is_file() else names
        order = [groups.index(name) for name in names]
        if len(groups) != len(names):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{described} does not describe a run of the groups {', '.join(names)}") from None
    if not records:
        raise UserError(f"{path} is empty: give the ledger of a run")
    for record in records[1:]:
        _refuse_other_groups(path, record, groups)
    entries = []
    for number, record in enumerate(records, 1):
        shares = record["proportions"]
        if not isinstance(shares, list) or len(shares) != len(names):
            raise UserError(f"{path}, line {number}: proportions are {shares}, not {len(names)} numbers")
        entries.append([record["step"], record["phase"], record["round"], [shares[k] for k in order]])
    return entries


def _refuse_other_groups(ledger: Path, record: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Refuse a record with which a run went on after a resume from other groups, or from the same reordered.

    Raises: UserError: names the step.
    """
    if "drawn" not in record:
        return
    kept = ledger.with_name(replaced_name(record["step"]))
    before = read_json(kept, "what a run writes").get("groups") if kept.is_file() else None
    if before != groups or record.get("groups") != groups:
        raise UserError(
            f"{ledger} cannot be replayed: at step {record['step']} the run was resumed from other groups, "
            "or in another order: give the ledger of a run with the same groups from start to end"
        )
