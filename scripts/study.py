#!/usr/bin/env python
"""Does it help? Settings x arms x batch sizes x seeds through the product, against the best static mixture.

    .venv/bin/python scripts/study.py --corpus CORPUS --settings S1 S5 --seeds 0 1 2 --batch-sizes 16 128

CORPUS is a folder of GROUP.jsonl.gz files. Settings, arms, the oracle's grid and the stop rule were fixed
beforehand in study_settings.toml. Killed and run again, it continues: a finished run is not run twice. The
same seed gives every arm the same initial weights and, per group, the same order of sequences. The oracle is
the static mixture of the grid that is best on seeds of its own, which are not reported.

Loss: the objective on the validation sets, mean over the last evaluations (the test loss of the last step is
in the CSV). "of the gap": (stratified - arm) / (stratified - oracle), where the oracle's gain is seen.
"groups": what the target costs the groups. "extra compute": what the method measures, in that of the steps.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from tqdm import tqdm

from support.ending import run_script
from support.study_data import derive, prepare
from support.study_report import Scene, draw, outcomes, read_csv, table, write_csv
from support.study_runs import ALONE, ENGINES, Result, Run, Trainer
from support.study_settings import BEST_STATIC, STRATIFIED, Arm, Study, read_study
from titan_aioli.errors import UserError

T = TypeVar("T")
SETTINGS = Path(__file__).with_name("study_settings.toml")
BASELINES = ("stratified", "static")
"""Methods whose arms are candidates of the oracle too."""


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--corpus", type=Path, required=True, help="GROUP.jsonl.gz files")
    parser.add_argument("--output", type=Path, default=Path("outputs/study"), help="runs, CSV, figure")
    parser.add_argument("--study", type=Path, default=SETTINGS, help="the file of settings")
    parser.add_argument("--settings", nargs="+", help="all, if left out")
    parser.add_argument("--arms", nargs="+", help=f"all and {BEST_STATIC}, if left out; {STRATIFIED} always")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16], help="sequences of a step")
    parser.add_argument("--steps", type=int, help="of every run, for a trial")
    parser.add_argument("--engine", choices=ENGINES, default="torchtitan")
    parser.add_argument("--beside", type=Path, help="a study.csv whose reported runs are shown beside these")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    args.output = args.output.resolve()
    return args


def check(args: argparse.Namespace, study: Study) -> None:
    """Fill in what was left out of the settings and arms.

    Raises: UserError: an unknown name, or a seed that the oracle is chosen on.
    """
    args.settings = args.settings or list(study.settings)
    args.arms = args.arms or [*study.arms, BEST_STATIC]
    for kind, given, known in (
        ("setting", args.settings, list(study.settings)),
        ("arm", args.arms, [*study.arms, BEST_STATIC]),
    ):
        for name in given:
            if name not in known:
                raise UserError(f"unknown {kind} {name!r}: choose among {', '.join(known)}")
    if shared := set(args.seeds) & set(study.oracle_seeds):
        raise UserError(f"--seeds {min(shared)}: the oracle is chosen on this seed; report on others")


class Executor:
    """Trains runs, some at a time."""

    def __init__(self, study: Study, trainer: Trainer, jobs: int):
        self.study, self.trainer, self.jobs = study, trainer, jobs

    def arm(self, run: Run) -> Arm:
        setting = self.study.settings[run.setting]
        return {**setting.arms(self.study.arms), **setting.grid()}[run.arm]

    def train(self, runs: Iterable[Run], what: str) -> list[Result]:
        """Their results, in their order."""
        return self._all(lambda run: self.trainer.train(run, self.arm(run)), runs, what)

    def make_graphs(self, scenes: Iterable[Scene]) -> None:
        """Skill-It's graphs, from runs on every group alone with the first of the oracle's seeds."""
        seed, settings = self.study.oracle_seeds[0], self.study.settings
        alone = {
            scene: [Run(*scene, f"{ALONE}{group}", seed) for group in settings[scene[0]].groups]
            for scene in scenes
        }
        self._all(self.trainer.train_alone, [run for runs in alone.values() for run in runs], "graphs")
        for runs in alone.values():
            self.trainer.write_graph(runs)

    def _all(self, work: Callable[[Run], T], runs: Iterable[Run], what: str) -> list[T]:
        """What the work gives for each run, the first failure raised; no run twice."""
        runs = list(dict.fromkeys(runs))
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return list(tqdm(pool.map(work, runs), total=len(runs), unit="run", desc=what))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # those that have begun end
                raise


def choose(results: list[Result]) -> dict[Scene, str]:
    """For each scene the static mixture with the lowest mean loss over the oracle's seeds, by name."""
    losses: dict[Scene, dict[str, list[float]]] = {}
    for result in results:
        run = result.run
        losses.setdefault((run.setting, run.batch_size), {}).setdefault(run.arm, []).append(result.loss)
    return {scene: min(of_arm, key=lambda arm: np.mean(of_arm[arm])) for scene, of_arm in losses.items()}


def best_static(executor: Executor, scenes: list[Scene], seeds: list[int]) -> tuple[list[Result], ...]:
    """The results of the oracle, under its name, and those that it was chosen by."""
    study, candidates = executor.study, []
    for scene in scenes:
        setting = study.settings[scene[0]]
        baselines = [n for n, arm in setting.arms(study.arms).items() if arm.method in BASELINES]
        arms = [*baselines, *setting.grid()]
        candidates += [Run(*scene, arm, seed) for arm, seed in product(arms, study.oracle_seeds)]
    choice = executor.train(candidates, "oracle's grid")
    chosen = choose(choice)
    runs = [Run(*scene, chosen[scene], seed) for scene, seed in product(scenes, seeds)]
    return executor.train(runs, BEST_STATIC), choice


def main() -> None:
    args = parse()
    study = read_study(args.study)
    check(args, study)
    prepare(args.corpus, args.output, study.sources(args.settings))
    derive(args.output / "stores", study.stores, study.derived(args.settings))
    executor = Executor(study, Trainer(study, args.output, args.engine, args.steps), args.jobs)
    scenes, runs = list(product(args.settings, args.batch_sizes)), []
    for scene in scenes:
        arms = study.settings[scene[0]].arms(study.arms)
        wanted = [arm for arm in arms if arm in args.arms or arm == STRATIFIED]
        runs += [Run(*scene, arm, seed) for arm, seed in product(wanted, args.seeds)]
    if any(executor.arm(run).method == "skill_it" for run in runs):
        executor.make_graphs(scenes)
    results, choice, chosen = executor.train(runs, "arms"), [], {}
    if BEST_STATIC in args.arms:
        best, choice = best_static(executor, scenes, args.seeds)
        chosen = {(r.run.setting, r.run.batch_size): r.run.arm for r in best}
        results += [result._replace(run=result.run._replace(arm=BEST_STATIC)) for result in best]
    there = {result.run for result in results}
    beside = [result for result in (read_csv(args.beside) if args.beside else ()) if result.run not in there]
    show(args.output, study, [*beside, *results], choice, chosen)


def show(
    output: Path, study: Study, results: list[Result], choice: list[Result], chosen: dict[Scene, str]
) -> None:
    """Tables, CSV and figure."""
    found = outcomes(results)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for scene, arms in found.items():
        console.print(table(scene, study.settings[scene[0]], arms, chosen.get(scene, ""), study.stop))
    write_csv(output / "study.csv", results, choice)
    draw(output / "study.png", found, study.settings)
    print(f"numbers: {output / 'study.csv'}\nfigure: {output / 'study.png'}")


if __name__ == "__main__":
    run_script(main)
