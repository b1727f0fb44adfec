"""What a resumed run must share with its checkpoint, and how it may differ.

The number of data-parallel ranks and the global batch size may always change: rows keep their numbers. The
groups, their stores and limits, and the method may change with `mixing.on_resume = "adapt"`: the ledger then
begins anew at that step, kept groups (by name) go on with their next row and new ones with their first, and
the method starts anew where it or the groups are others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.errors import ResumeRefused

REMEDIES = {
    "method": "set mixing.method back",
    "groups": "use the groups of the checkpoint",
    "stores": "point the groups at the same token stores, with the same store_weights",
    "limits": "set max_epochs and when_used_up back",
}
"""What must be equal, and how to make it so."""
COUNTS = ("step", "first_row", "phase_start", "skipped_updates", "batch_size", "ledger_bytes")
"""Numbers of the controller's state, in the order that `read_saved` returns them."""


def differences(identity: Mapping[str, Any], saved: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What this run does not share with a checkpoint: sentences by the name of what differs."""
    found = {}
    for name in REMEDIES:
        before, now = saved[name].tolist(), np.asarray(identity[name]).tolist()
        if before != now:
            found[name] = f"the checkpoint was written with {name} {before}, this run has {now}"
    return found


def refuse(found: Mapping[str, str]) -> None:
    """Raises: ResumeRefused: with what differs first and what can be done about it."""
    for name, sentence in found.items():
        raise ResumeRefused(
            f'{sentence}: {REMEDIES[name]}, set mixing.on_resume = "adapt" to go on with the change, or '
            "start the mixture anew (--checkpoint.exclude_from_loading mixture,dataloader)"
        )


def what_changed(
    identity: Mapping[str, Any], saved: Mapping[str, np.ndarray], found: Mapping[str, str]
) -> str:
    """The changes in a few words, for the ledger."""
    words = []
    if "groups" in found:
        before, now = saved["groups"].tolist(), np.asarray(identity["groups"]).tolist()
        added, removed = [n for n in now if n not in before], [n for n in before if n not in now]
        words += [f"added {', '.join(added)}"] if added else []
        words += [f"removed {', '.join(removed)}"] if removed else []
    if "method" in found:
        words.append(f"method {saved['method'].item()} -> {identity['method']}")
    words += [name for name in found if name in ("stores", "limits") and "groups" not in found]
    return "resumed with other " + "; ".join([*([] if words else ["order of groups"]), *words])


def read_saved(
    saved: Mapping[str, np.ndarray], proportions: np.ndarray
) -> tuple[Ledger, list[int], np.ndarray]:
    """The ledger, the counts (`COUNTS`) and the groups that are used up [G bool], checked.

    Args:
        saved: the controller's arrays.
        proportions: [G], of the saved phase.
    Raises: ResumeRefused: a value cannot be.
    """
    try:
        arrays = {name: saved[f"ledger.{name}"] for name in LedgerEntry._fields}
        _check_simplex(np.vstack([*arrays["proportions"], proportions]))
        numbers = [int(saved[name]) for name in COUNTS]
        if min(numbers) < 0:
            raise ValueError(f"a count is negative: {numbers}")
        return Ledger.from_arrays(arrays), numbers, saved["used_up"].astype(bool).reshape(len(proportions))
    except (ValueError, TypeError, IndexError, AssertionError) as error:
        raise ResumeRefused(f"the saved mixture state is damaged: {error}") from None


def _check_simplex(proportions: np.ndarray) -> None:
    """Refuse rows [N, G] of which one is not on the simplex."""
    is_right = (proportions >= 0).all(axis=1) & (abs(proportions.sum(axis=1) - 1) < 1e-6)
    if not is_right.all():
        wrong = proportions[np.flatnonzero(~is_right)[0]].tolist()
        raise ValueError(f"the proportions {wrong} are not shares that sum to 1")
