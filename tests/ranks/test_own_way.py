"""torchtitan 0.3's own way to name a run: `--module` and `--config`, with our tables in a TOML file."""

import re

import pytest

from titan_aioli.hosts.installed import VERSION
from titan_aioli.testing.forked import fork_ranks
from titan_aioli.testing.torchrun import TINY, files

pytestmark = pytest.mark.skipif(VERSION < (0, 3), reason="torchtitan 0.2 has no --module and --config")

NOT_OURS = ("[job]", "[model]", "[optimizer]", "[activation_checkpoint]")
"""Tables of the tiny run that torchtitan's config function decides instead."""


def tables(path):
    """A TOML file with the tiny run's other tables."""
    parts = re.split(r"\n(?=\[)", TINY.read_text())
    path.write_text("\n".join(part for part in parts if not part.startswith(NOT_OURS)))
    return path


def test_a_run_of_torchtitans_config_function_is_that_of_the_same_settings(tmp_path, stores):
    """Killed inside LearnParams and resumed, it leaves the bytes of a run by TOML that was never stopped."""
    config, module = tables(tmp_path / "mixing.toml"), "tests.ranks.trainers.killing"
    common = ["--mixing.stores", stores, "--training.steps", "12"]
    own = ["--module", "llama3", "--config", "llama3_debugmodel", "--dump_folder", tmp_path / "own", *common]
    settings = ["--model.flavor", "debugmodel", "--job.dump_folder", tmp_path / "settings", *common]
    assert fork_ranks(2, *own, module=module, config=config, KILL_AT="5").returncode != 0
    for words in (own, settings):
        done = fork_ranks(2, *words, module=module, config=config)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert files(tmp_path / "own") == files(tmp_path / "settings")
