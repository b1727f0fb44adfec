#!/usr/bin/env python
"""Sweeps with and without --for-tokens in synthetic worlds with repetition, whose best mixture is known.

    .venv/bin/python scripts/for_tokens_worlds.py --worlds 100

In each world (`titan-aioli simulate --law repetition`): a sweep of short runs, with groups as large as the
long run has them or smaller in proportion; the plan of each (law olmix); and the loss of a long run on it, as
the world has it, less that of the world's best mixture. Nothing is trained; a world takes seconds.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from titan_aioli.commands.simulate.repetition import TAU, RepetitionWorld
from titan_aioli.laws import dirichlet_cover, optimal_mixture, repetition_caps
from titan_aioli.laws.plan import plan_mixture
from titan_aioli.laws.table import RunTable
from titan_aioli.proportions import uniform

Array = np.ndarray
NUM_GROUPS = 5
RUNS_PER_PARAMETER = 3


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


def table_of(law: RunLaw, P: Array, noise: float) -> RunTable:
    """A sweep's table: a run on every mixture [N, G]."""
    world = law.world
    losses, random = law.predict(P), np.random.default_rng((world.seed, 12))
    names = [f"group{j}" for j in range(world.num_groups)]
    return RunTable(
        groups=names,
        proportions=P,
        evaluated=[f"target{k}" for k in range(losses.shape[1])],
        losses=losses + noise * random.standard_normal(losses.shape),
        digest="",
        epochs=P * world.num_steps / world.sizes,
    )


def mixtures(world: RepetitionWorld, ratio: int, noise: float) -> Iterator[tuple[str, Array]]:
    """How a mixture is found, and the mixture [G]; the world's best is last."""
    P = dirichlet_cover(NUM_GROUPS, RUNS_PER_PARAMETER * (NUM_GROUPS + 1), seed=world.seed)
    matched = replace(world, num_steps=world.num_steps // ratio)
    whole = replace(matched, data_steps=world.num_steps)
    tables = {kind: table_of(RunLaw(each), P, noise) for kind, each in (("out", whole), ("", matched))}
    sizes = {"epochs_of_all": world.num_steps / world.sizes}
    caps = repetition_caps(world.sizes, world.num_steps, 4.0)
    for kind, options in tables.items():
        yield f"with{kind} --for-tokens", _plan(options)
        if caps.sum() >= 1:
            yield f"with{kind} --for-tokens, at most 4 epochs", _plan(options, caps=caps)
    yield f"without --for-tokens, --tau {TAU:g}", _plan(tables["out"], tau=TAU, **sizes)
    yield "stratified", uniform(NUM_GROUPS)
    yield "best", optimal_mixture(RunLaw(world), NUM_GROUPS)


def _plan(table: RunTable, **options: Any) -> Array:
    return plan_mixture(table, "olmix", **options).plan.proportions


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4000, help="of the long run")
    parser.add_argument("--ratio", type=int, default=16, help="its length in that of a sweep's run")
    parser.add_argument("--noise", type=float, default=0.005, help="of a sweep's losses, nats per token")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in tqdm(range(args.worlds), unit="world"):
        world = RepetitionWorld(NUM_GROUPS, args.steps, seed=seed, num_targets=1)
        of_world = dict(mixtures(world, args.ratio, args.noise))
        loss, best = RunLaw(world).predict, of_world["best"]
        for name, p in of_world.items():
            above = float(np.mean(loss(p) - loss(best)))
            epochs = float(np.max(p * args.steps / world.sizes))
            found.setdefault(name, []).append((above, float(np.abs(p - best).max()), epochs))
    show(args, found)


def show(args: argparse.Namespace, found: dict[str, list[tuple[float, float, float]]]) -> None:
    title = f"{args.worlds} worlds, runs of {args.steps} steps, sweeps of {args.steps // args.ratio}"
    shown = Table(title=title)
    columns = ("mixture", "worlds", "above the best, nats", "median", "largest share off", "most epochs")
    for column in columns:
        shown.add_column(column, justify="left" if column == "mixture" else "right")
    for name, numbers in found.items():
        above, off, epochs = np.array(numbers).T
        error = above.std(ddof=1) / np.sqrt(len(above)) if len(above) > 1 else np.nan
        cells = [f"{above.mean():.4f} ± {error:.4f}", f"{np.median(above):.4f}"]
        shown.add_row(name, str(len(above)), *cells, f"{np.median(off):.3f}", f"{np.median(epochs):.1f}")
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
