"""What the tests of several commands start from."""

import sys

import pytest

from titan_aioli.commands.sweep.run import SweepRun


@pytest.fixture
def toy_runs(monkeypatch):
    """Runs of a sweep are toy runs (toy_run.py) instead of training."""

    def toy_command(run, nproc_per_node, flags):
        return [sys.executable, "-m", "tests.commands.toy_run", str(run.folder / "config.toml")]

    monkeypatch.setattr(SweepRun, "command", toy_command)
