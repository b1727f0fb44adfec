"""From `[mixing.targets]` and `[mixing.objective]` to held-out sets and what each of them counts."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from titan_aioli.config import Mixing, Target
from titan_aioli.config.groups import Vocabulary, check_vocabulary, open_stores, shared_stores
from titan_aioli.data.answers import Answers
from titan_aioli.data.group import Group
from titan_aioli.data.targets import HeldOutSet, Targets
from titan_aioli.errors import UserError
from titan_aioli.methods.objective import Objective


class Opened(NamedTuple):
    """What the config says the mixture is for."""

    targets: Targets
    objective: Objective


def open_targets(
    mixing: Mixing,
    seq_len: int,
    validation: Sequence[Group],
    test: Sequence[Group],
    vocabulary: Vocabulary,
) -> Opened | None:
    """The targets of a config; None where it names none, so that the groups are the targets.

    Args:
        mixing: the config section.
        seq_len: S, inputs of a sequence.
        validation, test: held-out data of the groups; `test` is empty where nothing is tested.
        vocabulary: of the model.
    Raises: UserError: what is wrong with which target, and what to do.
    """
    if not mixing.targets:
        _refuse_objective_alone(mixing)
        return None
    if not mixing.evaluation.validation:
        raise UserError(
            "there are targets, and mixing.evaluation.validation is false: leave out one of the two"
        )
    for name, table in mixing.targets.items():
        _check_values(name, table)
    if not any(table.role == "reward" and table.weight > 0 for table in mixing.targets.values()):
        raise UserError(
            'no target counts: set the weight of at least one [mixing.targets.NAME] with role = "reward" '
            "above 0"
        )
    names = list(mixing.targets)
    targets = Targets(
        names,
        [_open(mixing, name, "validation", seq_len, vocabulary, validation) for name in names],
        [_open(mixing, name, "test", seq_len, vocabulary, test) for name in names]
        if mixing.evaluation.test
        else [],
    )
    return Opened(targets, _objective(mixing, targets.validation))


def refuse_trained(targets: Targets, train: Sequence[Group]) -> None:
    """Refuse a target that shares a store with what is trained on.

    Its loss would say what the model remembers, and the mixture would follow it.

    Raises: UserError: names the first such store, the target and the group.
    """
    for sentence in shared_stores(train, (*targets.validation, *targets.test)):
        raise UserError(f"a target must not be trained on: {sentence}")


def _refuse_objective_alone(mixing: Mixing) -> None:
    """Refuse a `[mixing.objective]` that would be ignored."""
    default = type(mixing.objective)()
    if replace(mixing.objective, contamination=default.contamination) != default:
        raise UserError(
            "[mixing.objective] is set but there is no [mixing.targets.NAME]: name the targets; a target may "
            "have the name of a group"
        )


def _check_values(name: str, table: Target) -> None:
    key = f"mixing.targets.{name}"
    if not 0 <= table.weight < math.inf:
        raise UserError(f"{key}.weight is {table.weight}: it must be a finite number, at least 0")
    if not 0 <= table.tolerance < math.inf:
        raise UserError(f"{key}.tolerance is {table.tolerance}: it must be a finite number, at least 0")
    if table.role == "guard" and table.weight == 0:
        raise UserError(
            f"{key} is a guard of weight 0: give it a weight, or the role reward to only watch it"
        )
    if table.bytes_per_token is not None and not 0 < table.bytes_per_token < math.inf:
        raise UserError(f"{key}.bytes_per_token is {table.bytes_per_token}: it must be above 0")


def _open(
    mixing: Mixing, name: str, split: str, seq_len: int, vocabulary: Vocabulary, of_groups: Sequence[Group]
) -> HeldOutSet:
    """The held-out data of one target."""
    table = mixing.targets[name]
    paths = getattr(table, split)
    if name in mixing.groups:
        if table.validation or table.test:
            raise UserError(
                f"mixing.targets.{name} has stores of its own and the name of a group: leave out its stores "
                "(the group's held-out set is then the target), or give it another name"
            )
        return next(group for group in of_groups if group.name == name)
    if not paths and not mixing.stores:
        raise UserError(
            f"target {name!r} has no {split} stores: set mixing.targets.{name}.{split}, set mixing.stores to "
            "the folder that `titan-aioli tokenize` made, or use the name of a group "
            f"({', '.join(mixing.groups)})"
        )
    paths = paths or [str(Path(mixing.stores) / name / split)]
    stores = open_stores(f"target {name!r}", paths, table.dtype)
    for store in stores:
        check_vocabulary("target", name, store, vocabulary)
    if all(store.prompts is None for store in stores):
        return Group(name, stores, seq_len, vocab_size=vocabulary.size)
    if any(store.prompts is None for store in stores):
        raise UserError(
            f"target {name!r} has stores with prompts and stores without: make two targets of them"
        )
    return Answers(name, stores, seq_len, vocabulary.size)


def _objective(mixing: Mixing, validation: Sequence[HeldOutSet]) -> Objective:
    """What each target counts."""
    tables, table = list(mixing.targets.values()), mixing.objective
    tolerances = [entry.tolerance if entry.role == "guard" else None for entry in tables]
    in_bytes = table.unit == "bits_per_byte"
    weights = [entry.weight for entry in tables]
    return Objective(
        weights=None if len(set(weights)) == 1 else weights,
        scales=[_bits_per_byte(mixing, group) for group in validation] if in_bytes else None,
        tolerances=tolerances if any(most is not None for most in tolerances) else None,
        relative=table.unit == "relative",
        combine=table.combine,
        worst_eta=table.worst_eta,
        worst_pull=table.worst_pull,
    )


def _bits_per_byte(mixing: Mixing, target: HeldOutSet) -> float:
    """Bits per byte that one nat per token is."""
    given = mixing.targets[target.name].bytes_per_token
    if given is not None:
        return 1 / (given * math.log(2))
    tokens = target.num_tokens
    text_bytes = sum(store.metadata.get("text_bytes", 0) for store in target.stores)
    if not all(store.metadata.get("text_bytes") for store in target.stores) or not tokens:
        raise UserError(
            f'mixing.objective.unit is "bits_per_byte", and the stores of target {target.name!r} do not say '
            f"how many bytes of text they hold: set mixing.targets.{target.name}.bytes_per_token"
        )
    return tokens / text_bytes / math.log(2)
