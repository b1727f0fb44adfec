"""A checkpoint's mixture part that is damaged, foreign or larger than it says: refused; nothing changes."""

import re

import pytest

from tests.bad_input.cases import CHECKPOINTS
from tests.bad_input.faults import message_of_ranks, saved
from tests.control.helpers import make_controller
from titan_aioli.errors import ResumeRefused
from titan_aioli.testing.forked import fork_ranks


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_is_damaged_is_refused_and_changes_nothing(name, tmp_path):
    message, damage = CHECKPOINTS[name]
    controller = make_controller(tmp_path)
    controller.begin()
    before, ledger = controller.digest(), controller.ledger_file.path.read_bytes()
    with pytest.raises(ResumeRefused, match=message):
        controller.load_state_dict({"controller": damage(saved(tmp_path))})
    assert (controller.digest(), controller.ledger_file.path.read_bytes()) == (before, ledger)


def test_a_damaged_checkpoint_ends_every_rank(tmp_path, stores):
    words = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, "--mixing.method", "stratified"]
    assert fork_ranks(2, *words, "--training.steps", "2").returncode == 0
    for part in (tmp_path / "checkpoint" / "step-2").glob("*.distcp"):
        part.write_bytes(part.read_bytes()[:100])
    done = fork_ranks(2, *words, "--training.steps", "4", timeout=60)
    wanted = "checkpoint in .* could not be written or read.*remove its folder"
    assert re.search(wanted, message_of_ranks(done))
