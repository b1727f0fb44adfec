"""The rule that every method keeps: what is not finite never reaches the proportions.

Where an observation cannot be used, the method moves to its next phase with the proportions it had, and its
state remembers which groups were to blame, so that the log names them.
"""

import numpy as np


def unusable(observation: np.ndarray, nan_is_absent: bool = False) -> np.ndarray:
    """[G] bool: groups whose row of the observation holds a number that cannot be used.

    Args:
        observation: [G] or [G, ...].
        nan_is_absent: nan says that the group had no token, which is no fault.
    """
    bad = np.isinf(observation) if nan_is_absent else ~np.isfinite(observation)
    return np.asarray(bad.reshape(len(observation), -1).any(axis=1))


def skipped_note(bad: np.ndarray) -> str:
    """The sentence for the log after an update was skipped.

    Args:
        bad: [G] bool, from `unusable`. None set: the observation was finite but the arithmetic overflowed.
    """
    groups = ", ".join(str(group) for group in np.flatnonzero(bad))
    if groups:
        return f"the proportions stay as they are: what was observed is not finite for groups {groups}"
    return "the proportions stay as they are: what was observed is too large to compute with"
