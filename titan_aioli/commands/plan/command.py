"""`titan-aioli plan`: from a table of finished runs to the mixture to train on next.

A plan is a small JSON file that method `static` trains on and Aioli can take as its prior. It says which law
it comes from, how well that law fits, and from which table it was made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console

from titan_aioli.commands.figures import check_suffix
from titan_aioli.commands.plan.tables import frontier_table, losses_table, proportions_table, verified_table
from titan_aioli.commands.plan.verify import TableSweep, sweep_of, verify_plan
from titan_aioli.commands.settings import numbers_in_order
from titan_aioli.laws import repetition_caps
from titan_aioli.laws.mixmin import plan_by_mixmin, read_likelihoods
from titan_aioli.laws.plan import FITS, LawName, Planned, plan_mixture
from titan_aioli.laws.table import RunTable, read_table
from titan_aioli.proportions import normalize
from titan_aioli.runs.plan_file import write_plan

Array = np.ndarray
PerGroup = tuple[tuple[str, float], ...]
MAX_EPOCHS = 4.0
"""How often a group may be repeated by default."""
SMALLEST_DELTA, LARGEST_DELTA = 1e-6, 1e3
"""Of --huber-delta, in nats: below, every residual counts linearly, and above none does."""


def plan(
    runs: Annotated[Path, tyro.conf.Positional],
    *,
    output: Path = Path("plan.json"),
    law: LawName | Literal["mixmin"] = "log_linear",
    weights: PerGroup = (),
    anchor: PerGroup = (),
    anchor_strength: float | None = None,
    for_config: Path | None = None,
    group_tokens: PerGroup = (),
    training_tokens: float | None = None,
    max_epochs: float | None = None,
    tau: float = 0.0,
    freeze: PerGroup = (),
    huber_delta: float = 0.0,
    verify: bool = False,
    figure: Path | None = None,
) -> None:
    """Fit a mixing law to a table of runs and write the mixture that it predicts to be best.

        titan-aioli plan outputs/sweep/runs.csv --law olmix --for-config big_run.toml --verify

    Args:
        runs: CSV with a column proportion.GROUP for each group trained on and loss.NAME for each group or
            target evaluated, which has a law of its own; objective_weight.NAME, where the sweep had targets;
            epochs.GROUP, which --tau needs.
        output: the plan, a JSON file.
        law: log_linear (b + exp(theta . p), needs one run more than groups), olmix (the same with b above 0,
            Huber residuals and 300 starts, needs 3 runs for each group and 3 more), linear (theta . p,
            needs as many runs as groups), grid_search (the run with the lowest mean loss, of those within
            max_epochs), or mixmin: the ensemble of the models of single groups that finds the targets most
            likely (likelihoods.json beside the table, of sweep --single-groups).
        weights: how much each evaluated group or target counts, as NAME NUMBER ...; if left out, as the table
            says (the objective of a sweep with targets: in its unit, 0 for guards and watched targets), or
            else all the same.
        anchor: a prior mixture, as NAME NUMBER ...; if left out, for olmix the groups' shares by tokens where
            those are known, or else uniform.
        anchor_strength: nats of loss given up per nat of KL divergence from the anchor; 0: none. Default:
            0.05 for olmix, 0 for the other laws.
        for_config: training config of the run that is planned, which says group_tokens and training_tokens.
        group_tokens: tokens that each group has, as NAME NUMBER ..., to bound repetition.
        training_tokens: tokens of the run that is planned; needed with group_tokens, and only there.
        max_epochs: how often a group may be repeated; needs the tokens of groups and run. inf: no bound.
            Default: 4.
        tau: fit to effective shares: tokens of a group that is read e times count as tau (1 - exp(-e / tau))
            of its size, 15 for example; needs the tokens of groups and run. 0: plain shares.
        freeze: groups that keep these shares relative to each other, as NAME NUMBER ...
        huber_delta: residuals above this many nats count linearly in the fit; 0: 0.02 for olmix, least
            squares for the other laws.
        verify: train on the plan, and on what other anchor strengths propose, as the sweep did that made the
            table (runs.csv in its folder), and compare with what the law predicted.
        figure: draw predicted against measured loss, for the runs of the table and the verified ones.
    """
    _check_finite(anchor_strength=anchor_strength, tau=tau)
    if huber_delta and not SMALLEST_DELTA <= huber_delta <= LARGEST_DELTA:
        raise ValueError(
            f"--huber-delta is {huber_delta}: from {SMALLEST_DELTA:g} to {LARGEST_DELTA:g} nats, or 0 for "
            "the law's default"
        )
    if law not in FITS:
        _refuse_without_law(
            law,
            anchor=anchor,
            anchor_strength=anchor_strength,
            tau=tau,
            freeze=freeze,
            huber_delta=huber_delta,
            verify=verify,
            figure=figure,
        )
    if figure is not None:
        check_suffix(figure, "--figure")
    if output.resolve() == runs.resolve():
        raise ValueError(
            f"--output {output} is the table of runs itself, which would be lost: name another file"
        )
    table = read_table(runs)
    sweep = sweep_of(runs, table) if verify else None
    sizes = _sizes(table, for_config, group_tokens, training_tokens)
    caps = _caps(sizes, max_epochs)
    counts = _shares(weights, table.evaluated, "weights") if weights else table.weights
    if law == "mixmin":
        planned = plan_by_mixmin(table, read_likelihoods(runs.with_name("likelihoods.json")), counts, caps)
    else:
        planned = plan_mixture(
            table,
            law,
            weights=counts,
            anchor=_anchor(table, law, anchor, sizes),
            anchor_strength=anchor_strength,
            caps=caps,
            huber_delta=huber_delta or None,
            frozen=_shares(freeze, table.groups, "freeze") if freeze else None,
            tau=tau or None,
            epochs_of_all=None if sizes is None else sizes.run_tokens / sizes.tokens,
        )
    _write(planned, table, sweep, output, figure)


def _write(
    planned: Planned, table: RunTable, sweep: TableSweep | None, output: Path, figure: Path | None
) -> None:
    """Write the plan, show it, and verify and draw it where that is asked for."""
    made, console, verified = planned.plan, Console(), []
    write_plan(output, **made.fields())
    console.print(proportions_table(made, table))
    console.print(losses_table(made, table))
    if made.frontier is not None:
        console.print(frontier_table(made))
    if sweep is not None:
        verified = verify_plan(sweep, planned, table.groups, output)
        fields: dict[str, Any] = {**made.fields(), "verified": [entry._asdict() for entry in verified]}
        write_plan(output, **fields)
        console.print(verified_table(made, verified))
    if figure is not None:
        from titan_aioli.commands.plan.figure import draw

        draw(planned, table, verified, figure)
        print(f"figure: {figure}")
    print(f"plan: {output}")


def _check_finite(**options: float | None) -> None:
    """Refuse an option that is nan, infinite or below 0."""
    for name, value in options.items():
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be finite and at least 0")


def _refuse_without_law(law: str, **options: Any) -> None:
    """The best run and MixMin fit no law: there is nothing to pull, to bend, or to compare with runs."""
    if given := [f"--{name.replace('_', '-')}" for name, value in options.items() if value]:
        raise ValueError(
            f"--law {law} fits no law: leave out {' and '.join(given)}, or choose {', '.join(FITS)}"
        )


class Sizes(NamedTuple):
    """What repetition depends on."""

    tokens: Array
    """[G], tokens of each group."""
    run_tokens: float
    """Tokens of the run that is planned."""


def _sizes(
    table: RunTable, for_config: Path | None, group_tokens: PerGroup, training_tokens: float | None
) -> Sizes | None:
    """The sizes, from the config of the planned run or as given; None where nothing was given."""
    if for_config is not None:
        if group_tokens or training_tokens is not None:
            raise ValueError("--for-config says the tokens: leave out --group-tokens and --training-tokens")
        return _sizes_of_config(table, for_config)
    if not group_tokens:
        if training_tokens is not None:
            raise ValueError(
                "--training-tokens bounds nothing without --group-tokens: give both, or --for-config"
            )
        return None
    if training_tokens is None:
        raise ValueError("--group-tokens needs --training-tokens: how long the planned run is")
    if not 0 < training_tokens < np.inf:
        raise ValueError(f"--training-tokens is {training_tokens}: it must be finite and above 0")
    if missing := set(table.groups) - {name for name, _ in group_tokens}:
        raise ValueError(f"--group-tokens leaves out {', '.join(sorted(missing))}: give every group's tokens")
    tokens = numbers_in_order(group_tokens, table.groups, "group-tokens", "the table")
    if (tokens <= 0).any():
        name = table.groups[int(np.argmin(tokens))]
        raise ValueError(f"--group-tokens gives {name} {tokens.min():g} tokens: it must be above 0")
    return Sizes(tokens, training_tokens)


def _sizes_of_config(table: RunTable, path: Path) -> Sizes:
    from titan_aioli.hosts.installed import check_config  # torch

    checked = check_config(["--job.config_file", str(path)], 0)
    tokens = {group.name: float(group.num_tokens) for group in checked.mixture.train}
    if set(tokens) != set(table.groups):
        raise ValueError(f"{path} has the groups {sorted(tokens)}, the table has {sorted(table.groups)}")
    training = checked.config.training
    run_tokens = training.steps * checked.batch_size * training.seq_len
    return Sizes(np.array([tokens[name] for name in table.groups]), run_tokens)


def _caps(sizes: Sizes | None, max_epochs: float | None) -> Array | None:
    """[G], the largest shares; None where nothing bounds them."""
    if sizes is None:
        if max_epochs is not None:
            raise ValueError(
                "--max-epochs needs the tokens of the groups and of the run: give --group-tokens and "
                "--training-tokens, or --for-config"
            )
        return None
    epochs = MAX_EPOCHS if max_epochs is None else max_epochs
    if not epochs > 0:
        raise ValueError(f"--max-epochs is {epochs}: it must be above 0 (inf: no bound)")
    return repetition_caps(sizes.tokens, sizes.run_tokens, epochs)


def _anchor(table: RunTable, law: str, anchor: PerGroup, sizes: Sizes | None) -> Array | None:
    """[G]; None: uniform."""
    if anchor:
        return _shares(anchor, table.groups, "anchor")
    return normalize(sizes.tokens, "--group-tokens") if law == "olmix" and sizes is not None else None


def _shares(pairs: PerGroup, groups: Sequence[str], option: str) -> Array:
    """Numbers given by name in the order of the groups, divided by their sum."""
    return normalize(numbers_in_order(pairs, groups, option, "the table"), f"--{option}")
