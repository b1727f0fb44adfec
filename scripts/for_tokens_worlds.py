#!/usr/bin/env python
"""Sweeps with and without --for-tokens in synthetic worlds with repetition, whose best mixture is known.

    .venv/bin/python scripts/for_tokens_worlds.py --worlds 100

In each world (`titan-aioli simulate --law repetition`): a sweep of short runs, with groups as large as the
long run has them or smaller in proportion; the plan of each (law olmix); and the loss of a long run on it, as
the world has it, less that of the world's best mixture; ± is the standard error over the worlds. Nothing is
trained; a world takes seconds.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from titan_aioli.commands.simulate.repetition import TAU, RepetitionWorld
from titan_aioli.laws import dirichlet_cover, fit_olmix, optimal_mixture, repetition_caps
from titan_aioli.laws.olmix import ANCHOR_STRENGTH
from titan_aioli.laws.optimum import Law
from titan_aioli.laws.repetition import RepeatedLaw, effective_mixtures, fit_effective
from titan_aioli.proportions import uniform

Array = np.ndarray
NUM_GROUPS = 5
RUNS_PER_PARAMETER = 3
Found = dict[str, list[tuple[float, float, float]]]
"""By name of the mixture, the outcome in each world."""


class RunLaw(NamedTuple):
    """What a run of a world ends with, as a law of its mixture; convex."""

    world: RepetitionWorld

    def predict(self, proportions: Array) -> Array:
        """Losses of what the mixture is for, [..., M], at mixtures [..., G]."""
        flat = np.atleast_2d(proportions)
        ends = [self.world.losses(self.world.num_steps * p)[self.world.aimed_at] for p in flat]
        return np.array(ends).reshape(*np.shape(proportions)[:-1], -1)

    def gradient(self, proportions: Array, weights: Array) -> Array:
        """Gradient [G] of sum_i weights_i L_i at one mixture [G]; weights [M]."""
        steps = self.world.num_steps
        return -steps * weights @ self.world.present_A(steps * proportions, steps)[self.world.aimed_at]


def losses_of(world: RepetitionWorld, P: Array, noise: float) -> Array:
    """[N, M], what a sweep over mixtures [N, G] measures."""
    losses = RunLaw(world).predict(P)
    return losses + noise * np.random.default_rng((world.seed, 12)).standard_normal(losses.shape)


def mixtures(world: RepetitionWorld, ratio: int, noise: float) -> Iterator[tuple[str, Array]]:
    """How a mixture is found, and the mixture [G]; the world's best is last."""
    P = dirichlet_cover(NUM_GROUPS, RUNS_PER_PARAMETER * (NUM_GROUPS + 1), seed=world.seed)
    matched = replace(world, num_steps=world.num_steps // ratio)
    whole = replace(matched, data_steps=world.num_steps)
    caps = repetition_caps(world.sizes, world.num_steps, 4.0)
    for kind, run in (("out", whole), ("", matched)):
        law = fit_olmix(P, losses_of(run, P, noise))
        yield f"with{kind} --for-tokens", _plan(law)
        if caps.sum() >= 1:
            yield f"with{kind} --for-tokens, at most 4 epochs", _plan(law, caps)
    effective = effective_mixtures(P, P * whole.num_steps / whole.sizes, TAU)
    law = fit_effective(fit_olmix, effective, losses_of(whole, P, noise))
    repeated = RepeatedLaw(law, world.num_steps / world.sizes, TAU)
    yield f"without --for-tokens, --tau {TAU:g}", _plan(repeated)
    yield "stratified", uniform(NUM_GROUPS)
    yield "best", optimal_mixture(RunLaw(world), NUM_GROUPS)


def _plan(law: Law, caps: Array | None = None) -> Array:
    """As `titan-aioli plan --law olmix` without natural shares."""
    return optimal_mixture(law, NUM_GROUPS, anchor_strength=ANCHOR_STRENGTH, caps=caps)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4000, help="of the long run")
    parser.add_argument("--ratio", type=int, default=16, help="its length in that of a sweep's run")
    parser.add_argument("--noise", type=float, default=0.005, help="of a sweep's losses, nats per token")
    args = parser.parse_args()
    found: dict[bool, Found] = {False: {}, True: {}}
    for seed in tqdm(range(args.worlds), unit="world"):
        world = RepetitionWorld(NUM_GROUPS, args.steps, seed=seed, num_targets=1)
        is_scarce = bool(world.worth[-1].argmax() == world.sizes.argmin())
        of_world = dict(mixtures(world, args.ratio, args.noise))
        for name, p in of_world.items():
            found[is_scarce].setdefault(name, []).append(outcome(world, p, of_world["best"]))
    runs = f"runs of {args.steps} steps, sweeps of {args.steps // args.ratio}"
    console = Console(width=120)
    console.print(table(f"the group worth most to the target is the smallest; {runs}", found[True]))
    console.print(table(f"the other worlds; {runs}", found[False]))


def outcome(world: RepetitionWorld, p: Array, best: Array) -> tuple[float, float, float]:
    """Of a mixture: nats above the best, largest share off it, most epochs of any group."""
    loss = RunLaw(world).predict
    epochs = np.max(p * world.num_steps / world.sizes)
    return float(np.mean(loss(p) - loss(best))), float(np.abs(p - best).max()), float(epochs)


def table(title: str, found: Found) -> Table:
    """A line for each way to find a mixture."""
    shown = Table(title=title)
    columns = ("mixture", "worlds", "above the best, nats", "median", "largest share off", "most epochs")
    for column in columns:
        shown.add_column(column, justify="left" if column == "mixture" else "right")
    for name, numbers in found.items():
        above, off, epochs = np.array(numbers).T
        error = above.std(ddof=1) / np.sqrt(len(above)) if len(above) > 1 else np.nan
        cells = [f"{above.mean():.4f} ± {error:.4f}", f"{np.median(above):.4f}"]
        shown.add_row(name, str(len(above)), *cells, f"{np.median(off):.3f}", f"{np.median(epochs):.1f}")
    return shown


if __name__ == "__main__":
    main()
