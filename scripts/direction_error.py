#!/usr/bin/env python
"""How sure is A? The error of its column sums against sweeps, steps per mixture, one_hot_factor and rounds.

    .venv/bin/python scripts/direction_error.py CONFIG --output outputs/direction --seeds 0 1 2

Trains CONFIG's groups and model as one process: first on the uniform mixture, then a LearnParams as long as
--learn-steps in every setting, all proportions held uniform. The ledger has the held-out losses around every
segment, so each sweep gives the column sums of A by itself (less their mean over the groups: only differences
move the proportions). Their spread over the sweeps is the error of one sweep, their mean over all sweeps less
what that error explains is the signal; both in nats per step and unit of proportion. The last run has several
rounds: what LearnParams leaves as error in each, by itself (`aioli`) and with `pooling`, as Aioli logs it.
Killed and run again, it continues. (Against the number of held-out sequences: evaluation_budget.py.)
"""

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from support.one_rank import train_one_rank
from titan_aioli.commands.figures import save, subplots
from titan_aioli.commands.replay import other_method
from titan_aioli.files import read_toml
from titan_aioli.methods.aioli.learn_params import shifted_sum, solve_mixing_matrix
from titan_aioli.methods.walk import walk
from titan_aioli.runs.read import read_run

BASE_STEPS, BASE_FACTOR, POOLING = 4, 0.75, 0.8
ROUNDS, ROUND_SWEEPS = 6, 4


class Setting(NamedTuple):
    """What a run measures A with."""

    sweeps: int
    steps: int
    """`steps_per_mixture`."""
    factor: float
    """`one_hot_factor`."""
    rounds: int = 1

    def name(self, seed: int) -> str:
        return f"sweeps{self.sweeps}_steps{self.steps}_factor{self.factor}_rounds{self.rounds}_seed{seed}"


def config_text(args: argparse.Namespace, setting: Setting, seed: int) -> str:
    """CONFIG with a phase of uniform training and then LearnParams, at a constant learning rate."""
    config = read_toml(args.config)
    groups = config["mixing"]["groups"]
    learn = setting.sweeps * setting.steps * len(groups)
    round_steps = learn + (learn if setting.rounds > 1 else setting.steps)
    config["training"]["steps"] = args.warmup + setting.rounds * round_steps
    config.setdefault("lr_scheduler", {}).update(decay_ratio=0.0)
    config.setdefault("debug", {}).update(seed=seed)
    config["mixing"].update(
        method="aioli",
        seed=seed,
        evaluation={"sequences": args.sequences, "budget": 0, "freq": 0, "test": False},
        aioli={
            "num_sweeps": setting.sweeps,
            "steps_per_mixture": setting.steps,
            "one_hot_factor": setting.factor,
            "steps_per_round": round_steps,
            "eta": 1e-9,
            "prior_steps": args.warmup,
            "prior": dict.fromkeys(groups, 1.0) if args.warmup else {},
        },
    )
    return tomli_w.dumps(config)


def sums_of_sweeps(folder: Path, setting: Setting) -> np.ndarray:
    """Column sums of A of every sweep by itself, less their mean over the groups.

    Returns: [sweeps, G], nats per step.
    """
    segments = [
        (np.argmax(one["proportions"]), np.subtract(one["observation"], after["observation"]))
        for one, after in pairwise(read_run(folder).records)
        if one["phase"] == "learn_params"
    ]
    num_groups, sums = len(segments[0][1]), []
    for first in range(0, len(segments), num_groups):
        raw_A = np.empty((num_groups, num_groups))
        for swept, drops in segments[first : first + num_groups]:
            raw_A[:, swept] = drops
        sums.append(solve_mixing_matrix(raw_A, setting.factor).sum(axis=0) / setting.steps)
    return np.array(sums) - np.mean(sums, axis=1, keepdims=True)


def error_of_means(sums: list[np.ndarray], sweeps: int) -> float:
    """Standard deviation of the mean of `sweeps` neighbouring sweeps, over the sweeps of every seed."""
    blocks = [s[: len(s) // sweeps * sweeps].reshape(-1, sweeps, s.shape[1]).mean(axis=1) for s in sums]
    return float(np.sqrt(np.mean([np.var(block, axis=0, ddof=1) for block in blocks])))


def logged_errors(folder: Path, pooling: float | None) -> list[float]:
    """`aioli/stderr` of every round (root mean square over the groups), in nats per step."""
    run = read_run(folder)
    method: Any = other_method(run, "aioli", {"pooling": pooling})
    observations, found = (np.array(record["observation"]) for record in run.records[1:]), []
    stretches = walk(method, len(run.groups), lambda _: next(observations))
    for _, _, phase, state in islice(stretches, len(run.records)):
        if phase.name == "train":
            in_nats = state.stderr * shifted_sum(state.solved_A) / method.steps_per_mixture
            found.append(float(np.sqrt(np.mean(in_nats**2))))
    return found


def measure(folders: list[Path], setting: Setting) -> dict[str, Any]:
    """Error and signal of one setting over the seeds."""
    sums = [sums_of_sweeps(folder, setting) for folder in folders]
    one = error_of_means(sums, 1)
    of_all = one / np.sqrt(setting.sweeps)
    signal = np.mean([np.mean(s.mean(axis=0) ** 2) for s in sums]) - of_all**2
    halves = [2**power for power in range(12) if 2 * 2**power <= setting.sweeps]
    return {
        **setting._asdict(),
        "of_sweeps": {size: error_of_means(sums, size) for size in halves},
        "error": of_all,
        "logged": float(np.mean([logged_errors(folder, None)[0] for folder in folders])),
        "signal": float(np.sqrt(max(signal, 0.0))),
    }


def train_all(args: argparse.Namespace, settings: Iterable[Setting]) -> dict[Setting, list[Path]]:
    """The folders of the runs of every setting, `--jobs` runs at a time."""
    folders = {s: [args.output / "runs" / s.name(seed) for seed in args.seeds] for s in settings}
    runs = [
        (folder, config_text(args, s, seed))
        for s in folders
        for folder, seed in zip(folders[s], args.seeds, strict=True)
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(tqdm(pool.map(lambda run: train_one_rank(*run), runs), total=len(runs), unit="run"))
    return folders


def show(results: list[dict[str, Any]], rounds: dict[str, list[float]]) -> None:
    """Two tables: the settings with as many steps each, and the rounds."""
    table = Table(title="column sums of A, 1e-3 nats per step and unit of proportion")
    names = ["steps per\nmixture", "one_hot_\nfactor", "sweeps", "error of\none sweep", "of all\nsweeps"]
    for name in (*names, "as logged", "signal", "signal /\nerror"):
        table.add_column(name, justify="right")
    for r in results:
        numbers = [r["of_sweeps"][1], r["error"], r["logged"], r["signal"]]
        cells = [str(r["steps"]), str(r["factor"]), str(r["sweeps"])]
        cells += [f"{1e3 * number:.2f}" for number in numbers]
        table.add_row(*cells, f"{r['signal'] / r['error']:.2f}")
    by_round = Table(title=f"error logged by rounds of {ROUND_SWEEPS} sweeps, 1e-3 nats per step")
    for name in ("round", *rounds):
        by_round.add_column(name, justify="right")
    for number, errors in enumerate(zip(*rounds.values(), strict=True)):
        by_round.add_row(str(number), *(f"{1e3 * error:.2f}" for error in errors))
    Console(width=100).print(table, by_round)


def draw(path: Path, results: list[dict[str, Any]], rounds: dict[str, list[float]]) -> None:
    """Error and signal against sweeps, steps per mixture, one_hot_factor and rounds."""
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure, (axes,) = subplots(1, 4, (13, 3.4))
    base = next(r for r in results if (r["steps"], r["factor"]) == (BASE_STEPS, BASE_FACTOR))
    sizes = np.array(list(base["of_sweeps"]))
    axes[0].loglog(sizes, [1e3 * error for error in base["of_sweeps"].values()], "o-", label="error")
    axes[0].loglog(sizes, 1e3 * base["of_sweeps"][1] / np.sqrt(sizes), "k:", lw=1, label="1 / sqrt(sweeps)")
    axes[0].axhline(1e3 * base["signal"], color="C2", ls="--", label="signal")
    axes[0].set_xlabel("sweeps")
    for axis, key, other in ((axes[1], "steps", "factor"), (axes[2], "factor", "steps")):
        part = sorted((r for r in results if r[other] == base[other]), key=lambda r: r[key])
        for name, style in (("error", "o-C0"), ("signal", "s--C2")):
            axis.plot([r[key] for r in part], [1e3 * r[name] for r in part], style, label=name)
    axes[1].set_xscale("log", base=2)
    steps = sorted({r["steps"] for r in results})
    axes[1].set_xticks(steps, [str(number) for number in steps])
    axes[1].set_xlabel("steps per mixture (as many steps in all)")
    axes[2].set_xlabel("one_hot_factor")
    for (name, errors), style in zip(rounds.items(), ("o-C0", "o-C1"), strict=True):
        axes[3].plot([1e3 * error for error in errors], style, label=name)
    axes[3].set_xlabel("round")
    for axis in axes[1:]:
        axis.set_ylim(0, None)
    for axis in axes:
        axis.legend(frameon=False)
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes[0].yaxis.set_major_formatter(ScalarFormatter())
    axes[0].minorticks_off()
    axes[0].set_ylabel("1e-3 nats per step\nand unit of proportion")
    save(figure, path)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("config", type=Path, help="TOML of a run: its model, groups and hyperparameters")
    parser.add_argument("--output", type=Path, default=Path("outputs/direction"), help="runs and figure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--warmup", type=int, default=300, help="steps on the uniform mixture before")
    parser.add_argument("--learn-steps", type=int, default=192, help="of LearnParams in every setting")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="steps_per_mixture")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 0.75, 1.0], help="one_hot_factor")
    parser.add_argument("--sequences", type=int, default=64, help="held-out sequences of each group")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    args.output = args.output.resolve()
    num_groups = len(read_toml(args.config)["mixing"]["groups"])
    pairs = [(steps, BASE_FACTOR) for steps in sorted({*args.steps, BASE_STEPS})]
    pairs += [(BASE_STEPS, factor) for factor in args.factors if factor != BASE_FACTOR]
    settings = [Setting(args.learn_steps // (num_groups * steps), steps, factor) for steps, factor in pairs]
    in_rounds = Setting(ROUND_SWEEPS, BASE_STEPS, BASE_FACTOR, ROUNDS)
    folders = train_all(args, [*settings, in_rounds])
    results = [measure(folders[setting], setting) for setting in settings]
    rounds = {
        name: np.mean([logged_errors(folder, pooling) for folder in folders[in_rounds]], axis=0).tolist()
        for name, pooling in (("each round by itself", None), (f"pooling {POOLING}", POOLING))
    }
    show(results, rounds)
    draw(args.output / "direction.png", results, rounds)
    content = {"settings": results, "rounds": rounds}
    (args.output / "direction.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"figure: {args.output / 'direction.png'}\nnumbers: {args.output / 'direction.json'}")


if __name__ == "__main__":
    main()
