"""What a method sees at the end of a phase, measured inside the training loop.

One observer for each kind that methods ask for (`MixingMethod.observes`). An observer is told of every
micro-batch; where a phase is over, `measure` gives the observation, equal on every rank, and forgets the
phase. What it holds in the middle of a phase is saved with the mixture and is equal on all ranks too.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.control.state import pack, unpack
from titan_aioli.measure.losses import GroupStats

if TYPE_CHECKING:
    from titan_aioli.train import MixingTrainer


class Observer:
    """For methods that observe nothing; the base of the others."""

    def __init__(self, trainer: "MixingTrainer"):
        self.trainer = trainer

    def begin_step(self) -> None:
        """An optimizer step is about to begin."""

    def see(self, input_dict: dict[str, Any], labels: torch.Tensor) -> None:
        """A micro-batch has been trained on; the trainer's loss still holds its rows."""

    def measure(self) -> np.ndarray | None:
        """The observation of the phase that is over."""
        return None

    def state(self) -> dict[str, np.ndarray]:
        """What is known of the phase under way, equal on all ranks."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on in the middle of a phase."""


class ValidationObserver(Observer):
    """Held-out loss of every group now, [G]."""

    def measure(self) -> np.ndarray:
        return self.trainer.held_out.sample()


class TrainObserver(Observer):
    """Mean training loss of every group over the phase, [G]; nan for a group without tokens."""

    def __init__(self, trainer: "MixingTrainer"):
        super().__init__(trainer)
        self._stats = GroupStats(len(trainer.group_names), trainer.device, trainer.is_reporter)
        self._is_holder = _is_first_reporter(trainer)

    def see(self, input_dict: dict[str, Any], labels: torch.Tensor) -> None:
        self.trainer.row_loss.add_to(self._stats.sums_2G, input_dict["group"])

    def measure(self) -> np.ndarray:
        means = self._stats.means()
        self._stats.clear()
        return means

    def state(self) -> dict[str, np.ndarray]:
        return {"sums": self._stats.collapse(self._is_holder)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._stats.restore(state["sums"], self._is_holder)


def build_observer(trainer: "MixingTrainer") -> Observer:
    """The observer that the trainer's method asks for."""
    kind = trainer.controller.method.observes
    if kind == "excess":
        from titan_aioli.measure.excess import ExcessObserver

        return ExcessObserver(trainer)
    if kind == "gradients":
        from titan_aioli.measure.gradients import GradientObserver

        return GradientObserver(trainer)
    return {"nothing": Observer, "validation": ValidationObserver, "train": TrainObserver}[kind](trainer)


class MixtureState:
    """Controller and observer under one key of the checkpoint."""

    def __init__(self, controller: Any, observer: Observer):
        self._controller = controller
        self._observer = observer

    def state_dict(self) -> dict[str, Any]:
        return {**self._controller.state_dict(), "observer": pack(self._observer.state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._controller.load_state_dict(state_dict):
            self._observer.restore(unpack(state_dict["observer"]))


def _is_first_reporter(trainer: "MixingTrainer") -> bool:
    """Whether this is the lowest rank whose loss sums count."""
    rank = dist.get_rank()
    lowest = torch.tensor(rank if trainer.is_reporter else dist.get_world_size(), device=trainer.device)
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    return int(lowest) == rank
