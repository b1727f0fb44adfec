"""A checkpoint's mixture part that is damaged, foreign or larger than it says: refused, and nothing changes.

One case a line where it fits into 150 characters.
"""
# ruff: noqa: E501

import numpy as np
import pytest

from tests.bad_input.cases import changed, member, npy, packed, saved, without
from tests.control.test_controller import make_controller
from titan_aioli.errors import ResumeRefused

# fmt: off
CHECKPOINTS = {
    "not an archive": ("cannot be read", lambda arrays: b"cos\nsystem\n(S'true'\ntR."),
    "nothing": ("cannot be read", lambda arrays: b""),
    "cut short": ("cannot be read", lambda arrays: packed(arrays)[:-30]),
    "a bit flipped": ("cannot be read", lambda arrays: packed(arrays)[:200] + b"\xff" + packed(arrays)[201:]),
    "a compressed bomb": ("larger than its", lambda arrays: packed({"step": np.zeros(10**7)}, compressed=True)),
    "compressed": ("is compressed", lambda arrays: packed({"step": np.random.default_rng(0).bytes(99)}, compressed=True)),
    "an array said to be huge": ("says int64.*and has 8", member(npy(np.ones(1, int)).replace(b"(1,), }       ", b"(99999999,), }"))),
    "an array of objects": ("says object", member(npy(np.array([{}]), allow_pickle=True))),
    "a text": ("cannot be read", member("seven")),
    "no ledger": ("has no ledger.step", without("ledger.step")),
    "no method's state": (r"has no method_state.losses", without("method_state.losses")),
    "no groups": ("has no groups", without("groups")),
    "other groups": (r"written with groups \['x'\]", changed(groups=["x"])),
    "another method": ("written with method odm, this run has aioli", changed(method="odm")),
    "another shape": (r"method_state.losses is float64\[2\], this run needs float64\[3\]", changed(method_state__losses=[1.0, 2.0])),
    "words for numbers": ("method_state.round is", changed(method_state__round="two")),
    "shares that are nan": ("damaged.*shares that sum to 1", changed(method_state__proportions=[np.nan] * 3, method_state__stage=2)),
    "a ledger of no shares": ("damaged.*shares that sum to 1", changed(ledger__proportions=np.ones((2, 3)))),
    "a ledger of other lengths": ("damaged", changed(ledger__step=[0])),
    "a ledger that goes back": ("damaged", changed(ledger__step=[5, 0])),
    "a step below 0": ("damaged: a count is negative", changed(step=-1)),
    "many steps": ("damaged", changed(step=[1, 2])),
}
# fmt: on


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_is_damaged_is_refused_and_changes_nothing(name, tmp_path):
    message, damage = CHECKPOINTS[name]
    controller = make_controller(tmp_path)
    controller.begin()
    before, ledger = controller.digest(), controller.ledger_file.path.read_bytes()
    with pytest.raises(ResumeRefused, match=message):
        controller.load_state_dict({"controller": damage(saved(tmp_path))})
    assert (controller.digest(), controller.ledger_file.path.read_bytes()) == (before, ledger)
