"""`titan-aioli sweep`: runs that differ in the mixture only, and the table that `titan-aioli plan` reads.

OUTPUT/sweep.json is the plan: the mixtures and all that they were asked for with. Each run is a folder beside
it. Killed and started again, the same command continues: finished runs stay, the one under way resumes
from its last checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from titan_aioli.commands.settings import parse_settings
from titan_aioli.commands.sweep.direct import locked, train_all
from titan_aioli.commands.sweep.jobs import Jobs, train_all_as_jobs
from titan_aioli.commands.sweep.mixtures import Sweep, keep_plan, plan_sweep
from titan_aioli.commands.sweep.run import TRAIN, SweepRun
from titan_aioli.errors import UserError
from titan_aioli.files import write_json
from titan_aioli.laws.mixmin import Likelihoods, write_likelihoods
from titan_aioli.laws.table import write_table
from titan_aioli.methods.objective import Objective
from titan_aioli.methods.skill_it import skill_graph
from titan_aioli.proportions import normalize
from titan_aioli.runs.read import read_run


def sweep(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    output: Path,
    cover: int = 0,
    alpha: float = 1.0,
    seed: int = 0,
    single_groups: bool = False,
    grid: Path | None = None,
    freeze: tuple[tuple[str, float], ...] = (),
    for_tokens: float = 0.0,
    nproc_per_node: int = 1,
    module: str = TRAIN,
    executor: Literal["direct", "local", "slurm"] = "direct",
    parallel: int = 1,
    executor_options: tuple[str, ...] = (),
    loss: Literal["validation", "test"] = "validation",
    dry_run: bool = False,
    flags: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Train on many mixtures, one run each, and collect the table that `titan-aioli plan` reads.

    Every run is the config with method `static` and its own proportions; all else is the same. Killed and
    started again, the same command continues where it stopped (from a run's last checkpoint, if the config
    writes any). Further flags are those of training:

        titan-aioli sweep train_configs/debug_stratified.toml --output outputs/sweep --cover 12
            --nproc-per-node 2 --training.steps 120
        titan-aioli plan outputs/sweep/runs.csv --output plan.json

    Writes OUTPUT/runs.csv, and with --single-groups OUTPUT/graph.json for method skill_it and
    OUTPUT/likelihoods.json for `plan --law mixmin`. Where the config
    names targets, the losses are those of the targets, and the table says how much each counts.

    Args:
        config: TOML file, as for --job.config_file.
        output: folder of the plan (sweep.json), the runs and the table.
        cover: train on this many mixtures that cover the simplex evenly.
        alpha: of the cover's Dirichlet distribution: above 1 keeps away from the corners.
        seed: of the cover.
        single_groups: train on each group alone.
        grid: train on the mixtures of a CSV file with a column proportion.GROUP for each group.
        freeze: groups that keep these shares relative to each other in the cover, as NAME NUMBER ...: where
            only some groups changed since the last sweep, fewer runs determine the law of the others.
        for_tokens: tokens of the run that the sweep is for: a run of R' tokens then reads only the first
            R' / FOR_TOKENS of every group's documents, so that it repeats them as often as that run would.
        nproc_per_node: ranks of each run.
        module: what every rank executes, as `python -m` would; it takes the flags of titan_aioli.train, and
            trains what the config says. For a training loop of your own.
        executor: direct: one run after the other. local, slurm: as jobs of submitit (an extra: pip install
            submitit), on this machine or a cluster; a job that is interrupted is queued again and resumes.
        parallel: most runs at a time; not with direct.
        executor_options: parameters of submitit's executor, as NAME=VALUE, such as slurm_partition=gpu
            timeout_min=600 gpus_per_node=8.
        loss: the final losses that go into the table.
        dry_run: write the plan and the configs, and start nothing.
    """
    jobs = _jobs(executor, parallel, executor_options)
    settings = {"cover": cover, "alpha": alpha, "seed": seed, "single_groups": single_groups, "grid": grid}
    settings |= {"freeze": freeze} if freeze else {}
    planned, tables = plan_sweep(config, output, settings, nproc_per_node, flags, for_tokens, module, loss)
    settings |= {"for_tokens": for_tokens} if for_tokens else {}
    output.mkdir(parents=True, exist_ok=True)
    with locked(output) as lock:
        keep_plan(planned, config, settings)
        for run in planned.runs:
            run.write_config(tables, planned.groups)
        if dry_run:
            print(f"{len(planned.runs)} configs: {output}/*/config.toml; the first run is started with:")
            print(" ".join(planned.command(planned.runs[0])))
            return
        failures = train_all(planned, lock) if jobs is None else _train_as_jobs(planned, jobs, loss)
    print(collect(planned, loss))
    if failures:
        raise UserError(
            f"{len(failures)} of {len(planned.runs)} runs failed: {'; '.join(failures[:3])}: the same "
            "command tries them again"
        )


def _jobs(executor: str, parallel: int, options: Sequence[str]) -> Jobs | None:
    """How the runs are started as jobs; None: directly."""
    if parallel < 1:
        raise UserError(f"--parallel is {parallel}: at least 1")
    if executor == "direct":
        if parallel > 1 or options:
            raise UserError("--parallel and --executor-options need --executor local or slurm")
        return None
    chosen = parse_settings([f"{executor}.{option}" for option in options], [executor])
    return Jobs(executor, parallel, chosen.get(executor, {}))


def _train_as_jobs(planned: Sweep, jobs: Jobs, loss: str) -> list[str]:
    """As train_all; the table is written again whenever a run has finished."""
    done = sum(run.is_finished for run in planned.runs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        runs = progress.add_task(f"runs, {jobs.executor}", total=len(planned.runs), completed=done)

        def on_finished(run: SweepRun) -> None:
            progress.advance(runs)
            collect(planned, loss)

        return train_all_as_jobs(planned, jobs, on_finished)


def collect(planned: Sweep, loss: str) -> str:
    """Write runs.csv, and graph.json where every group was trained on alone; what was written, for people."""
    done = [run for run in planned.runs if run.is_finished]
    losses = {run.name: run.losses(loss) for run in done}
    sound = [run for run in done if np.isfinite(losses[run.name]).all()]
    if not sound:
        return "no run is finished: no table"
    shares = np.array([run.proportions for run in sound])
    table, first = planned.output / "runs.csv", read_run(sound[0].folder)
    best = min(sound, key=lambda run: first.objective.value(losses[run.name]))
    write_table(
        table,
        [run.name for run in sound],
        planned.groups,
        shares,
        np.array([losses[run.name] for run in sound]),
        first.targets,
        weights_of(first.objective, losses[best.name]) if first.targets else None,
        _epochs(sound),
    )
    what = "objective" if first.targets else f"mean {loss} loss"
    lines = [
        f"{table}: {len(sound)} of {len(planned.runs)} runs; the lowest {what} is "
        f"{first.objective.value(losses[best.name]):.4f} ({best.name})"
    ]
    if diverged := [run.name for run in done if run not in sound]:
        lines.append(f"left out, since their losses are not finite: {', '.join(diverged)}")
    singles = [run for run in sound if run.name.startswith("single-")]
    if len(singles) == len(planned.groups):
        graph = [skill_graph(run.start_losses(), run.losses("validation")) for run in singles]
        content = {"groups": planned.groups, "graph": np.array(graph)}
        content |= {"targets": first.targets} if first.targets else {}
        write_json(planned.output / "graph.json", content)
        lines.append(f"{planned.output / 'graph.json'}: for mixing.skill_it.graph")
        if (found := likelihoods_of(planned.groups, singles)) is not None:
            write_likelihoods(planned.output / "likelihoods.json", found)
            lines.append(f"{planned.output / 'likelihoods.json'}: for plan --law mixmin")
    return "\n".join(lines)


def likelihoods_of(groups: list[str], singles: Sequence[SweepRun]) -> Likelihoods | None:
    """What MixMin needs of the runs on single groups [G], in order; None where a run lacks it."""
    measured = [run.sequence_losses() for run in singles]
    if any(each is None for each in measured):
        return None
    by_run = [each for each in measured if each is not None]
    targets = list(by_run[0])
    sums = [-np.array([each[name]["loss_sum"] for each in by_run]).T for name in targets]
    return Likelihoods(groups, targets, sums, [np.array(by_run[0][name]["num_tokens"]) for name in targets])


def _epochs(runs: Sequence[SweepRun]) -> np.ndarray | None:
    """[N, G], how often each run read each group; None where a run does not say."""
    epochs = [(read_run(run.folder).results or {}).get("epochs") for run in runs]
    return None if any(each is None for each in epochs) else np.array(epochs, dtype=np.float64)


def weights_of(objective: Objective, losses: np.ndarray) -> np.ndarray:
    """[K], how much the loss of each target counts in a plan, sum 1; 0 for guards and watched targets.

    Args:
        objective: of the runs. `worst` counts as the mean: which target improves least is not known before.
        losses: [K], where the unit `relative` is taken: those of the best run.
    """
    return normalize(objective.gradient(losses), "the objective's weights")
