"""The one owner of the proportions: runs a method phase by phase and writes the ledger.

Training asks it what to train on, counts its steps here, and when a phase is over hands in what was observed.
The controller knows no torch and no torchtitan. Every rank has one and gives it the same numbers, so all
hold the same state; `digest` is what they compare.
"""

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.control.ledger_file import LedgerFile
from titan_aioli.control.resume import Adaptation, Identity, check_settings, compare, read_saved
from titan_aioli.control.state import Arrays, from_arrays, pack, to_arrays, unpack
from titan_aioli.errors import UserError
from titan_aioli.files import to_plain
from titan_aioli.methods import UNTIL_END, MixingMethod, Phase
from titan_aioli.methods.faults import describe_absent, describe_faults
from titan_aioli.methods.protocol import only_watched, settings_in_use
from titan_aioli.proportions import without


class MixtureController:
    """Steps through a method's phases; its state is the method's state, the ledger and a step count."""

    def __init__(
        self,
        method: MixingMethod,
        identity: Identity,
        batch_size: int,
        ledger: Ledger,
        ledger_file: LedgerFile,
        adapt: bool = False,
    ):
        """Args:
        method: decides the proportions.
        identity: what this run has in common with the checkpoints that it may resume from.
        batch_size: B, rows of one step.
        ledger: empty; shared with the loader, which only reads it.
        ledger_file: where the decisions are written for people and reports.
        adapt: continue also from a checkpoint of another identity.
        """
        self.method = method
        self.identity = identity
        self.group_names = list(identity.groups)
        self.batch_size = batch_size
        self.ledger = ledger
        self.ledger_file = ledger_file
        self.adapt = adapt
        self.step = self.first_row = 0
        self.used_up = np.zeros(len(self.group_names), dtype=bool)
        """[G], groups that nothing more is drawn from: they have been repeated as often as allowed."""
        self._adaptation: Adaptation | None = None
        self._continues_method = False
        self._begun_with: dict[str, Any] = {}
        """What the ledger's first record says besides its entry."""
        self._phase_start = 0
        self._ended_at = -1
        """The step at which the run ended before its last; -1 if it did not."""
        self.skipped_updates = 0
        """Number of consecutive observations, the last included, that could not be used."""
        self._last_fault = ""
        self._set_state(method.init(len(self.group_names), len(identity.target_names)))

    @property
    def proportions(self) -> np.ndarray:
        """[G], what the current phase draws from: the method's, without the groups that are used up."""
        return without(self.phase.proportions, self.used_up)

    @property
    def round(self) -> int:
        return self.state.round

    @property
    def phase_end(self) -> int:
        """The step at which the current phase is over (not included)."""
        return min(self._phase_start + self.phase.num_steps, UNTIL_END)

    @property
    def phase_is_over(self) -> bool:
        """Whether the phase needs its observation: `finish_phase` must come before the next step."""
        return self.step >= self.phase_end

    def begin(
        self,
        step: int = 0,
        first_row: int | None = None,
        drawn: np.ndarray | None = None,
        carry: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Write the first entry of the ledger; `step` is above 0 if mixing joins a run in the middle.

        Args:
            step: optimizer steps finished.
            first_row: rows trained before. None: those of `step` steps of this batch size.
            drawn, carry: [G], of the loader's position; recorded where rows were drawn before, since later
                rows follow from them.
        """
        assert len(self.ledger) == 0, "the ledger has entries already"
        self.step, self.first_row = step, step * self.batch_size if first_row is None else first_row
        if not self._continues_method:
            self._join(step)
        report: dict[str, Any] = {} if self._adaptation is None else {"reason": self._adaptation.reason}
        if report or (drawn is not None and drawn.any()):
            report |= {"groups": self.group_names, "drawn": drawn, "carry": carry}
        self._begun_with = report
        return self._append(None, report)

    def _join(self, step: int) -> None:
        """Begin the method's first phase here, or that of this step where it follows a fixed schedule."""
        self._phase_start = step
        if self.method.observes != "nothing":
            return
        self._phase_start = 0
        while self.phase_end <= step:
            self._phase_start = self.phase_end
            self._set_state(self.method.update(self.state, None))

    def count_step(self) -> None:
        """Count one optimizer step of the current phase."""
        assert not self.phase_is_over, f"phase {self.phase.name} was over at step {self.step}"
        self.step += 1
        self.first_row += self.batch_size

    def redistribute(self, groups: np.ndarray) -> dict[str, Any]:
        """Draw nothing more from these groups: from the next step on the others divide their share."""
        self.used_up = self.used_up.copy()
        self.used_up[groups] = True
        names = ", ".join(self.group_names[group] for group in groups)
        return self._append(None, {"reason": f"used up: {names}"})

    def end(self, reason: str) -> None:
        """The run ends here, before its last step: a last record that says why, once."""
        if self._ended_at != self.step:
            self._ended_at = self.step
            self._append(None, {"reason": reason})

    def finish_phase(self, observation: np.ndarray | None) -> dict[str, Any]:
        """Update the method with what was observed in the phase, and start the next one.

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
        """Stop a run whose mixture is no longer updated.

        Raises: UserError: at least that many consecutive updates were skipped.
        """
        if self.skipped_updates >= max_skipped_updates:
            raise UserError(
                f"step {self.step}: {self.skipped_updates} updates of the mixture in a row were skipped, the "
                f"last because {self._last_fault} (mixing.max_skipped_updates is {max_skipped_updates}): the "
                "model has diverged or the evaluation fails: go back to an earlier checkpoint with a lower "
                "optimizer.lr, look at the group's data, or allow more"
            )

    def digest(self) -> str:
        """Hash of identity, proportions, the method's state and the ledger: equal on all healthy ranks."""
        hasher = hashlib.sha256(f"{self.ledger.digest()} {self._identity}".encode())
        counts = (self.step, self.first_row, self._phase_start, self.skipped_updates)
        for value in (*counts, self.used_up, *self.state, self.proportions):
            hasher.update(np.asarray(value).tobytes())
        return hasher.hexdigest()

    def held(self) -> dict[str, str]:
        """What the digest hashes, by name, each value as text: to find where two ranks differ."""
        values: dict[str, Any] = {**self._identity, "proportions": self.proportions, "step": self.step}
        values.update(phase_start=self._phase_start, first_row=self.first_row, used_up=self.used_up)
        values.update(skipped_updates=self.skipped_updates)
        values.update(to_arrays(self.state, "method state"))
        for index, entry in enumerate(self.ledger):
            values[f"ledger entry {index}"] = [entry.step, entry.phase, entry.proportions]
        return {name: repr(to_plain(value)) for name, value in values.items()}

    @cached_property
    def _identity(self) -> dict[str, str]:
        """What this rank was asked for and reads, by name, in words."""
        asked = self.identity._asdict()
        del asked["stores"], asked["group_stores"]
        held_out = {"held-out sets": asked.pop("held_out")}
        stores = zip(self.group_names, self.identity.group_stores, strict=False)
        named = asked | {f"stores of group {group}": found for group, found in stores} | held_out
        return {name: str(value) for name, value in named.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue, equal on all ranks, as one leaf of bytes."""
        self.ledger_file.sync()
        return {
            "controller": pack(
                {
                    "method": self.identity.method,
                    "groups": np.array(self.group_names, dtype=np.str_),
                    "targets": np.array(self.identity.target_names, dtype=np.str_),
                    "batch_size": self.batch_size,
                    "stores": self.identity.stores,
                    "limits": self.identity.limits,
                    "seed": self.identity.seed,
                    "seq_len": self.identity.seq_len,
                    **({"split": self.identity.split} if self.identity.split else {}),
                    **({"mixture": self.identity.mixture} if self.identity.mixture else {}),
                    **({"held_out": self.identity.held_out} if self.identity.held_out else {}),
                    "group_stores": np.array(self.identity.group_stores, dtype=np.str_),
                    "ended_at": self._ended_at,
                    "settings": json.dumps(settings_in_use(self.method, self.state)),
                    "step": self.step,
                    "first_row": self.first_row,
                    "used_up": self.used_up,
                    "phase_start": self._phase_start,
                    "skipped_updates": self.skipped_updates,
                    "ledger_bytes": self.ledger_file.num_bytes,
                    "begun_with": json.dumps(to_plain(self._begun_with)),
                    **to_arrays(self.state, "method_state"),
                    **{f"ledger.{name}": array for name, array in self.ledger.to_arrays().items()},
                }
            )
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> bool:
        """Continue from where `state_dict` was taken; resume.py lists what may have changed since.

        Returns: whether the method continues; False if it restarts.
        Raises: ResumeRefused: other groups, another method, limits or stores than the saved ones.
        """
        saved = unpack(state_dict["controller"])
        adaptation = compare(self.identity, saved, self.adapt)
        self._continues_method = adaptation is None or not adaptation.restarts_method
        if self._continues_method:
            self._restore(saved, keeps_ledger=adaptation is None)
        else:
            before = read_saved(saved)
            self.ledger_file.rewind(before.ledger_bytes, before.ledger, before.begun_with)
        self._adaptation = adaptation  # `begin` then starts a new ledger with its reason
        return self._continues_method

    def _restore(self, arrays: Arrays, keeps_ledger: bool) -> None:
        """Take over the saved state of the method and the counts and, unless a new one starts, the ledger."""
        state = from_arrays(self.state, arrays, "method_state")
        saved = read_saved(arrays, self.method.phase(state).proportions)
        if "settings" in arrays:
            check_settings(json.loads(arrays["settings"].item()), settings_in_use(self.method, state))
        self._ended_at = int(arrays["ended_at"]) if "ended_at" in arrays else -1
        self._set_state(state)
        self.step, self.first_row = saved.step, saved.first_row
        self._phase_start, self.skipped_updates = saved.phase_start, saved.skipped_updates
        self.ledger_file.rewind(saved.ledger_bytes, saved.ledger, saved.begun_with)
        if keeps_ledger:
            self.ledger.replace(saved.ledger)
            self.used_up, self._begun_with = saved.used_up, saved.begun_with
            if saved.batch_size != self.batch_size:
                self._append(None, {"reason": f"global batch size {saved.batch_size} -> {self.batch_size}"})

    def _set_state(self, state: Any) -> None:
        self.state = state
        self.phase: Phase = self.method.phase(state)

    def _count_skipped(self, observation: np.ndarray | None) -> list[str]:
        """Sentences for the log about groups whose observed value is missing or not finite."""
        names, kind = self._observed()
        watched = only_watched(self.method, len(names))
        faults = describe_faults(self.method.observes, observation, names, kind, among=~watched)
        ignored = describe_faults(self.method.observes, observation, names, kind, among=watched)
        self.skipped_updates = self.skipped_updates + 1 if faults else 0
        self._last_fault = faults
        notes = describe_absent(self.method.observes, observation, names)
        notes += [f"{ignored} (only watched: no update is skipped)"] if ignored else []
        return notes + ([f"update skipped ({self.skipped_updates} in a row): {faults}"] if faults else [])

    def _observed(self) -> tuple[list[str], str]:
        """The names of what is observed, and what they are names of."""
        targets = list(self.identity.target_names)
        if self.method.observes == "validation" and targets != self.group_names:
            return targets, "target"
        return self.group_names, "group"

    def _append(self, observation: np.ndarray | None, report: dict[str, Any]) -> dict[str, Any]:
        entry = LedgerEntry(self.step, self.first_row, self.proportions, self.phase.name, self.round)
        self.ledger.append(entry)
        record = {**entry._asdict(), "observation": observation, **report}
        self.ledger_file.append(record)
        return record
