"""What tests of several methods drive them with."""

import json
from itertools import count, islice
from pathlib import Path

from titan_aioli.methods import METHODS
from titan_aioli.methods.walk import walk

GOLDEN = Path(__file__).parents[1] / "golden"
AIOLI_CASES = [
    case for k in (2, 3) for case in json.loads((GOLDEN / f"aioli_k{k}.json").read_text())["cases"]
]
"""Inputs and outputs of the released code of Aioli."""


def golden_aioli(inputs):
    """Aioli as the released code was run on a case."""
    return METHODS["aioli"](
        num_sweeps=inputs["lp_rounds"],
        steps_per_mixture=inputs["lp_steps"],
        steps_per_round=inputs["update_steps"],
        one_hot_factor=inputs["one_hot_factor"],
        eta=inputs["eta"],
        ema=inputs["ema"],
        diagonal=inputs["diagonal"],
        normalize=inputs["normalize_A"],
        update_rule="cumulative" if inputs["ema"] is None else "restart",
        orders=inputs["mixture_order"],
    )


def state_after(method, losses_at, num_updates, num_groups):
    """The method's state after `num_updates` updates, the t-th of them with losses_at(t)."""
    losses = map(losses_at, count(1))
    *_, last = islice(walk(method, num_groups, lambda _: next(losses)), num_updates + 1)
    return last.state


def drive(method, num_groups, observe, num_rounds, num_targets=None):
    """States at the start of each training phase; `observe(phase, losses, round)` gives the next losses."""
    losses, trained = None, []

    def next_losses(stretch):
        nonlocal losses
        losses = observe(stretch.phase, losses, stretch.state.round)
        return losses

    for stretch in walk(method, num_groups, next_losses, num_targets=num_targets):
        if stretch.phase.name == "train":
            trained.append(stretch.state)
        if len(trained) == num_rounds:
            return trained


def linear_world(A, start):
    """Losses fall by A @ p for every 4 steps."""

    def observe(phase, losses, round_):
        return start if losses is None else losses - A @ phase.proportions * phase.num_steps / 4

    return observe
