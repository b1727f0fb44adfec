"""The rows of thousands of ranks, planned by one process."""

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.simulate import many_ranks
from titan_aioli.commands.simulate.linear import LinearWorld
from titan_aioli.commands.simulate.many_ranks import check_ranks
from titan_aioli.commands.simulate.run import simulate_run
from titan_aioli.data.schedule import Schedule
from titan_aioli.methods import build_method


@pytest.fixture(scope="module")
def trace():
    method = build_method("aioli", 3, num_sweeps=1, steps_per_mixture=2, steps_per_round=20)
    return simulate_run(method, LinearWorld(3, 40, "linear"))


def test_4096_ranks_draw_every_row_once(trace):
    found = check_ranks(trace, num_ranks=4096, rows_per_rank=2, seed=0)
    assert found.rows_per_step == 8192
    assert found.repeated == 0 and found.drift < 2


def test_rows_drawn_twice_would_be_seen(trace, monkeypatch):
    """With a store of 5 sequences per group, 80 rows cannot all differ."""
    monkeypatch.setattr("titan_aioli.commands.simulate.many_ranks.SEQUENCES_PER_GROUP", 5)
    assert check_ranks(trace, num_ranks=2, rows_per_rank=1, seed=0).repeated == 40 * 2 - 3 * 5


def test_the_first_call_which_compiles_is_not_timed(trace, monkeypatch):
    now, seconds = [0.0], [100.0]

    class Compiled(Schedule):
        def plan(self, *arguments):
            now[0] += seconds.pop() if seconds else 0.25
            return super().plan(*arguments)

    monkeypatch.setattr(many_ranks, "Schedule", Compiled)
    monkeypatch.setattr(many_ranks.time, "perf_counter", lambda: now[0])
    assert check_ranks(trace, num_ranks=2, rows_per_rank=1, seed=0).ms_per_step == 250


def test_simulate_prints_the_ranks(tmp_path, capsys):
    flags = ["--groups", "3", "--steps", "50", "--ranks", "64", "--output", str(tmp_path / "s.png")]
    main(["simulate", "stratified", *flags])
    assert "64 ranks" in capsys.readouterr().out
    assert np.array((tmp_path / "s.png").stat().st_size) > 0
