"""The one owner of the proportions: runs a method phase by phase and writes the ledger.

Training asks it what to train on, counts its steps here, and when a phase is over hands in what was seen.
The controller knows no torch and no torchtitan. Every rank has one and gives it the same numbers, so all
hold the same state; `digest` is what they compare.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from titan_aioli.data.ledger import Ledger, LedgerEntry, LedgerFile
from titan_aioli.errors import ResumeRefused, UserError
from titan_aioli.methods import UNTIL_END, MixingMethod, Phase
from titan_aioli.methods.skipping import describe_absent, describe_faults
from titan_aioli.state import from_arrays, pack, to_arrays, unpack


class MixtureController:
    """Steps through a method's phases; its state is the method's state, the ledger and a step count."""

    def __init__(
        self,
        method: MixingMethod,
        method_name: str,
        group_names: Sequence[str],
        batch_size: int,
        ledger: Ledger,
        ledger_file: LedgerFile,
        stores_fingerprint: str = "",
    ):
        """Args:
        method: decides the proportions.
        method_name: its key in METHODS; a checkpoint of another method is refused.
        group_names: [G], in the order of the proportions.
        batch_size: B, rows of one step.
        ledger: empty; shared with the loader, which only reads it.
        ledger_file: where the decisions are written for people and reports.
        stores_fingerprint: of all training stores; a checkpoint with another is refused.
        """
        self.method = method
        self.method_name = method_name
        self.group_names = list(group_names)
        self.batch_size = batch_size
        self.ledger = ledger
        self.ledger_file = ledger_file
        self.stores_fingerprint = stores_fingerprint
        self.step = 0
        self._phase_start = 0
        self.skipped_updates = 0
        """Observations in a row, up to now, that could not be used."""
        self._last_fault = ""
        self._set_state(method.init(len(self.group_names)))

    @property
    def proportions(self) -> np.ndarray:
        """[G], what the current phase draws from."""
        return self.phase.proportions

    @property
    def round(self) -> int:
        return self.state.round

    @property
    def phase_end(self) -> int:
        """The step at which the current phase is over (not included)."""
        return min(self._phase_start + self.phase.num_steps, UNTIL_END)

    @property
    def phase_is_over(self) -> bool:
        """Whether the phase waits for its observation: `finish_phase` must come before the next step."""
        return self.step >= self.phase_end

    def begin(self, step: int = 0) -> dict[str, Any]:
        """Write the first entry of the ledger; `step` is above 0 where mixing joins a run under way."""
        assert len(self.ledger) == 0, "the ledger has begun already"
        self.step = self._phase_start = step
        return self._append(None, {})

    def count_step(self) -> None:
        """One optimizer step of the current phase has been done."""
        assert not self.phase_is_over, f"phase {self.phase.name} was over at step {self.step}"
        self.step += 1

    def finish_phase(self, observation: np.ndarray | None) -> dict[str, Any]:
        """Update the method with what the phase showed and enter the next phase.

        Args:
            observation: as `method.observes` says; the same on every rank.
        Returns: the ledger record, for the log and the metrics.
        """
        assert self.phase_is_over, f"phase {self.phase.name} ends at step {self.phase_end}"
        self._set_state(self.method.update(self.state, observation))
        self._phase_start = self.step
        report = self.method.report(self.state)
        notes = [*self._count_skipped(observation), *([report["note"]] if "note" in report else [])]
        return self._append(observation, report | ({"note": "; ".join(map(str, notes))} if notes else {}))

    def check_skipped(self, max_skipped_updates: int) -> None:
        """Stop a run that learns nothing any more.

        Raises: UserError: that many updates in a row, or more, had to be skipped.
        """
        if self.skipped_updates >= max_skipped_updates:
            raise UserError(
                f"step {self.step}: {self.skipped_updates} updates of the mixture in a row were skipped, the "
                f"last because {self._last_fault} (mixing.max_skipped_updates is {max_skipped_updates}): the "
                "model has diverged or the evaluation fails: go back to an earlier checkpoint with a lower "
                "optimizer.lr, look at the group's data, or allow more"
            )

    def digest(self) -> str:
        """Hash of the proportions, the method's state and the ledger: equal on all healthy ranks."""
        hasher = hashlib.sha256(self.ledger.digest().encode())
        for value in (self.step, self._phase_start, self.skipped_updates, *self.state, self.proportions):
            hasher.update(np.asarray(value).tobytes())
        return hasher.hexdigest()

    def held(self) -> dict[str, str]:
        """What the digest is made of, by name and in words, to tell where two ranks differ."""
        values: dict[str, Any] = {"proportions": self.proportions, "step": self.step}
        values.update(phase_start=self._phase_start, skipped_updates=self.skipped_updates)
        values.update(to_arrays(self.state, "method state"))
        for index, entry in enumerate(self.ledger):
            values[f"ledger entry {index}"] = [entry.step, entry.phase, entry.proportions]
        return {name: repr(_to_plain(value)) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, equal on all ranks, as one leaf of bytes."""
        self.ledger_file.sync()
        return {
            "controller": pack(
                {
                    **self._identity(),
                    "step": self.step,
                    "phase_start": self._phase_start,
                    "skipped_updates": self.skipped_updates,
                    "ledger_bytes": self.ledger_file.num_bytes,
                    **to_arrays(self.state, "method_state"),
                    **{f"ledger.{name}": array for name, array in self.ledger.to_arrays().items()},
                }
            )
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises: ResumeRefused: other groups, another method, batch size or stores than the saved ones.
        """
        saved = unpack(state_dict["controller"])
        self._check_identity(saved)
        state = from_arrays(self.state, saved, "method_state")
        try:
            arrays = {name: saved[f"ledger.{name}"] for name in LedgerEntry._fields}
            ledger = Ledger.from_arrays(arrays)
            _check_simplex(np.vstack([*arrays["proportions"], self.method.phase(state).proportions]))
            numbers = [
                int(saved[name]) for name in ("step", "phase_start", "skipped_updates", "ledger_bytes")
            ]
            if min(numbers) < 0:
                raise ValueError(f"a count is negative: {numbers}")
        except (ValueError, TypeError, IndexError, AssertionError) as error:
            raise ResumeRefused(f"the saved mixture state is damaged: {error}") from None
        self.ledger.replace(ledger)
        self.step, self._phase_start, self.skipped_updates, ledger_bytes = numbers
        self._set_state(state)
        self.ledger_file.rewind(ledger_bytes, self.ledger)

    def _set_state(self, state: Any) -> None:
        self.state = state
        self.phase: Phase = self.method.phase(state)

    def _count_skipped(self, observation: np.ndarray | None) -> list[str]:
        """Sentences for the log about groups whose part of the observation is missing or not finite."""
        faults = describe_faults(self.method.observes, observation, self.group_names)
        self.skipped_updates = self.skipped_updates + 1 if faults else 0
        self._last_fault = faults
        notes = describe_absent(self.method.observes, observation, self.group_names)
        return notes + ([f"update skipped ({self.skipped_updates} in a row): {faults}"] if faults else [])

    def _append(self, observation: np.ndarray | None, report: dict[str, Any]) -> dict[str, Any]:
        entry = LedgerEntry(
            self.step, self.step * self.batch_size, self.proportions, self.phase.name, self.round
        )
        self.ledger.append(entry)
        record = {**entry._asdict(), "observation": observation, **report}
        self.ledger_file.append(record)
        return record

    def _identity(self) -> dict[str, Any]:
        return {
            "method": self.method_name,
            "groups": np.array(self.group_names, dtype=np.str_),
            "batch_size": self.batch_size,
            "stores": self.stores_fingerprint,
        }

    def _check_identity(self, saved: dict[str, np.ndarray]) -> None:
        remedies = {
            "method": "set mixing.method back, or start the mixture anew",
            "groups": "use the groups of the checkpoint, or start the mixture anew",
            "batch_size": "set training.global_batch_size back",
            "stores": "point the groups at the same token stores, or start the mixture anew",
        }
        for name, value in self._identity().items():
            before, now = saved[name].tolist(), np.asarray(value).tolist()
            if before != now:
                raise ResumeRefused(
                    f"the checkpoint was written with {name} {before}, this run has {now}: {remedies[name]} "
                    "(--checkpoint.exclude_from_loading mixture,dataloader)"
                )


def _check_simplex(proportions: np.ndarray) -> None:
    """Refuse rows [N, G] of which one is not on the simplex."""
    is_right = (proportions >= 0).all(axis=1) & (abs(proportions.sum(axis=1) - 1) < 1e-6)
    if not is_right.all():
        wrong = proportions[np.flatnonzero(~is_right)[0]].tolist()
        raise ValueError(f"the proportions {wrong} are not shares that sum to 1")


def _to_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
