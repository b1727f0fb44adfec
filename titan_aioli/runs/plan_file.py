"""plan.json: a mixture to train on, and where it comes from.

`titan-aioli plan` writes one from a table of runs, and every finished run leaves one with the mixture it
found; method `static` trains on it, and Aioli can take it as its prior.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from titan_aioli.files import read_object, write_json
from titan_aioli.proportions import normalize


def write_plan(path: Path, *, law: str, groups: Sequence[str], proportions: np.ndarray, **why: Any) -> None:
    """Write a plan as JSON, whole or not at all.

    Args:
        path: the file to make or replace.
        law: what the proportions were decided by: a mixing law, or the method of the run that found them.
        groups: [G], names.
        proportions: [G], on the simplex.
        why: more of how they were decided, for people; nan becomes null.
    """
    content = {"law": law, "groups": groups, "proportions": proportions, **why}
    write_json(path, content, nan_as_null=True)


def read_plan(path: Path, groups: Sequence[str]) -> np.ndarray:
    """The proportions of a plan in the order of a run's groups, [G].

    Raises: ValueError: the file is no plan, or it was made for other groups.
    """
    what = "a plan made by `titan-aioli plan`"
    content = read_object(path, what, {"groups": list[str], "proportions": list[float]})
    names, values = content["groups"], content["proportions"]
    if len(names) != len(values):
        raise ValueError(f"{path} is not {what}: {len(names)} groups and {len(values)} proportions")
    shares = dict(zip(names, values, strict=True))
    if set(shares) != set(groups):
        raise ValueError(f"{path} is a plan for the groups {sorted(shares)}, this run has {sorted(groups)}")
    proportions = np.array([shares[name] for name in groups])
    normalize(proportions, f"{path}: proportions")  # refuses what is no mixture
    return proportions
