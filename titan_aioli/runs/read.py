"""A run's dump folder, read back; and what a resume that changed the run keeps of the past.

Where a resume changed groups, stores, limits or method, the ledger starts again: the folder then holds
several sections, and the mixture.json of each (see runs/log.py and control/ledger_file.py for the files).
"""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from titan_aioli.control.ledger_file import read_ledger_file
from titan_aioli.data.streams import WeightedStores
from titan_aioli.errors import UserError
from titan_aioli.files import read_json, read_object, write_json
from titan_aioli.methods import METHODS
from titan_aioli.methods.checks import require_choice
from titan_aioli.methods.objective import Unit
from titan_aioli.methods.protocol import shape_observed
from titan_aioli.runs.recorded import RECORD, RESULTS, Recorded
from titan_aioli.runs.run import Run
from titan_aioli.values import fits

WHAT = "what a run writes"
MIXTURE_TYPES = {
    "hyperparameters": dict[str, Any],
    "guards": dict[str, Any] | None,
    "seed": int,
    "batch_size": int,
    "seq_len": int,
    "num_sequences": list[int],
    "weighted_stores": dict[str, dict[str, list[float]]],
    "stores": dict[str, list[str]],
    "fingerprints": dict[str, list[str]],
    "started_in": str,
    "train_share": float,
    "dtypes": dict[str, str],
    "splits": dict[str, list[float] | None],
    "end_of_document": dict[str, int],
    "targets": list[str],
    "objective": dict[str, Any],
}
"""Types of what mixture.json holds besides the method and the groups; keys may be missing."""
SIZES = ("batch_size", "seq_len")
"""Keys of mixture.json whose values are at least 1."""


def read_run(folder: Path) -> Run:
    """Read a run's dump folder; where a resume changed groups, stores, limits or method, its last section.

    Raises: UserError: a file is missing or is not what the run writes.
    """
    return read_sections(folder)[-1]


def read_sections(folder: Path) -> list[Run]:
    """A run's sections between the resumes that changed what it is of, in order; one if none did.

    A section whose mixture.json was not kept (older versions overwrote it) is left out, and those before it.

    Raises: UserError: a file is missing or is not what the run writes.
    """
    for name in ("mixture.json", "ledger.jsonl"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not the dump folder of a mixing run: it has no {name}")
    mixture, results = read_mixture(folder / "mixture.json"), folder / "results.json"
    ledger, is_over = folder / "ledger.jsonl", results.is_file()
    records = read_ledger_file(ledger, may_be_cut=not is_over)
    if not records:
        raise UserError(f"{ledger} is empty: the run has not begun; try again when it trains")
    last = Run(
        name=folder.name,
        folder=folder,
        mixture=mixture,
        records=[Recorded(record, f"{ledger}, line {n}") for n, record in enumerate(records, 1)],
        losses=_read_losses(folder / "losses.jsonl"),
        results=Recorded(read_object(results, WHAT, {"step": int}), str(results)) if is_over else None,
    )
    sections = _cut_into_sections(last)
    for section in sections:
        _check_section(section)
    if last.results is not None:
        last.results.require_all(RESULTS, G=len(last.groups), K=len(last.target_names))
    return sections


def read_mixture(path: Path) -> Recorded:
    """The content of a mixture.json.

    Raises: UserError: it is not what a run writes.
    """
    content = read_object(path, WHAT, {"method": str, "groups": list[str]}, MIXTURE_TYPES)
    mixture = Recorded(content, str(path))
    if (fault := _fault(mixture)) is not None:
        raise mixture.fault(fault)
    return mixture


def _fault(mixture: dict[str, Any]) -> str | None:
    """What is wrong with the numbers of a mixture.json; None if they are what a run writes."""
    groups = mixture["groups"]
    numbers, stores = mixture.get("num_sequences", [1] * len(groups)), mixture.get("stores", groups)
    if not groups or len(numbers) != len(groups) or set(stores) != set(groups):
        return f"its groups {groups} are not those of num_sequences and stores"
    for key, least in (("num_sequences", min(numbers)), *((key, mixture.get(key, 1)) for key in SIZES)):
        if least < 1:
            return f"{key} is {mixture[key]}: at least 1"
    for name, stores in mixture.get("weighted_stores", {}).items():
        sizes, weights = (stores.get(field, []) for field in WeightedStores._fields)
        if name not in groups or not sizes or len(sizes) != len(weights) or min(*sizes, *weights) <= 0:
            return f"weighted_stores of {name!r} are {stores}: positive sizes and weights of a group's stores"
    return None


def _check_section(run: Run) -> None:
    """Check what a section's ledger and mixture.json say of its groups and targets.

    Raises: UserError: names the file, the line and the key.
    """
    num_groups, num_targets = len(run.groups), len(run.target_names)
    method = METHODS.get(run.mixture["method"])
    try:
        run.objective.check(num_targets)
        require_choice("objective.unit", run.unit, get_args(Unit))
    except ValueError as error:
        raise run.mixture.fault(str(error)) from None
    for record in run.records:
        record.require_all(RECORD, G=num_groups, K=num_targets)
        if method is not None and method.observes != "nothing" and record.get("observation") is not None:
            record.require("observation", shape_observed(method, num_groups, num_targets))


def _read_losses(path: Path) -> list[dict[str, Any]]:
    """The evaluations of a losses.jsonl; [] where it is not there.

    A last line that is not whole is left out: a killed run or a full disk leaves it.

    Raises: UserError: names another line that is not what a run writes.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    losses = []
    for number, line in enumerate(lines, start=1):
        try:
            losses.append(json.loads(line.decode()))
            if not isinstance(losses[-1], dict) or not isinstance(losses[-1].get("step"), int):
                raise ValueError("it must be an object with a step")
            for key in ("validation_loss", "target_loss"):
                if not fits(losses[-1].get(key, []), list[float]):
                    raise ValueError(f"{key} is {losses[-1][key]!r}: it must be a list of numbers")
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not JSON ({error})") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not what a run writes ({error})") from None
    return losses


def _cut_into_sections(run: Run) -> list[Run]:
    """A record of a resume with a change gives the rows drawn of each group: a section begins with it."""
    records = run.records
    starts = [0, *(index for index, record in enumerate(records) if "drawn" in record and index)]
    sections = [run._replace(records=records[starts[-1] :])]
    for start, end in reversed(list(pairwise(starts))):
        end_step = records[end]["step"]
        path = run.folder / replaced_name(end_step)
        if not path.is_file():
            break
        mixture = read_mixture(path)
        sections.append(run._replace(records=records[start:end], mixture=mixture, end_step=end_step))
    return sections[::-1]


def replaced_name(step: int) -> str:
    """Name of the mixture.json that held up to a step at which a resume changed what the run is of."""
    return f"mixture.before-step-{step}.json"


def keep_replaced(folder: Path, step: int, begins_section: bool) -> None:
    """Keep mixture.json before it is replaced by that of another section.

    Args:
        folder: of the run.
        step: steps done; what was kept of later ones is of a past that is trained again.
        begins_section: whether the ledger starts again at this step. Where it did so before, in a run that
            was killed, what was kept then stays.
    """
    for path in folder.glob(replaced_name(0).replace("0", "*")):
        if int(re.findall(r"\d+", path.name)[-1]) > step:
            path.unlink()
    path, kept = folder / "mixture.json", folder / replaced_name(step)
    if begins_section and step > 0 and path.is_file() and not kept.is_file():
        write_json(kept, read_json(path, WHAT))
