"""Training on a plan and its neighbors in the setting of the sweep: is the law as good as it says?

The runs lie in OUTPUT-verify/, a sweep of its own: killed and started again, it continues.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from titan_aioli.commands.plan.tables import Verified
from titan_aioli.commands.sweep.direct import locked, train_all
from titan_aioli.commands.sweep.mixtures import Sweep, keep_plan
from titan_aioli.commands.sweep.run import TRAIN, SweepRun
from titan_aioli.errors import UserError
from titan_aioli.files import read_object, read_toml
from titan_aioli.laws.plan import Plan, Planned
from titan_aioli.laws.table import RunTable

Array = np.ndarray
SAME_MIXTURE = 2e-3
"""Largest difference of a share below which two mixtures are not both trained on."""
SPLITS = ("validation", "test")


class Trained(TypedDict):
    """A run in sweep.json."""

    name: str
    proportions: list[float]


SWEEP_TYPES = {"runs": list[Trained], "nproc_per_node": int, "flags": list[str]}
"""Types of what sweep.json holds at least."""


class TableSweep(NamedTuple):
    """The sweep that made a table."""

    runs: Path
    """The table."""
    plan: dict[str, Any]
    """Content of sweep.json."""
    base: Path
    """Config of one of its runs."""
    split: str
    """Whose final losses the table holds."""


def sweep_of(runs: Path, table: RunTable) -> TableSweep:
    """The sweep in whose folder a table lies.

    Args:
        runs: the table.
        table: its content.
    Raises: UserError: the table is not beside its sweep, or not of it.
    """
    path = _sweep_file(runs)
    sweep = read_object(path, "the plan of a sweep", SWEEP_TYPES, {"module": str})
    if not all(run["proportions"] for run in sweep["runs"] or [{"proportions": []}]):
        raise UserError(f"{path} is not the plan of a sweep: it has no runs, or one without proportions")
    split = _split_of(runs.parent / sweep["runs"][0]["name"], table)
    return TableSweep(runs, sweep, _base_config(runs, sweep), split)


def verify_plan(sweep: TableSweep, planned: Planned, groups: list[str], output: Path) -> list[Verified]:
    """Train on the plan and its neighbors, and compare with the law; the plan is first.

    Args:
        sweep: that made the table of the plan.
        planned: the plan, by a law.
        groups: their names, in the order of the proportions.
        output: file of the plan.
    Raises: UserError: a run failed.
    """
    made, law = planned.plan, planned.law
    assert law is not None, "a law is compared with runs"
    folder = output.with_name(f"{output.stem}-verify")
    trained = [SweepRun(folder / name, p.tolist()) for name, p in mixtures_to_verify(made)]
    module, ranks = sweep.plan.get("module", TRAIN), sweep.plan["nproc_per_node"]
    verifying = Sweep(folder, groups, trained, 0, ranks, sweep.plan["flags"], module)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as lock:
        keep_plan(verifying, sweep.base, {"verifies": str(sweep.runs)})
        for run in trained:
            run.write_config(read_toml(sweep.base), groups)
        failures = train_all(verifying, lock)
    if failures:
        raise UserError(f"{'; '.join(failures)}: the same command tries again")
    return [_verified(run, made, law.predict(np.array(run.proportions)), sweep.split) for run in trained]


def mixtures_to_verify(made: Plan) -> Iterator[tuple[str, Array]]:
    """Name and proportions [G] of the plan, and of what other pulls to the anchor propose instead."""
    seen = [made.proportions]
    yield "plan", made.proportions
    for strength, _, p, _ in zip(*made.frontier, strict=True) if made.frontier else ():
        if min(np.abs(p - other).max() for other in seen) > SAME_MIXTURE:
            seen.append(p)
            yield f"strength-{strength:g}", p


def _verified(run: SweepRun, made: Plan, predicted: Array, split: str) -> Verified:
    measured, weights = run.losses(split), made.settings["weights"]
    means = [float(np.average(losses, weights=weights)) for losses in (predicted, measured)]
    return Verified(run.name, np.array(run.proportions), predicted, measured, means[0], means[1])


def _sweep_file(runs: Path) -> Path:
    path = runs.parent / "sweep.json"
    if not path.is_file():
        raise UserError(f"--verify trains as the sweep did that made the table: there is no {path}")
    return path


def _base_config(runs: Path, sweep: dict) -> Path:
    """The config of a run of the sweep, on several groups: one on a group alone also measures its start."""
    mixed = [run["name"] for run in sweep["runs"] if max(run["proportions"]) < 1] or [
        run["name"] for run in sweep["runs"]
    ]
    return runs.parent / mixed[0] / "config.toml"


def _split_of(first: Path, table: RunTable) -> str:
    """Which final losses the table holds, by those of a run of the sweep.

    Raises: UserError: neither.
    """
    for split in SPLITS:
        try:
            losses = SweepRun(first, []).losses(split)
        except UserError:
            continue
        if losses.shape == table.losses.shape[1:] and (table.losses == losses).all(axis=1).any():
            return split
    raise UserError(
        f"--verify: no line of the table has the final losses of {first}: give the sweep's runs.csv"
    )
