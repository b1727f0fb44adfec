"""What a sweep trains on: its mixtures, and the plan on disk that makes it safe to kill."""

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.commands.settings import numbers_in_order
from titan_aioli.commands.sweep.run import TRAIN, SweepRun
from titan_aioli.config import Evaluation
from titan_aioli.data.group import Group
from titan_aioli.errors import UserError
from titan_aioli.files import read_object, read_toml, to_plain, write_json
from titan_aioli.laws.cover import dirichlet_cover
from titan_aioli.laws.optimum import blocks
from titan_aioli.laws.table import read_mixtures

OWN_FLAGS = re.compile(
    r"--(job\.config|job\.dump|mixing\.(method|static|train_share|guards|when_used_up|groups\..*\.weight))"
)
"""Pattern of the training flags that a sweep sets itself."""


LARGEST_COVER = 1000
"""Largest number of mixtures of a cover; finding them takes 2 GB."""
FEW_DOCUMENTS = 20
"""Number of documents below which a group that --for-tokens made smaller is warned about."""


class Sweep(NamedTuple):
    """A planned sweep."""

    output: Path
    groups: list[str]
    runs: list[SweepRun]
    num_steps: int
    """Optimizer steps of each run."""
    nproc_per_node: int
    flags: Sequence[str]
    module: str = TRAIN
    """What every rank executes, as `python -m` would."""

    def command(self, run: SweepRun) -> list[str]:
        """The words that start a run, or resume it from its last checkpoint."""
        return run.command(self.nproc_per_node, self.flags, self.module)


def plan_sweep(
    config: Path,
    output: Path,
    settings: dict[str, Any],
    nproc_per_node: int,
    flags: Sequence[str],
    for_tokens: float = 0.0,
    module: str = TRAIN,
    loss: str = "validation",
) -> tuple[Sweep, dict[str, Any]]:
    """The runs to do, and the config's tables, after a check of everything that a run would refuse.

    Args:
        settings: which mixtures: cover, alpha, seed, single_groups, grid, freeze, as in `sweep`.
        for_tokens: of the run that the sweep is for. 0: groups are read whole.
        module: what every rank executes.
        loss: `validation` or `test`, the losses that go into the table.
    """
    for flag in flags:
        if OWN_FLAGS.match(flag):
            raise UserError(f"{flag}: a sweep sets it for each run: leave it out")
    if nproc_per_node < 1:
        raise UserError(f"--nproc-per-node is {nproc_per_node}: at least 1")
    static = ["--mixing.method", "static", "--mixing.static.by", "weight", "--mixing.static.plan", ""]
    from titan_aioli.hosts.installed import check_config  # torch

    words = ["--job.config_file", str(config), *flags, *static]
    checked = check_config(words, nproc_per_node)
    job, tables = checked.config, read_toml(config)
    if for_tokens:
        share = share_for(for_tokens, job.training.steps * checked.batch_size * job.training.seq_len)
        tables["mixing"]["train_share"] = share
        checked = check_config([*words, "--mixing.train_share", repr(share)], nproc_per_node)
        for line in groups_of_few_documents(checked.mixture.train):
            print(f"warning: {line}", file=sys.stderr)
    groups = list(job.mixing.groups)
    runs = [
        SweepRun(output / name, proportions.tolist()) for name, proportions in mixtures(groups, **settings)
    ]
    if not runs:
        raise UserError("no mixtures to train on: give --cover N, --single-groups or --grid FILE")
    _refuse_unmeasured(job.mixing.evaluation, loss, runs)
    return Sweep(output, groups, runs, job.training.steps, nproc_per_node, flags, module), tables


def _refuse_unmeasured(evaluation: Evaluation, loss: str, runs: Sequence[SweepRun]) -> None:
    """Refuse a sweep whose runs would leave out losses that it collects."""
    wanted = {"validation": "a run on one group alone"} if any(run.is_single for run in runs) else {}
    for split, by in {**wanted, loss: f"--loss {loss}"}.items():
        if not getattr(evaluation, split):
            raise UserError(
                f"{by} needs the {split} losses, which mixing.evaluation.{split} = false leaves out: set it "
                "to true"
            )


def share_for(for_tokens: float, run_tokens: int) -> float:
    """R' / R: the share of every group that runs of R' tokens read in place of one of R.

    Raises: UserError: the runs are longer than the one that they are for.
    """
    if not for_tokens >= run_tokens:
        raise UserError(
            f"--for-tokens is {for_tokens:g}, and a run of this sweep has {run_tokens:,} tokens: give the "
            "tokens of the longer run that the sweep is for"
        )
    return run_tokens / for_tokens


def groups_of_few_documents(groups: Sequence[Group]) -> Iterator[str]:
    """A line for each group of which only a few documents are left, so that a run sees little of it."""
    for group in groups:
        documents = [store.num_documents for store in group.stores if store.num_documents is not None]
        if documents and sum(documents) < FEW_DOCUMENTS:
            yield (
                f"with --for-tokens group {group.name} has {sum(documents)} documents ({group.num_tokens:,} "
                "tokens): what is learned of it depends on which they are: train longer runs, or judge its "
                "share with care"
            )


def mixtures(
    groups: Sequence[str],
    cover: int,
    alpha: float,
    seed: int,
    single_groups: bool,
    grid: Path | None,
    freeze: Sequence[tuple[str, float]] = (),
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and proportions [G] of every run."""
    num_groups = len(groups)
    parts: dict[str, np.ndarray] = {}
    if single_groups:
        parts["single"] = np.eye(num_groups)
    if cover:
        if not (np.isfinite(alpha) and alpha > 0):
            raise UserError(f"--alpha is {alpha}: it must be a positive number")
        if not 0 < cover <= LARGEST_COVER:
            raise UserError(
                f"--cover is {cover}: at least 1, at most {LARGEST_COVER:,} (memory grows with the square); "
                "give more with --grid FILE"
            )
        basis = _basis(groups, freeze)
        parts["cover"] = dirichlet_cover(basis.shape[1], cover, alpha, seed=seed) @ basis.T
    if grid is not None:
        parts["grid"] = read_mixtures(grid, groups)
    for part, rows in parts.items():
        for number, proportions in enumerate(rows):
            yield f"{part}-{number:03d}", proportions


def _basis(groups: Sequence[str], freeze: Sequence[tuple[str, float]]) -> np.ndarray:
    """[G, G'], how the frozen groups make one of the groups that a cover is of; see `blocks`."""
    if not freeze:
        return np.eye(len(groups))
    return blocks(numbers_in_order(freeze, groups, "freeze", "the config"), len(groups))


def keep_plan(planned: Sweep, config: Path, settings: dict[str, Any]) -> None:
    """Write sweep.json, or compare with the one that is there.

    Raises: UserError: the folder holds a sweep with other settings.
    """
    path = planned.output / "sweep.json"
    content = {
        **to_plain(settings),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
        "flags": list(planned.flags),
        "nproc_per_node": planned.nproc_per_node,
        "groups": planned.groups,
        "module": planned.module,
        "runs": [{"name": run.name, "proportions": run.proportions} for run in planned.runs],
    }
    if not path.is_file():
        write_json(path, content)
        return
    there = {"module": TRAIN, **read_object(path, "the plan of a sweep", {})}  # older ones name no module
    for name in content | there:  # settings such as for_tokens stand in one where they were given
        before, now = (plan.get(name, "none") for plan in (there, content))
        if before != now:
            shown = "" if name in ("config_sha256", "runs") else f" ({before} there, {now} now)"
            what = {"config_sha256": "config file", "runs": "list of mixtures"}.get(name, name)
            raise UserError(
                f"{path} is the plan of a sweep with another {what}{shown}: run with the same settings to "
                "continue, or choose another --output"
            )
