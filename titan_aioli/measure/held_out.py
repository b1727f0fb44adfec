"""The held-out sequences of a run: those that the method watches, those of the log, and the test.

A method may evaluate dozens of times a round, so it is shown `mixing.evaluation.budget`'s worth of
sequences, the first of those that the log and the results are measured on. Where the budget allows all of
them, the two are one.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from titan_aioli.config.build import Mixture
from titan_aioli.measure.budget import affordable_sequences
from titan_aioli.measure.evaluate import GroupEvaluator

if TYPE_CHECKING:
    from titan_aioli.train import MixingTrainer


class HeldOut:
    """Measures the groups' losses on fixed held-out sequences; each set at most once a step."""

    def __init__(self, trainer: "MixingTrainer", mixture: Mixture):
        self._trainer = trainer
        evaluation = trainer.mixing.evaluation
        affordable = affordable_sequences(
            evaluation.budget,
            mixture.method,
            len(mixture.train),
            trainer.loader.schedule.batch_size,
            largest=evaluation.sequences,
        )
        self.is_sampled = affordable < evaluation.sequences
        """Whether the method is shown fewer sequences than the log."""
        self.groups = mixture.validation
        self._validation = self._build(mixture.validation, evaluation.sequences)
        self._sample = self._build(mixture.validation, affordable) if self.is_sampled else self._validation
        self._test = self._build(mixture.test, evaluation.sequences) if mixture.test else None
        self._measured: dict[GroupEvaluator, tuple[int, np.ndarray]] = {}

    def validation(self) -> np.ndarray:
        """[G], mean nats per token now, on all validation sequences of the config."""
        return self._measure(self._validation)

    def sample(self) -> np.ndarray:
        """[G], mean nats per token now, on those that the method is shown."""
        return self._measure(self._sample)

    def test(self) -> np.ndarray | None:
        """[G], mean nats per token now, on the test sequences; None where there are none."""
        return None if self._test is None else self._measure(self._test)

    def _measure(self, evaluator: GroupEvaluator) -> np.ndarray:
        """Evaluate, unless that was done at this step; its time does not count in the throughput."""
        trainer, step = self._trainer, self._trainer.controller.step
        if evaluator not in self._measured or self._measured[evaluator][0] != step:
            start = time.perf_counter()
            self._measured[evaluator] = step, trainer.evaluate(evaluator)
            trainer.metrics_processor.time_last_log += time.perf_counter() - start
            if evaluator is self._validation:
                trainer.log.evaluated(*self._measured[evaluator])
        return self._measured[evaluator][1]

    def _build(self, groups: Any, num_sequences: int) -> GroupEvaluator:
        trainer = self._trainer
        batch_size = trainer.job_config.training.local_batch_size
        return GroupEvaluator(
            groups, num_sequences, batch_size, trainer.loader.rank, trainer.loader.num_ranks
        )
