"""Ranks killed at random moments, again and again: the run has the bits of one never stopped."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.support.killing import Soak, train_and_kill
from titan_aioli.testing.torchrun import files

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parents[2] / "scripts"
KILLS = int(os.environ.get("KILLS", "12"))
STEPS_PER_KILL = 4


@pytest.mark.timeout(3600)
def test_every_random_kill_is_resumed_bit_for_bit(tmp_path):
    """KILLS=50 for the whole count, about 10 s each on two cores; KILLS_SEED repeats a seed."""
    seed = int(os.environ.get("KILLS_SEED", random.randrange(10**6)))
    print(f"KILLS_SEED={seed}")
    steps = 3 * STEPS_PER_KILL * KILLS
    results = {}
    for name, kills in (("whole", 0), ("killed", KILLS)):
        soak = Soak(tmp_path / name, steps)
        results[name] = train_and_kill(soak, kills, STEPS_PER_KILL, {2: 1.0}, random.Random(seed), fill=False)
    print(results)
    assert results["killed"]["kills"] == results["killed"]["resumed"] == KILLS
    assert files(tmp_path / "killed" / "run") == files(tmp_path / "whole" / "run")


@pytest.mark.timeout(1200)
def test_the_soak_loses_and_repeats_no_row(tmp_path):
    words = ["--steps", "60", "--kills", "4", "--folder", tmp_path / "soak", "--json", tmp_path / "soak.json"]
    subprocess.run([sys.executable, SCRIPTS / "soak.py", *map(str, words)], check=True)
    numbers = json.loads((tmp_path / "soak.json").read_text())
    assert (numbers["kills"], numbers["resumed"]) == (4, 4)
    assert numbers["rows"] == 60 * 8
    assert numbers["rows_lost"] == numbers["rows_repeated"] == numbers["rows_different"] == 0
