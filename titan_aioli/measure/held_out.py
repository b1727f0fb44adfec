"""The held-out sequences of a run: those that the method sees, those of the log, and the test.

A method may evaluate dozens of times per round, so it sees only as many sequences as
`mixing.evaluation.budget` pays for: a prefix of the full set that the log and the results use. If the budget
covers the full set, both are one and are measured once.
"""

from collections.abc import Callable, Sequence

import numpy as np

from titan_aioli.data.group import Group
from titan_aioli.measure.evaluate import GroupEvaluator
from titan_aioli.measure.host import Host


class HeldOut:
    """Measures the groups' losses on fixed held-out sequences; each set at most once per step."""

    def __init__(
        self,
        host: Host,
        validation: Sequence[Group],
        test: Sequence[Group],
        num_sequences: int,
        num_seen: int,
        on_validation: Callable[[int, np.ndarray], None],
    ):
        """Args:
        host: whose model is measured.
        validation, test: the held-out data of every group; `test` may be empty.
        num_sequences: of every group, for the log and the results.
        num_seen: of every group, for the method; at most `num_sequences`.
        on_validation: called with (step, losses [G]) once per evaluation on all validation sequences.
        """
        self.groups = validation
        self._validation = GroupEvaluator(host, validation, num_sequences)
        self._sample = self._validation
        if num_seen < num_sequences:
            self._sample = GroupEvaluator(host, validation, num_seen)
        self._test = GroupEvaluator(host, test, num_sequences) if test else None
        self._on_validation = on_validation
        self._measured: dict[GroupEvaluator, tuple[int, np.ndarray]] = {}

    def validation(self, step: int) -> np.ndarray:
        """[G], mean nats per token after `step` steps, on all validation sequences of the config."""
        return self._measure(self._validation, step)

    def sample(self, step: int) -> np.ndarray:
        """[G], mean nats per token after `step` steps, on the sequences that the method sees."""
        return self._measure(self._sample, step)

    def test(self, step: int) -> np.ndarray | None:
        """[G], mean nats per token after `step` steps, on the test sequences; None where there are none."""
        return None if self._test is None else self._measure(self._test, step)

    def _measure(self, evaluator: GroupEvaluator, step: int) -> np.ndarray:
        if evaluator not in self._measured or self._measured[evaluator][0] != step:
            losses = evaluator.evaluate()
            self._measured[evaluator] = step, losses
            if evaluator is self._validation:
                self._on_validation(step, losses)
        return self._measured[evaluator][1]
