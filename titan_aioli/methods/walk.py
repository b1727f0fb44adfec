"""A method's phases, one after the other: the only loop over `phase` and `update` outside the controller."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.methods.protocol import UNTIL_END, MixingMethod, Phase


class Stretch(NamedTuple):
    """A phase of a walk, and the method's state in it."""

    step: int
    """Optimizer steps done before it."""
    num_steps: int
    """Optimizer steps of it before the run ends; fewer than `phase.num_steps` where the run ends in it."""
    phase: Phase
    state: Any
    """The method's state during the phase: what `phase` was derived from."""


def walk(
    method: MixingMethod,
    num_groups: int,
    observe: Callable[[Stretch], np.ndarray | None],
    num_steps: int = UNTIL_END,
    num_targets: int | None = None,
) -> Iterator[Stretch]:
    """The phases of a run of `num_steps`, in order; the last one is cut where the run ends.

    A walker stops early by leaving the loop. A method that only ever measures never reaches the end of the
    run, so whoever walks a method of somebody else bounds the number of phases.

    Args:
        method: built for `num_groups`.
        num_groups: G.
        observe: given a phase that is over, the observation that `method.observes` asks for. It is called
            after the walker has seen the phase.
        num_steps: optimizer steps of the run.
        num_targets: K. None: the targets are the groups.
    """
    state, step = method.init(num_groups, num_targets), 0
    while True:
        phase = method.phase(state)
        stretch = Stretch(step, min(phase.num_steps, num_steps - step), phase, state)
        yield stretch
        if stretch.num_steps < phase.num_steps:
            return
        step += phase.num_steps
        state = method.update(state, observe(stretch))
