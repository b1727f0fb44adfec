"""From the `[mixing]` config to the objects that run: groups, method, loader, controller.

Everything is checked here, on every rank and before any of them waits for another, so that a mistake ends
all ranks within seconds. Below the builders only plain arguments are passed on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.config import Mixing
from titan_aioli.config.groups import (
    Vocabulary,
    describe_splits,
    open_groups,
    shared_stores,
)
from titan_aioli.config.hyperparameters import guard_arguments, hyperparameters
from titan_aioli.config.limits import describe_limits, largest_shares
from titan_aioli.config.targets import open_targets, refuse_trained
from titan_aioli.config.validate import check_types
from titan_aioli.control.controller import MixtureController
from titan_aioli.control.ledger import Ledger
from titan_aioli.control.ledger_file import LedgerFile
from titan_aioli.control.resume import Identity
from titan_aioli.data.group import Group
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.targets import HeldOutSet, Targets
from titan_aioli.errors import UserError
from titan_aioli.files import to_plain
from titan_aioli.methods import METHODS, Guarded, MixingMethod, Objective, build_method
from titan_aioli.methods.protocol import OF_GRADIENTS
from titan_aioli.stores.split import Split

MAX_WORDS = 200
"""Characters of a mixture that a checkpoint keeps in words."""


class Mixture(NamedTuple):
    """What a config asks for, opened and checked."""

    method: MixingMethod
    train: list[Group]
    validation: list[Group]
    test: list[Group]
    """Empty where evaluation.test is off."""
    hyperparameters: dict[str, Any]
    """Of the method, as plain arguments: files that the config names are read once, where it is built."""
    targets: Targets | None = None
    """What the mixture is for; None: the groups' held-out sets."""
    objective: Objective = Objective()
    """What each target counts."""
    splits: Mapping[str, Split | None] = {}
    """How each group's stores are cut; None where they are not."""
    guards: dict[str, Any] | None = None
    """The bounds around the method, as arguments of Guarded; None: there are none."""

    @property
    def group_names(self) -> list[str]:
        return [group.name for group in self.train]

    def shared_stores(self) -> list[str]:
        """A sentence for each store that is both trained on and held out."""
        targets = () if self.targets is None else (*self.targets.validation, *self.targets.test)
        return list(shared_stores(self.train, (*self.validation, *self.test, *targets)))

    @property
    def target_names(self) -> list[str]:
        return self.group_names if self.targets is None else list(self.targets.names)

    def given(self) -> str:
        """What a method that observes nothing trains on, in words, or their hash; "" for others."""
        if self.method.observes != "nothing" or not self.hyperparameters:
            return ""
        words = json.dumps(to_plain(self.hyperparameters))
        return words if len(words) <= MAX_WORDS else blake2b(words.encode(), digest_size=16).hexdigest()

    def fingerprint(self) -> str:
        """Hash of the training stores and of how they are cut into sequences."""
        return _fingerprint(self.train)

    def observed_fingerprint(self) -> str:
        """Hash of the held-out sets that the method observes; "" for a method that observes none."""
        if self.method.observes not in ("validation", *OF_GRADIENTS):
            return ""
        return _fingerprint(self.validation if self.targets is None else self.targets.validation)


def _fingerprint(sets: Sequence[HeldOutSet]) -> str:
    """Hash of sets of stores and of how they are cut into sequences."""
    digest = blake2b(digest_size=16)
    for each in sets:
        digest.update(f"{each.name} {each.seq_len}".encode())
        weights = each.store_weights if isinstance(each, Group) else None
        digest.update(f"{list(weights)}".encode() if weights else b"")
        for store in each.stores:
            digest.update(store.fingerprint().encode())
    return digest.hexdigest()


def build_mixture(
    mixing: Mixing,
    seq_len: int,
    vocab_size: int | None,
    flavors: Mapping[str, int] | None = None,
    num_steps: int | None = None,
    batch_size: int | None = None,
) -> Mixture:
    """Open every store and build the method.

    Args:
        mixing: the config section.
        seq_len: S, inputs of a sequence.
        vocab_size: of the model; token ids must be below it. None: not checked.
        flavors: vocabularies of other models by name, named where this one's is too small.
        num_steps: optimizer steps of the run, for a method whose measurements depend on it. None: not known.
        batch_size: B, rows of one step, for what depends on how often a group is read. None: not known.
    Raises: UserError: what is wrong, where, and what to do.
    """
    try:
        _check_values(mixing)
        vocabulary = Vocabulary(vocab_size, flavors or {})
        train, validation, test, splits = open_groups(mixing, seq_len, vocabulary)
        opened = open_targets(mixing, seq_len, validation, test, vocabulary)
        targets, objective = opened or (None, Objective())
        if targets is not None:
            refuse_trained(targets, train)
        names = [group.name for group in train] if targets is None else targets.names
        num_rows = None if num_steps is None or batch_size is None else num_steps * batch_size
        epochs = None if num_rows is None else [num_rows / group.num_sequences for group in train]
        num_tokens = [group.num_tokens for group in train]
        values = hyperparameters(mixing, num_tokens, names, objective, num_steps, epochs)
        guards = guard_arguments(mixing, largest_shares(mixing, train, num_rows))
        method = _build_method(mixing, values, guards, len(names), objective)
        if targets is not None and targets.are(validation):
            targets = None
        return Mixture(method, train, validation, test, values, targets, objective, splits, guards)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _check_values(mixing: Mixing) -> None:
    """Refuse values that no method and no store could work with."""
    check_types(mixing, "mixing")
    evaluation = mixing.evaluation
    if mixing.method not in METHODS:
        raise UserError(f"mixing.method is {mixing.method!r}: choose one of {', '.join(METHODS)}")
    if not mixing.groups:
        raise UserError("no data groups: add a table [mixing.groups.NAME] for each of them")
    if evaluation.sequences < 1:
        raise UserError(f"mixing.evaluation.sequences is {evaluation.sequences}: at least 1")
    if evaluation.freq < 0:
        raise UserError(
            f"mixing.evaluation.freq is {evaluation.freq}: at least 0 (only when the method needs one)"
        )
    if not 0 <= evaluation.budget < np.inf:
        raise UserError(
            f"mixing.evaluation.budget is {evaluation.budget}: percent of the training compute, "
            "0 for no bound"
        )
    if not 0 < mixing.train_share <= 1:
        raise UserError(
            f"mixing.train_share is {mixing.train_share}: above 0, at most 1 (all of every group)"
        )
    if evaluation.sequence_losses and not evaluation.validation:
        raise UserError(
            "mixing.evaluation.sequence_losses needs the losses that evaluation.validation = false leaves "
            "out: set one of them back"
        )
    if not 0 <= mixing.seed < 1 << 63:
        raise UserError(f"mixing.seed is {mixing.seed}: at least 0, below 2^63")
    if mixing.read_ahead < 0:
        raise UserError(f"mixing.read_ahead is {mixing.read_ahead}: at least 0 (nothing is read ahead)")
    if mixing.max_skipped_updates < 1:
        raise UserError(f"mixing.max_skipped_updates is {mixing.max_skipped_updates}: at least 1")
    for kind, tables in (("group", mixing.groups), ("target", mixing.targets)):
        for name, table in tables.items():
            _check_name_and_paths(kind, name, table)
    for name, group in mixing.groups.items():
        if group.max_epochs is not None and not 0 < group.max_epochs < np.inf:
            raise UserError(
                f"mixing.groups.{name}.max_epochs is {group.max_epochs}: a finite number above 0; leave it "
                "out for no bound"
            )


def _check_name_and_paths(kind: str, name: str, table: Any) -> None:
    """Refuse a name that cannot be printed, and stores without a path."""
    if not name or not name.isprintable():
        raise UserError(f"a {kind} is named {name!r}: a name has at least one character, all printable")
    for part in ("train", "validation", "test"):
        if "" in getattr(table, part, ()):
            raise UserError(f"mixing.{kind}s.{name}.{part} has an empty path: give one, or leave it out")


def _build_method(
    mixing: Mixing,
    values: dict[str, Any],
    guards: dict[str, Any] | None,
    num_targets: int,
    objective: Objective,
) -> MixingMethod:
    """The method of the config with its hyperparameters, guarded where the config says so."""
    method: MixingMethod = build_method(mixing.method, len(mixing.groups), num_targets, **values)
    if guards is not None:
        method = Guarded(method, **guards)
        method.check(len(mixing.groups), num_targets)
    if method.observes in OF_GRADIENTS and objective.start(num_targets).size:
        raise UserError(
            f"method {mixing.method} follows one gradient: set mixing.objective.unit to nats "
            "or bits_per_byte, combine mean, and no target with role guard"
        )
    if method.observes in ("validation", *OF_GRADIENTS) and not mixing.evaluation.validation:
        raise UserError(
            f"method {mixing.method} needs held-out losses: set mixing.evaluation.validation = true"
        )
    if method.observes in ("train", "excess") and not mixing.train_losses:
        raise UserError(f"method {mixing.method} needs mixing.train_losses = true")
    return method


def build_controller(
    mixing: Mixing, mixture: Mixture, ledger: Ledger, batch_size: int, folder: Path, is_writer: bool
) -> MixtureController:
    """The controller of a run, writing `ledger.jsonl` into its dump folder."""
    identity = Identity(
        method=mixing.method,
        groups=mixture.group_names,
        stores=mixture.fingerprint(),
        limits=describe_limits(mixing),
        seed=mixing.seed,
        seq_len=mixture.train[0].seq_len,
        targets=mixture.target_names,
        split=describe_splits(mixture.splits),
        mixture=mixture.given(),
        held_out=mixture.observed_fingerprint(),
        group_stores=[_fingerprint([group]) for group in mixture.train],
    )
    return MixtureController(
        method=mixture.method,
        identity=identity,
        batch_size=batch_size,
        ledger=ledger,
        ledger_file=LedgerFile(folder / "ledger.jsonl", is_writer),
        adapt=mixing.on_resume == "adapt",
    )


def describe(mixing: Mixing, mixture: Mixture, loader: MixtureLoader, num_steps: int) -> dict[str, Any]:
    """`mixture.json`: what was asked for, and all that the rows follow from besides the ledger."""
    groups = loader.groups
    description = {
        "method": mixing.method,
        "groups": [group.name for group in groups],
        "hyperparameters": mixture.hyperparameters,
        "guards": mixture.guards,
        "seed": mixing.seed,
        "batch_size": loader.schedule.batch_size,
        "seq_len": loader.seq_len,
        "steps": num_steps,
        "num_sequences": loader.schedule.num_sequences,
        "weighted_stores": {group.name: group.weighted._asdict() for group in groups if group.weighted},
        "stores": {group.name: [store.path for store in group.stores] for group in groups},
        "fingerprints": {group.name: [store.fingerprint() for store in group.stores] for group in groups},
        "started_in": str(Path.cwd()),
    }
    if dtypes := {name: table.dtype for name, table in mixing.groups.items() if table.dtype}:
        description["dtypes"] = dtypes
    if mixing.train_share < 1:
        description["train_share"] = mixing.train_share
    if describe_splits(mixture.splits):
        description["splits"] = mixture.splits
        ends = {name: table.end_of_document for name, table in mixing.groups.items()}
        description["end_of_document"] = {name: end for name, end in ends.items() if end is not None}
    if mixture.targets is not None:
        opened = mixture.targets.validation
        description["targets"] = mixture.target_names
        description["target_stores"] = {each.name: [store.path for store in each.stores] for each in opened}
    if mixture.targets is not None or mixture.objective != Objective():
        description["objective"] = {**asdict(mixture.objective), "unit": mixing.objective.unit}
    return description
