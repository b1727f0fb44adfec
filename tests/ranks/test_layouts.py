"""Every layout gives the per-group sums, gradients and proportions of one rank (scripts/layouts.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from titan_aioli.hosts.installed import VERSION

SCRIPT = Path(__file__).parents[2] / "scripts" / "layouts.py"
QUICK = ["pp2_interleaved", "cp2"]
LONG = [
    *("accumulation", "fsdp2", "fsdp2_accumulation", "hsdp2x2", "tp2", "fsdp2_tp2"),
    *(("tp2_no_loss_parallel",) if VERSION < (0, 3) else ()),
    *("pp2", "pp2_fsdp2", "pp2_tp2", "pp2_zbv", "pp2_dualpipev", "fsdp2_cp2"),
    *("fsdp2_ac_selective", "fsdp2_ac_full", "fsdp2_compile", "fsdp2_bf16"),
]


def differences(tmp_path, names, *options):
    """The script fails where group losses differ by more than the layout's tolerance, or ranks disagree."""
    found = ["--json", str(tmp_path / "found.json")]
    command = [sys.executable, str(SCRIPT), "--only", *names, *options, *found]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((tmp_path / "found.json").read_text())


def test_pipeline_and_context_parallel_equal_one_rank(tmp_path):
    for found in differences(tmp_path, QUICK).values():
        assert found["proportions"] < 1e-6 and found["grad_norm"] < 5e-4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_layout_equals_one_rank(tmp_path):
    found = differences(tmp_path, LONG)
    assert set(found) == set(LONG)
    for name, difference in found.items():
        if name != "fsdp2_bf16":
            assert difference["proportions"] < 1e-5, name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_that_share_experts_equal_one_rank(tmp_path):
    """The experts multiply in bfloat16."""
    model = ("--model", "deepseek_v3", "debugmodel", "--seq-len", "16", "--tolerance", "1e-4")
    assert differences(tmp_path, ["fsdp2_ep2"], *model)["fsdp2_ep2"]["proportions"] < 1e-5
