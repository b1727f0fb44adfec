"""The held-out sequences of a run: those that the method sees, those of the log, and the test.

A method may evaluate dozens of times per round, so it sees only as many sequences as
`mixing.evaluation.budget` pays for: a prefix of the full set that the log and the results use. If the budget
covers the full set, both are one and are measured once.
"""

from collections.abc import Callable, Sequence

import numpy as np

from titan_aioli.data.targets import HeldOutSet, Targets
from titan_aioli.measure.evaluate import GroupEvaluator
from titan_aioli.measure.host import Host


class HeldOut:
    """Measures losses on fixed held-out sequences: of the groups, and of the targets where there are others.

    Each set is measured at most once per step.
    """

    def __init__(
        self,
        host: Host,
        validation: Sequence[HeldOutSet],
        test: Sequence[HeldOutSet],
        num_sequences: int,
        num_seen: int,
        on_validation: Callable[..., None],
        targets: Targets | None = None,
    ):
        """Args:
        host: whose model is measured.
        validation, test: the held-out data of every group; each may be empty.
        num_sequences: of every set, for the log and the results.
        num_seen: of every target, for the method; at most `num_sequences`.
        on_validation: called with (step, losses [G]), and with losses [K] as well where there are targets,
            once per evaluation on all validation sequences.
        targets: what the mixture is for. None: the groups.
        """
        self.groups = validation
        self.seen: Sequence[HeldOutSet] = validation if targets is None else targets.validation
        self._num_groups, self._num_tested = len(validation), len(test)
        self._has_targets = targets is not None
        sets, self._of_target = _with_targets(validation, None if targets is None else targets.validation)
        self._host, self._num_sequences = host, num_sequences
        self._validation = GroupEvaluator(host, sets, num_sequences)
        self.see(num_seen)
        test_sets, _ = _with_targets(test, targets.test if targets is not None and test else None)
        self._test = GroupEvaluator(host, test_sets, num_sequences) if test else None
        self._on_validation = on_validation
        self._measured: dict[GroupEvaluator, tuple[int, np.ndarray]] = {}

    def see(self, num_seen: int) -> None:
        """From now on the method sees so many sequences of every target."""
        self.num_seen, self._sample = num_seen, self._validation
        if num_seen != self._num_sequences or self._has_targets:
            self._sample = GroupEvaluator(self._host, self.seen, num_seen)

    def validation(self, step: int) -> np.ndarray | None:
        """[G], mean nats per token after `step` steps, on all validation sequences; None without any."""
        return self._measure(self._validation, step)[: self._num_groups] if self._num_groups else None

    def targets(self, step: int) -> np.ndarray:
        """[K], the same of the targets."""
        return self._measure(self._validation, step)[self._of_target]

    def sample(self, step: int) -> np.ndarray:
        """[K], mean nats per token after `step` steps, on the sequences that the method sees."""
        return self._measure(self._sample, step)

    def test(self, step: int) -> np.ndarray | None:
        """[G], mean nats per token after `step` steps, on the test sequences; None where there are none."""
        return None if self._test is None else self._measure(self._test, step)[: self._num_tested]

    def target_test(self, step: int) -> np.ndarray | None:
        """[K], the same of the targets."""
        return None if self._test is None else self._measure(self._test, step)[self._of_target]

    def target_sequences(self) -> list[np.ndarray]:
        """[K] of [n, 2]: loss sum and tokens of each validation sequence of the targets now. Collective."""
        rows = self._validation.evaluate_sequences()
        return [rows[index] for index in self._of_target]

    def _measure(self, evaluator: GroupEvaluator, step: int) -> np.ndarray:
        if evaluator not in self._measured or self._measured[evaluator][0] != step:
            losses = evaluator.evaluate()
            self._measured[evaluator] = step, losses
            if evaluator is self._validation:
                parts = [losses[: self._num_groups]]
                parts += [losses[self._of_target]] if self._has_targets else []
                self._on_validation(step, *parts)
        return self._measured[evaluator][1]


def _with_targets(
    groups: Sequence[HeldOutSet], targets: Sequence[HeldOutSet] | None
) -> tuple[list[HeldOutSet], list[int]]:
    """The groups' sets followed by those of targets that are no group, and each target's place among them."""
    sets = list(groups)
    if targets is None:
        return sets, list(range(len(sets)))
    sets += [target for target in targets if not any(target is group for group in groups)]
    return sets, [next(i for i, each in enumerate(sets) if each is target) for target in targets]
