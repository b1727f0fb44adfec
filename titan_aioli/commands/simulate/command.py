"""`titan-aioli simulate`: methods in a synthetic world whose mixing law is known, in seconds."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from titan_aioli.commands.figures import check_suffix, draw_proportions, largest, save, subplots
from titan_aioli.commands.settings import parse_settings
from titan_aioli.commands.simulate.linear import LinearLaw, LinearWorld
from titan_aioli.commands.simulate.many_ranks import ranks_table
from titan_aioli.commands.simulate.many_worlds import Trial, judge
from titan_aioli.commands.simulate.many_worlds_report import draw_worlds, worlds_tables
from titan_aioli.commands.simulate.repetition import RepetitionWorld
from titan_aioli.commands.simulate.returns import ReturnsWorld
from titan_aioli.commands.simulate.run import Trace, evaluation_budget, method_for, simulate_run
from titan_aioli.commands.simulate.world import World

LawName = Literal[LinearLaw, "returns", "repetition"]
BUDGET_SEQUENCES = [16, 64, 256, 1024, 4096]
BUDGET_SWEEPS = [1, 2, 4, 8]
BUDGET_NOISE = 0.05
BUDGET_GROUPS = 5
ROWS_PER_RANK = 8


def simulate(
    methods: Annotated[tuple[str, ...], tyro.conf.Positional] = ("stratified", "aioli"),
    *,
    groups: int = 5,
    targets: int = 0,
    steps: int = 2000,
    law: LawName = "decaying",
    noise: float | None = None,
    seed: int = 0,
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    worlds: int = 0,
    jobs: int = 1,
    budget: bool = False,
    ranks: int = 0,
    output: Path = Path("simulate.png"),
) -> None:
    """Run methods in a world with a known mixing law: final losses, proportions, error of the mixing matrix.

        titan-aioli simulate aioli odm ado --groups 7 --law drifting --noise 0.01 --set aioli.eta=0.5
        titan-aioli simulate aioli_bayes aioli --law returns --worlds 1000 --groups 7 --targets 1 --steps 1000

    Args:
        methods: names of mixing methods.
        groups: number of groups; with the first three laws, every method but aioli and aioli_bayes takes
            10,000.
        targets: number of held-out sets that the mixture is for and that are no group. 0: the groups.
        steps: optimizer steps of each run.
        law: linear (LearnParams finds A exactly), decaying (what is left to learn shrinks), drifting (A
            changes over the run), returns (diminishing returns and a memory, as measured on small models) or
            repetition (groups of limited size, whose tokens are worth less each time they are read).
        noise: standard deviation of each loss that a method is shown, nats per token, 0 if left out; with law
            returns a factor on the noise of a small model with 16 sequences a step, 1 if left out.
        seed: of the world and the noise.
        settings: hyperparameters, as METHOD.NAME=VALUE.
        worlds: judge the methods in this many worlds with law returns: the share of the gap between
            stratified and the best static mixture that they close; their harm in a quarter as many of each
            of two kinds without a gap; and in a tenth as many, both at a quarter, half and twice the noise.
        jobs: processes for these worlds.
        budget: add a panel: error of Aioli's A against the number of held-out sequences.
        ranks: also plan the rows of this number of data-parallel ranks (for example 4096), 8 rows each, and
            check that none is drawn twice.
        output: the figure; the suffix chooses the format (.png, .pdf, .svg).
    """
    if not methods:
        raise ValueError("name at least one method")
    for option, value, least in (("worlds", worlds, 0), ("jobs", jobs, 1), ("ranks", ranks, 0)):
        if value < least:
            raise ValueError(f"--{option} is {value}: it must be at least {least}")
    check_suffix(output, "--output")
    chosen = parse_settings(settings, methods)
    if noise is None:
        noise = 1.0 if law == "returns" else 0.0
    if worlds:
        if law != "returns" or budget or ranks:
            raise ValueError("--worlds needs --law returns, and goes with neither --budget nor --ranks")
        _many_worlds(Trial(methods, chosen, groups, targets, steps, noise, seed), worlds, jobs, output)
        return
    world = _world(law, groups, targets, steps, noise, seed)
    traces = {name: simulate_run(method_for(name, world, chosen.get(name, {})), world) for name in methods}
    console = Console()
    console.print(result_table(traces, world))
    errors = (
        evaluation_budget(BUDGET_GROUPS, BUDGET_SEQUENCES, BUDGET_SWEEPS, BUDGET_NOISE) if budget else None
    )
    if errors is not None:
        console.print(budget_table(errors))
    if ranks > 0:
        console.print(ranks_table(traces, ranks, ROWS_PER_RANK, seed))
    draw(traces, world, errors, output)
    print(f"figure: {output}")


def _world(law: LawName, groups: int, targets: int, steps: int, noise: float, seed: int) -> World:
    if law == "returns":
        return ReturnsWorld(groups, steps, noise=noise, seed=seed, num_targets=targets)
    if law == "repetition":
        return RepetitionWorld(groups, steps, noise=noise, seed=seed, num_targets=targets)
    return LinearWorld(groups, steps, law, noise=noise, seed=seed, num_targets=targets)


def _many_worlds(trial: Trial, num_worlds: int, jobs: int, output: Path) -> None:
    """The methods in many worlds: tables and a figure."""
    outcomes = judge(trial, num_worlds, jobs)
    console = Console()
    for table in worlds_tables(trial, outcomes):
        console.print(table)
    draw_worlds(trial, outcomes, output)
    print(f"figure: {output}")


def result_table(traces: dict[str, Trace], world: World) -> Table:
    """Losses at the end of each run, and how wrong the last A was."""
    kind, aimed_at = "target" if world.num_targets else "group", world.aimed_at
    sizes = f"{world.num_groups} groups" + f", {world.num_targets} targets" * (world.num_targets > 0)
    table = Table(title=f"{sizes}, {world.num_steps} steps, {world.title}")
    table.add_column("method")
    for name in ("mean loss", f"best {kind}", f"worst {kind}", "largest share", "phases", "error of A"):
        table.add_column(name, justify="right")
    means = {name: trace.losses[-1, aimed_at].mean() for name, trace in traces.items()}
    for name, trace in traces.items():
        losses, mean = trace.losses[-1, aimed_at], f"{means[name]:.4f}"
        table.add_row(
            name,
            f"[bold]{mean}[/bold]" if means[name] == min(means.values()) else mean,
            f"{losses.min():.4f}",
            f"{losses.max():.4f}",
            f"{_own_proportions(trace)[-1].max():.4f}",
            str(len(trace.phases)),
            f"{trace.matrix_errors[-1][1]:.2g}" if trace.matrix_errors else "-",
        )
    return table


def budget_table(errors: np.ndarray) -> Table:
    """Error of Aioli's first A for each number of sweeps and held-out sequences."""
    table = Table(title=f"error of A, {BUDGET_GROUPS} groups, noise {BUDGET_NOISE:g} nats per sequence")
    table.add_column("num_sweeps", justify="right")
    for sequences in BUDGET_SEQUENCES:
        table.add_column(f"{sequences} sequences", justify="right")
    for sweeps, row in zip(BUDGET_SWEEPS, errors, strict=True):
        table.add_row(str(sweeps), *(f"{error:.3f}" for error in row))
    return table


def draw(traces: dict[str, Trace], world: World, errors: np.ndarray | None, output: Path) -> None:
    """Mean loss of all methods, the proportions of each, and error of A against evaluation budget."""
    count = 1 + len(traces) + (errors is not None)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, grid = subplots(rows, columns, (4.6 * columns, 3.6 * rows))
    axes = list(grid.flat)
    for name, trace in traces.items():
        means = trace.losses[:, world.aimed_at].mean(axis=1)
        axes[0].plot(trace.loss_steps, means, label=name, lw=1.5)
    over = "targets" if world.num_targets else "groups"
    axes[0].set(xlabel="step", ylabel="mean loss (nats per token)", title=f"mean over the {over}")
    axes[0].legend(frameon=False)
    for axis, (name, trace) in zip(axes[1:], traces.items(), strict=False):
        _draw_proportions(axis, name, trace)
    if errors is not None:
        _draw_budget(axes[1 + len(traces)], errors)
    for axis in axes[count:]:
        axis.axis("off")
    save(figure, output)


def _own_proportions(trace: Trace) -> np.ndarray:
    """What the run trained on, [P, G]; of a perturbed mixture, the proportions that it is around."""
    is_perturbed = np.array(trace.phases) == "learn_params"
    return np.where(is_perturbed[:, None], trace.centres[: len(is_perturbed)], trace.proportions)


def _draw_proportions(axis, name: str, trace: Trace) -> None:
    """A line for each group, or those of the largest."""
    mixtures = _own_proportions(trace)
    kept = np.flatnonzero(np.diff(trace.steps)) if trace.steps[-1] else np.array([0])
    shares = mixtures[kept]
    names = [f"group {group}" for group in range(shares.shape[1])]
    draw_proportions(axis, trace.steps[kept], trace.steps[-1], shares, names, largest(shares[-1]))
    axis.set(ylabel="proportion", title=name)
    if shares.shape[1] <= 8:
        axis.legend(frameon=False, fontsize=7)


def _draw_budget(axis, errors: np.ndarray) -> None:
    for sweeps, row in zip(BUDGET_SWEEPS, errors, strict=True):
        axis.loglog(BUDGET_SEQUENCES, row, marker="o", ms=3, label=f"num_sweeps {sweeps}")
    axis.set(
        xlabel="held-out sequences of each group",
        ylabel="error of A (relative)",
        title="Aioli: evaluation budget",
    )
    axis.legend(frameon=False, fontsize=8)
