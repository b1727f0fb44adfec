"""The rule that every method keeps: what is not finite never reaches the proportions.

Where an observation cannot be used, the method moves to its next phase with the proportions it had, and its
state remembers which groups were at fault, so that the log says why.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

OBSERVED = {
    "validation": "held-out loss",
    "train": "training loss",
    "excess": "excess loss",
    "gradients": "gradient",
    "alignment": "gradient",
}
"""What is measured of every group, in words."""

STAY = "the proportions stay as they are"
"""How the note of an update begins that was skipped."""


def unusable(observation: np.ndarray, nan_is_absent: bool = False) -> np.ndarray:
    """[G] bool: groups whose row of the observation holds a number that cannot be used.

    Args:
        observation: [G] or [G, ...].
        nan_is_absent: whether nan means that the group had no token, which is not a fault.
    """
    bad = np.isinf(observation) if nan_is_absent else ~np.isfinite(observation)
    return np.asarray(bad.reshape(len(observation), -1).any(axis=1))


def blamed(observes: str, observation: np.ndarray) -> np.ndarray:
    """[G] bool: groups whose values make the observation unusable; a group without tokens is not at fault.

    Args:
        observes: one of OBSERVES.
        observation: of that kind (protocol.py).
    """
    if observes == "gradients":
        return np.where(absent(observes, observation), unusable(observation[:, 2]), unusable(observation))
    return unusable(observation, nan_is_absent=observes in ("train", "excess"))


def absent(observes: str, observation: np.ndarray) -> np.ndarray:
    """[G] bool: groups that had no token in the phase; never one where held-out losses are observed."""
    if observes == "gradients":
        return np.asarray(np.isnan(observation[:, :2]).all(axis=1))
    knows_absence = observes in ("train", "excess")
    return np.asarray(np.isnan(observation) & knows_absence)


def describe_faults(
    observes: str,
    observation: np.ndarray | None,
    names: Sequence[str],
    kind: str = "group",
    among: np.ndarray | None = None,
) -> str:
    """Which groups (or targets) are blamed, and for what, in words; empty where nothing is at fault.

    Args:
        observes: one of OBSERVES.
        observation: of that kind (protocol.py).
        names: of what has a row in it.
        kind: what they are names of.
        among: [G] bool (or [K]), those that are looked at. None: all.
    """
    if observation is None:
        return ""
    is_blamed = blamed(observes, observation) & (True if among is None else among)
    bad = [name for name, is_bad in zip(names, is_blamed, strict=True) if is_bad]
    return " and ".join(f"the {OBSERVED[observes]} of {kind} {name!r} is not finite" for name in bad)


def describe_absent(observes: str, observation: np.ndarray | None, names: Sequence[str]) -> list[str]:
    """One sentence for the log on groups without a token in the phase; none where there are none."""
    if observation is None:
        return []
    missing = absent(observes, observation)
    groups = ", ".join(repr(name) for name, is_missing in zip(names, missing, strict=True) if is_missing)
    return [f"no token in this phase, so nothing is learned about: {groups}"] if groups else []


def skipped_update(state: Any, bad: np.ndarray) -> Any:
    """The state of DoReMi or DoGE after an update that leaves the weights as they were, and counts them.

    Args:
        bad: [G] bool, the groups that were at fault.
    """
    t = state.round + 1
    average = state.average + (state.proportions - state.average) / t
    return state._replace(round=t, average=average, skipped=bad)


def report_skipped(skipped: np.ndarray) -> dict[str, str]:
    """The note of a method's `report` on the groups [G] bool whose observation was skipped; {} for none."""
    return {"note": skipped_note(skipped)} if skipped.any() else {}


def skipped_note(bad: np.ndarray) -> str:
    """The sentence for the log after an update was skipped; the controller adds the names of those at fault.

    Args:
        bad: [G] (or [K]) bool, from `unusable`. None set: the observation was finite but the arithmetic
            overflowed.
    """
    return f"{STAY}: what was observed is {'not finite' if bad.any() else 'too large to compute with'}"
