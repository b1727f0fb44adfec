"""What a resumed run must share with its checkpoint, and how it may differ.

The number of data-parallel ranks and the global batch size may always change: rows keep their numbers. The
groups, their stores and limits, held-out sets, the method and a static mixture may change with
`mixing.on_resume = "adapt"`: a new ledger then starts at that step, groups that remain (by name) continue
with their next row, new ones start with their first, and the method restarts if it, the groups, the static
mixture or the held-out sets that it compares losses of changed. What decides
which tokens a row number stands for (seed, length of a sequence) may never change: rows would be lost and
repeated.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.errors import ResumeRefused

REMEDIES = {
    "method": "set mixing.method back",
    "mixture": "set the weights or the ledger of mixing.METHOD and the groups' weights back",
    "groups": "use the groups of the checkpoint",
    "targets": "use the targets of the checkpoint",
    "split": "set mixing.groups.NAME.split back",
    "stores": "point the groups at the same token stores, with the same store_weights and mixing.train_share",
    "held_out": "point validation stores and targets at the same token stores",
    "limits": "set max_epochs and when_used_up back",
}
"""Fields of `Identity` in the order that they are compared, each with what makes it equal again."""
RESTARTING = {"method", "mixture", "groups", "targets", "held_out"}
"""Those of which a change restarts the method."""
NOT_ALWAYS_SAVED = ("targets", "split", "held_out", "mixture")
"""Those that older checkpoints, or those of some methods, do not have."""
FIXED = {"seed": "mixing.seed", "seq_len": "training.seq_len"}
"""Fields of `Identity` that no resume may change, each with its key in the config."""


class Identity(NamedTuple):
    """What a run and the checkpoints that it resumes from have in common."""

    method: str
    """Key in METHODS."""
    groups: Sequence[str]
    """Names, in the order of the proportions."""
    stores: str = ""
    """Fingerprint of all training stores."""
    limits: str = ""
    """Limits on how often groups may be repeated, in words."""
    seed: int = 0
    """Of the orders of rows and sequences."""
    seq_len: int = 0
    """S, inputs of a sequence."""
    targets: Sequence[str] | None = None
    """Names, in the order in which a method sees them. None: the groups."""
    split: str = ""
    """How stores are cut into train, validation and test, in words; saved where one is."""
    mixture: str = ""
    """What a method that observes nothing was given to train on, in words; saved where there is something."""
    held_out: str = ""
    """Fingerprint of the held-out sets that the method observes; saved where it observes any."""
    group_stores: Sequence[str] = ()
    """[G], fingerprints of each group's training stores. Empty: not known."""

    @property
    def target_names(self) -> Sequence[str]:
        return self.groups if self.targets is None else self.targets


class Adaptation(NamedTuple):
    """How a run differs from the checkpoint that it continues from."""

    reason: str
    """The changes in a few words, for the ledger."""
    restarts_method: bool
    """Whether the saved state of the method does not fit any more."""


class Saved(NamedTuple):
    """The numbers of a saved controller, and its ledger."""

    ledger: Ledger
    used_up: np.ndarray
    """[G] bool, groups that nothing more is drawn from."""
    begun_with: dict[str, Any]
    """What the ledger's first record says besides its entry; older versions did not save it."""
    step: int
    first_row: int
    phase_start: int
    skipped_updates: int
    batch_size: int
    ledger_bytes: int


COUNTS = Saved._fields[3:]


def compare(
    identity: Identity, saved: Mapping[str, np.ndarray], may_differ: bool = False
) -> Adaptation | None:
    """What a run must adapt to, to continue from a checkpoint; None if their identities are equal.

    Raises: ResumeRefused: they differ and may not; names the first difference and what to do about it.
    """
    _refuse_other_rows(identity, saved)
    now = {name: np.asarray(getattr(identity, name)).tolist() for name in REMEDIES}
    now["targets"] = list(identity.target_names)
    before = {name: saved[name].tolist() for name in REMEDIES if name not in NOT_ALWAYS_SAVED}
    for name in NOT_ALWAYS_SAVED:
        absent = {"targets": before["groups"], "split": ""}.get(name, now[name])
        before[name] = saved[name].tolist() if name in saved else absent
    changed = [name for name in REMEDIES if before[name] != now[name]]
    if not changed:
        return None
    if not may_differ:
        name = changed[0]
        raise ResumeRefused(
            f"the checkpoint was written with {_difference(name, before[name], now[name], identity, saved)}: "
            f'{REMEDIES[name]}, set mixing.on_resume = "adapt" to continue with the change, or restart the '
            "mixture (--checkpoint.exclude_from_loading mixture,dataloader)"
        )
    words = _name_changes(before["groups"], now["groups"])
    if any(names["targets"] != names["groups"] for names in (before, now)) and "targets" in changed:
        words.append(
            "; ".join(_name_changes(before["targets"], now["targets"], "targets "))
            or "another order of targets"
        )
    if "method" in changed:
        words.append(f"method {before['method']} -> {now['method']}")
    elif "mixture" in changed:
        words.append(f"mixture {before['mixture']} -> {now['mixture']}")
    if "groups" not in changed:
        words += [f"other {name}" for name in changed if name in ("split", "stores", "limits")]
        words += ["other held-out sets"] if RESTARTING.intersection(changed) == {"held_out"} else []
    reason = "resumed with changes: " + "; ".join(words or ["another order of groups"])
    return Adaptation(reason, restarts_method=not RESTARTING.isdisjoint(changed))


def _difference(name: str, before: Any, now: Any, identity: Identity, saved: Mapping[str, np.ndarray]) -> str:
    """How a field of the identity differs, in words; stores by the groups that they belong to."""
    if name == "held_out":
        return "other held-out sets"
    if name == "stores" and len(found := saved.get("group_stores", ())) == len(identity.group_stores) > 0:
        pairs = zip(identity.groups, found, identity.group_stores, strict=True)
        return f"other stores of {', '.join(group for group, was, is_now in pairs if was != is_now)}"
    return f"{name} {before}, this run has {now}"


def _refuse_other_rows(identity: Identity, saved: Mapping[str, np.ndarray]) -> None:
    """Raises: ResumeRefused: a field of FIXED differs; checkpoints of older versions do not have them."""
    for name, key in FIXED.items():
        now = getattr(identity, name)
        if name in saved and (before := saved[name].item()) != now:
            raise ResumeRefused(
                f"the checkpoint was written with {key} {before}, this run has {now}: with another one, rows "
                f"stand for other tokens, so that some would be trained twice and others never: set {key} "
                "back, or restart the mixture (--checkpoint.exclude_from_loading mixture,dataloader)"
            )


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse hyperparameters that were changed while what was measured with them still counts.

    Args:
        before, now: as of `settings_in_use` of the saved state, with the saved hyperparameters and these.
    Raises: ResumeRefused: names the first that differs.
    """
    for name, value in before.items():
        if name in now and now[name] != value:
            raise ResumeRefused(
                f"{name} was {value} and is {now[name]}, and the checkpoint holds measurements made with the "
                f"first, which still count: set it to {value} (aioli: or change it at a checkpoint between "
                "two LearnParams)"
            )


def _name_changes(before: list[str], now: list[str], kind: str = "") -> list[str]:
    added, removed = [n for n in now if n not in before], [n for n in before if n not in now]
    words = [f"added {kind}{', '.join(added)}"] if added else []
    return words + ([f"removed {kind}{', '.join(removed)}"] if removed else [])


def read_saved(saved: Mapping[str, np.ndarray], proportions: np.ndarray | None = None) -> Saved:
    """The saved numbers and ledger, checked.

    Args:
        saved: the controller's arrays.
        proportions: [G], of the saved phase. None: not known, because another method or other groups follow.
    Raises: ResumeRefused: a value is not possible.
    """
    try:
        arrays = {name: saved[f"ledger.{name}"] for name in LedgerEntry._fields}
        shares = arrays["proportions"][-1] if proportions is None else proportions
        _check_simplex(np.vstack([*arrays["proportions"], shares]))
        counts = [int(saved[name]) for name in COUNTS]
        if min(counts) < 0:
            raise ValueError(f"a count is negative: {counts}")
        used_up = saved["used_up"].astype(bool).reshape(len(shares))
        begun_with = dict(json.loads(saved["begun_with"].item())) if "begun_with" in saved else {}
        return Saved(Ledger.from_arrays(arrays), used_up, begun_with, *counts)
    except (ValueError, TypeError, IndexError, AssertionError) as error:
        raise ResumeRefused(f"the saved mixture state is damaged: {error}") from None


def _check_simplex(proportions: np.ndarray) -> None:
    """Refuse rows [N, G] if one is not on the simplex."""
    is_right = (proportions >= 0).all(axis=1) & (abs(proportions.sum(axis=1) - 1) < 1e-6)
    if not is_right.all():
        wrong = proportions[np.flatnonzero(~is_right)[0]].tolist()
        raise ValueError(f"the proportions {wrong} are not shares that sum to 1")
