"""What one run left behind: what was asked for, decided and measured, and what follows from it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.schedule import Position, Schedule
from titan_aioli.data.streams import WeightedStores
from titan_aioli.methods.faults import STAY
from titan_aioli.methods.objective import Objective, to_objective
from titan_aioli.runs.recorded import Recorded

UNUSABLE = "what was observed is of no use (see the ledger)"


class Check(NamedTuple):
    """How well the mixing law that a round was trained on predicted what it did, nats per token."""

    predicted: np.ndarray
    """[K], loss drops of the targets over the round's training."""
    measured: np.ndarray
    """[K]."""


class Estimate(NamedTuple):
    """What one LearnParams found, in the unit of the update of the proportions."""

    round: int
    column_sums: np.ndarray
    """[G], of the normalised mixing matrix A: how much each group is to gain."""
    stderr: np.ndarray
    """[G], of the column sums; nan where it is not known."""


class Run(NamedTuple):
    """What a run left behind; see runs/log.py and control/ledger_file.py for the files."""

    name: str
    folder: Path
    mixture: Recorded
    """mixture.json: method, groups, hyperparameters, sizes."""
    records: list[Recorded]
    """ledger.jsonl; where a resume changed groups, stores, limits or method, those between two changes."""
    losses: list[dict[str, Any]]
    """losses.jsonl: every evaluation on the held-out sequences."""
    results: Recorded | None
    """results.json; None while the run is not finished."""
    end_step: int | None = None
    """Step at which the next section begins; None for the last one."""

    @property
    def groups(self) -> list[str]:
        return self.mixture["groups"]

    @property
    def targets(self) -> list[str] | None:
        """Names of what the mixture is for; None: the groups."""
        return self.mixture.get("targets")

    @property
    def target_names(self) -> list[str]:
        """Names of what a method's held-out losses are of: the targets, or the groups."""
        return self.targets or self.groups

    @property
    def objective(self) -> Objective:
        """What each target counts."""
        return to_objective({k: v for k, v in self.mixture.get("objective", {}).items() if k != "unit"})

    @property
    def unit(self) -> str:
        """Unit of the objective."""
        return self.mixture.get("objective", {}).get("unit", "nats")

    @property
    def last_step(self) -> int:
        """Steps trained, as far as the files know."""
        if self.end_step is not None:
            return self.end_step
        steps = [record["step"] for record in (*self.records, *self.losses)]
        return max([*steps, self.results["step"] if self.results else 0])

    def ledger(self) -> Ledger:
        fields = LedgerEntry._fields
        return Ledger([LedgerEntry(*(record[name] for name in fields)) for record in self.records])

    def start(self) -> Position:
        """Where the first record begins: the start of the run, or the last resume with a change."""
        first, none = self.records[0], [0] * len(self.groups)
        carry = np.array(first.get("carry", none), dtype=np.float64)
        drawn = np.array(first.get("drawn", none), dtype=np.int64)
        return Position(first["step"], first["first_row"], carry, drawn)

    def schedule(self, batch_size: int) -> Schedule:
        """What the rows of steps of `batch_size` rows are planned with."""
        mixture = self.mixture
        weighted = {
            self.groups.index(name): WeightedStores(**stores)
            for name, stores in mixture.get("weighted_stores", {}).items()
        }
        return Schedule(self.groups, mixture["num_sequences"], batch_size, mixture["seed"], weighted)

    def trained_rounds(self) -> list[dict[str, Any]]:
        """The records of the training phases, one per round (also of a prior).

        Of a method that trains around proportions of its own, the `centre` of each record, they are those at
        the start of each round.
        """
        trained = [r for r in self.records if r["step"] < self.last_step]
        if not any("centre" in record for record in trained):
            return [record for record in trained if record["phase"] in ("train", "prior")]
        rounds = {record["round"]: record for record in reversed(trained)}
        return [r | {"proportions": r.get("centre", r["proportions"])} for r in reversed(rounds.values())]

    def judgements(self) -> list[dict[str, Any]]:
        """The records that say how probable it is that something can be won, and how much has been."""
        return [record for record in self.records if "probability" in record]

    def best_mixtures(self) -> list[dict[str, Any]]:
        """The records that say which mixture gradients take for the best, and how far it is followed."""
        return [record for record in self.records if "trust" in record]

    def updates_not_taken(self) -> dict[str, list[int]]:
        """Steps of the updates after which the proportions stayed as they were, or at the anchor, by reason.

        That of one whose observation was of no use stands in its note.
        """
        steps: dict[str, list[int]] = {}
        for record in self.records:
            reason = UNUSABLE if STAY in record.get("note", "") else record.get("stays")
            if reason is not None:
                steps.setdefault(reason, []).append(record["step"])
        return steps

    def checks(self) -> dict[int, Check]:
        """By round, whether its law held; {} for a method that predicts nothing."""
        drops = [record for record in self.records if "predicted_drop" in record]
        return {
            record["round"] - 1: Check(np.array(record["predicted_drop"]), np.array(record["measured_drop"]))
            for record in drops
        }

    def estimates(self) -> list[Estimate]:
        """What each LearnParams said of the groups, and how sure that is; [] for a method without one."""
        return [
            Estimate(
                record["round"],
                np.sum(np.array(record["normalized_A"], dtype=np.float64), axis=0),
                np.array(record["stderr"], dtype=np.float64),
            )
            for record in self.records
            if "stderr" in record
        ]

    def last_matrix(self) -> np.ndarray | None:
        """The normalised mixing matrix A of the last round, [K, G]; None for a method without one."""
        for record in reversed(self.records):
            if "normalized_A" in record:
                return np.array(record["normalized_A"], dtype=np.float64)
        return None
