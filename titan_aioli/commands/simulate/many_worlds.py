"""Methods in many worlds: how much of what there is to win they find, and what they do where there is none.

Worlds are of three kinds: with a gap between the stratified mixture and the best static one, with an even
best mixture, and with mixtures that do not matter. The last two are controls: nothing can be won there, so
what a method loses to `stratified` is harm. Losses are those of the world, without noise.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, get_args

import numpy as np
from tqdm import tqdm

from titan_aioli.commands.simulate.returns import Kind, ReturnsWorld
from titan_aioli.commands.simulate.run import method_for, simulate_run
from titan_aioli.methods import MixingMethod
from titan_aioli.methods.aioli_bayes import AioliBayes

Array = np.ndarray
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTROL_SHARE = 0.25
"""Worlds of each control, over those with a gap."""
OTHER_NOISES = (0.25, 0.5, 2.0)
"""Noises of the figure, over that of the table."""
OTHER_SHARE = 0.1
"""Share of the worlds that are also tried at each of these."""


@dataclass(frozen=True)
class Trial:
    """Which methods, in which worlds."""

    methods: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    """Hyperparameters by method."""
    num_groups: int
    num_targets: int
    num_steps: int
    noise: float
    """A factor on the measured one."""
    seed: int

    def __post_init__(self):
        if self.num_targets < 1 or self.num_groups < 2:
            raise ValueError(
                f"{self.num_groups} groups and {self.num_targets} targets leave no gap to find: --worlds "
                "needs at least 2 groups and 1 target, such as --groups 7 --targets 1 (for the groups "
                "themselves the best mixture is even)"
            )

    def world(self, number: int, kind: Kind) -> ReturnsWorld:
        """World of that number, with what is otherwise random in it decided by the seed and the number."""
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        return ReturnsWorld(
            self.num_groups,
            self.num_steps,
            noise=self.noise,
            seed=seed,
            num_targets=self.num_targets,
            kind=kind,
        )


class Outcome(NamedTuple):
    """What came of M methods in N worlds of one kind."""

    gaps: Array
    """[N], nats that the best static mixture is better than the stratified one."""
    losses: Array
    """[N, M], loss to `stratified` at the end of the run, nats; negative where it is better."""
    distances: Array
    """[N, M], largest difference of a group's share to what the method began with, over the run."""
    signals: Array
    """[N], what pulling a stretch of aioli_bayes to the best group changes its drop by, over the noise."""

    @property
    def closed(self) -> Array:
        """[N, M], share of the gap that is closed; of worlds with a gap."""
        return -self.losses / self.gaps[:, None]


Outcomes = dict[Kind, Outcome]


def judge(trial: Trial, num_worlds: int, jobs: int = 1) -> dict[float, Outcomes]:
    """Try the methods in all worlds, and in fewer at other noises; by noise, ascending.

    Args:
        num_worlds: worlds with a gap, at the trial's noise.
        jobs: processes.
    """
    counts = {trial.noise: num_worlds}
    if trial.noise > 0:
        counts |= {trial.noise * factor: _share(num_worlds, OTHER_SHARE) for factor in OTHER_NOISES}
    worlds: dict[tuple[float, Kind], int] = {
        (noise, kind): count if kind == "gap" else _share(count, CONTROL_SHARE)
        for noise, count in counts.items()
        for kind in KINDS
    }
    outcomes: dict[float, Outcomes] = {noise: {} for noise in sorted(counts)}
    with _mapping(jobs) as mapping, tqdm(total=sum(worlds.values()), unit="world") as progress:
        for (noise, kind), count in worlds.items():
            found = []
            for of_world in mapping(partial(_in_world, replace(trial, noise=noise), kind), range(count)):
                found.append(of_world)
                progress.update()
            outcomes[noise][kind] = Outcome(*(np.array(part) for part in zip(*found, strict=True)))
    return outcomes


def _share(count: int, share: float) -> int:
    return max(1, round(share * count))


def _in_world(trial: Trial, kind: Kind, number: int) -> tuple[float, list[float], list[float], float]:
    """The gap, losses and distances of the methods, and the signal, in one world."""
    world = trial.world(number, kind)
    stratified, _ = _end(method_for("stratified", world, {}), world)
    best, _ = _end(method_for("static", world, {"proportions": world.best.tolist()}), world)
    ends = [_end(method_for(name, world, trial.settings.get(name, {})), world) for name in trial.methods]
    known = {"num_steps": trial.num_steps, **trial.settings.get("aioli_bayes", {})}
    looking = AioliBayes(**known).stretches(trial.num_groups)
    return (
        stratified - best,
        [loss - stratified for loss, _ in ends],
        [distance for _, distance in ends],
        world.signal_to_noise(looking.strength, looking.steps),
    )


def _end(method: MixingMethod, world: ReturnsWorld) -> tuple[float, float]:
    """Loss of the targets at the end of a run, and how far the method's own proportions ever went."""
    trace = simulate_run(method, world)
    loss = trace.losses[-1, world.aimed_at].mean()
    return float(loss), float(np.abs(trace.centres - trace.centres[0]).max())


@contextmanager
def _mapping(jobs: int) -> Iterator[Any]:
    """A `map` in this process, or in several, in order."""
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=4)
