"""Target excess: more of the groups that are furthest above the loss that they are to reach.

The losses to reach are known beforehand: constants, a file, or the losses that another run ended with. It
needs one evaluation per round and no other run than the one that the losses to reach come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_number, require_weights
from titan_aioli.methods.faults import report_skipped, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import normalize_or_uniform, softmax


class TargetExcessState(NamedTuple):
    """All that target excess knows between two phases."""

    round: int
    """Updates so far."""
    proportions: np.ndarray
    """[G], after the floor."""
    excess: np.ndarray
    """[G], nats per token: the last update added eta times it to the logarithms of the weights."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class TargetExcess:
    """Exponentiated gradient on the distance of each group's loss from the loss that it is to reach.

    log p_i += eta (L_i - target_i), clipped at 0 with `clip`; softmax; p = (1 - c) p + c / G.

    Source: Xia et al. 2023, arXiv:2310.06694 (Sheared LLaMA), Algorithm 1, dynamic batch loading. The paper
    clips the difference at 0, the released code does not. Both evaluate on held-out data of the groups; an
    update starts from the proportions of the last one, after the floor, as in both.
    """

    observes: ClassVar[str] = "validation"

    target_losses: Sequence[float] | None = None
    """[G], held-out loss that each group is to reach, nats per token. None: 0 for every group."""
    eta: float = 1.0
    """Step size of the update of the proportions, per nat."""
    clip: bool = True  # False: the released code
    """Take a group below its loss to reach as if it had reached it (the paper); else train it less."""
    floor: float = 1e-4  # c
    """Share of the uniform mixture in the proportions, so that no group vanishes."""
    prior: Sequence[float] | None = None
    """[G] weights of the mixture that the run starts with. None: uniform."""
    steps_per_round: int = 100
    """Optimizer steps between two updates of the proportions."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_number("target_excess.eta", self.eta, above=0, what="the step size")
        require_number("target_excess.floor", self.floor, at_least=0, at_most=1, what="the share of uniform")
        require_count("target_excess.steps_per_round", self.steps_per_round)
        if self.prior is not None:
            require_weights("target_excess.prior", self.prior, num_groups)
        if num_targets not in (None, num_groups):
            raise ValueError(
                f"target_excess: {num_targets} targets for {num_groups} groups: the share of a group follows "
                "its own held-out loss: name every group as a target, or leave out [mixing.targets]"
            )
        for index, loss in enumerate(self.target_losses or ()):
            require_number(f"target_excess.target_losses[{index}]", loss)
        if self.target_losses is not None and len(self.target_losses) != num_groups:
            raise ValueError(
                f"target_excess.target_losses has {len(self.target_losses)} numbers for {num_groups} groups"
            )

    def init(self, num_groups: int, num_targets: int | None = None) -> TargetExcessState:
        return TargetExcessState(
            round=0,
            proportions=normalize_or_uniform(self.prior, num_groups, "target_excess.prior"),
            excess=np.zeros(num_groups),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: TargetExcessState) -> Phase:
        return Phase(state.proportions.copy(), self.steps_per_round, "train")

    def update(self, state: TargetExcessState, observation: np.ndarray | None) -> TargetExcessState:
        assert observation is not None, "target_excess observes held-out losses"
        t, G, c = state.round + 1, len(observation), self.floor
        target = np.zeros(G) if self.target_losses is None else np.array(self.target_losses, np.float64)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            excess = observation - target
            excess = np.maximum(excess, 0.0) if self.clip else excess
            log_w = np.log(state.proportions) + self.eta * excess
        bad = unusable(observation) | unusable(self.eta * excess)
        if bad.any():
            return state._replace(round=t, skipped=bad)
        p = (1.0 - c) * softmax(log_w) + c / G
        return TargetExcessState(round=t, proportions=p, excess=excess, skipped=bad)

    def report(self, state: TargetExcessState) -> dict[str, np.ndarray | str]:
        return {"excess": state.excess} | report_skipped(state.skipped)

    def metrics(self, state: TargetExcessState) -> dict[str, np.ndarray]:
        return {"target_excess/excess": state.excess} if state.round else {}

    def result(self, state: TargetExcessState) -> np.ndarray:
        return state.proportions
