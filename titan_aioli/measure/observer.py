"""What a method sees at the end of a phase, measured inside the training loop.

An observer receives every micro-batch; where a phase is over, `measure` gives the observation, equal on every
rank, and forgets the phase. What it holds in the middle of a phase is saved with the mixture and is equal on
all ranks too.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.losses import GroupStats, Rows
from titan_aioli.methods.objective import Objective


class MicroBatch(NamedTuple):
    """A micro-batch that was trained on, on this rank's device."""

    inputs_BS: torch.Tensor
    labels_BS: torch.Tensor
    group_B: torch.Tensor
    rows: Rows
    """Losses of its rows; undefined while the row losses are not recorded (mixing.train_losses = false)."""


class Settings(NamedTuple):
    """What the config says about how observations are measured."""

    reference: str = ""
    """Checkpoint of DoReMi's reference model."""
    clip_tokens: bool = True
    """Whether DoReMi's excess is clipped at 0 token by token."""
    gradient_sequences: int = 4
    """Held-out sequences of every target in DoGE's held-out gradient."""
    alignment_sequences: int = 8
    """Sequences of every group in one measurement of the alignment of gradients; as many of all targets."""
    objective: Objective = Objective()
    """What each target counts in the gradient of the objective."""


class Observer:
    """One kind of observation (`MixingMethod.observes`); `state` and `measure` are collective.

    As it stands, for methods that observe nothing.
    """

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        pass

    def begin_step(self) -> None:
        """An optimizer step is about to begin."""

    def see(self, batch: MicroBatch) -> None:
        """Called after each micro-batch, before the next forward pass."""

    def measure(self, step: int) -> np.ndarray | None:
        """The observation of the phase that ended after `step` steps."""
        return None

    def state(self) -> dict[str, np.ndarray]:
        """What is known of the phase under way, equal on all ranks."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue in the middle of a phase."""


class ValidationObserver(Observer):
    """Held-out loss of every target now, [K].

    Of as many sequences from the first measurement to the last: a method compares each with the one before,
    also after a resume with another batch size, by which the budget would pay for more or fewer.
    """

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        self._held_out = held_out

    def measure(self, step: int) -> np.ndarray:
        return self._held_out.sample(step)

    def state(self) -> dict[str, np.ndarray]:
        return {"num_seen": np.array(self._held_out.num_seen)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        if "num_seen" in state:  # not in checkpoints of earlier versions
            self._held_out.see(int(state["num_seen"]))


class TrainObserver(Observer):
    """Mean training loss of every group over the phase, [G]; nan for a group without tokens."""

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        self._stats = GroupStats(len(loader.groups), host.device, host.is_reporter)
        self._is_holder = _is_first_reporter(host)

    def see(self, batch: MicroBatch) -> None:
        self._stats.add(batch.rows.sums_2B, batch.group_B)

    def measure(self, step: int) -> np.ndarray:
        means = self._stats.means()
        self._stats.clear()
        return means

    def state(self) -> dict[str, np.ndarray]:
        return {"sums": self._stats.collapse(self._is_holder)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._stats.restore(state["sums"], self._is_holder)


def _is_first_reporter(host: Host) -> bool:
    """Whether this is the lowest rank whose loss sums count. Collective."""
    if not dist.is_initialized():
        return True
    rank = dist.get_rank()
    lowest = torch.tensor(rank if host.is_reporter else dist.get_world_size(), device=host.device)
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    return int(lowest) == rank
