"""What the tests of several commands start from."""

import pytest

from tests.commands.toy_sweep import toy_command
from titan_aioli.commands.sweep.run import SweepRun


@pytest.fixture
def toy_runs(monkeypatch):
    """Runs of a sweep are toy runs (toy_run.py) instead of training."""
    monkeypatch.setattr(SweepRun, "command", toy_command)
