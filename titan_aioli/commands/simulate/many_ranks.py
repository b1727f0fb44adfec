"""Thousands of data-parallel ranks on a laptop: the rows that each would draw, checked without any of them.

The rows of a step follow from the proportions and the seed alone, so one process can plan them for all ranks,
as each rank would for itself, and see that none is drawn twice or left out.
"""

import time
from typing import NamedTuple

import numpy as np
from rich.table import Table

from titan_aioli.commands.simulate.run import Trace
from titan_aioli.data.schedule import Position, Schedule

SEQUENCES_PER_GROUP = 10**9
MAX_STEPS = 100
"""Number of steps planned for each method, from the start of its run."""


class RankCheck(NamedTuple):
    """What the ranks of one run would draw."""

    rows_per_step: int
    repeated: int
    """Rows that are drawn more than once."""
    drift: float
    """Largest difference of a group's rows to what was asked for so far."""
    ms_per_step: float
    """What planning a step costs each rank."""


def check_ranks(trace: Trace, num_ranks: int, rows_per_rank: int, seed: int) -> RankCheck:
    """Plan the first steps of a simulated run for all ranks.

    Args:
        trace: of the run; its proportions are what the ledger would hold.
        num_ranks: data-parallel ranks.
        rows_per_rank: rows of one step on one rank.
        seed: of the orders.
    """
    num_groups, batch_size = trace.proportions.shape[1], num_ranks * rows_per_rank
    names = [str(group) for group in range(num_groups)]
    schedule = Schedule(names, [SEQUENCES_PER_GROUP] * num_groups, batch_size, seed)
    position, drawn, seconds = Position.start(num_groups), [], 0.0
    schedule.plan(position, trace.proportions[0], 1)  # not timed: the first call compiles
    asked, drift = np.zeros(num_groups), 0.0
    phases = zip(trace.proportions, np.diff(np.minimum(trace.steps, MAX_STEPS)), strict=True)
    for proportions, num_steps in phases:
        for _ in range(num_steps):
            start = time.perf_counter()
            block = schedule.plan(position, proportions, 1)
            seconds += time.perf_counter() - start
            position = block.position_after(0)
            # Rank r trains the rows from r * rows_per_rank on, as the loader cuts a step.
            of_ranks = (block.groups[0] * SEQUENCES_PER_GROUP + block.sequences[0]).reshape(num_ranks, -1)
            drawn.append(of_ranks.ravel())
            asked += proportions * batch_size
            drift = max(drift, float(np.abs(asked - position.drawn).max()))
    rows = np.concatenate(drawn)
    repeated = len(rows) - len(np.unique(rows))
    return RankCheck(batch_size, repeated, drift, 1e3 * seconds / len(drawn))


def ranks_table(traces: dict[str, Trace], num_ranks: int, rows_per_rank: int, seed: int) -> Table:
    """The checks of several methods, one per row."""
    table = Table(title=f"{num_ranks:,} ranks with {rows_per_rank} rows each, the first {MAX_STEPS} steps")
    table.add_column("method")
    for name in ("rows per step", "drawn twice", "largest drift (rows)", "ms to plan a step"):
        table.add_column(name, justify="right")
    for name, trace in traces.items():
        found = check_ranks(trace, num_ranks, rows_per_rank, seed)
        cells = [f"{found.rows_per_step:,}", str(found.repeated), f"{found.drift:.2f}"]
        table.add_row(name, *cells, f"{found.ms_per_step:.2f}")
    return table
