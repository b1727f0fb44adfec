"""States from checkpoints of other versions and settings."""

import numpy as np
import pytest

from titan_aioli.control.state import from_arrays, pack, to_arrays, unpack
from titan_aioli.errors import ResumeRefused
from titan_aioli.methods import build_method


def reloaded(state, template):
    return from_arrays(template, unpack(pack(to_arrays(state, "method_state"))), "method_state")


def test_pooled_evidence_that_older_versions_saved_without_pooling_is_left_out():
    method = build_method("aioli", 3)
    state = method.update(method.init(3), np.array([3.0, 2.0, 1.0]))
    old = state._replace(pooled=np.ones((6, 6)))
    loaded = reloaded(old, method.init(3))
    assert loaded.pooled.shape == (0, 0)
    np.testing.assert_array_equal(loaded.losses, state.losses)


def test_pooling_may_begin_at_a_resume_and_starts_with_no_evidence():
    saved = build_method("aioli", 3).init(3)
    loaded = reloaded(saved, build_method("aioli", 3, pooling=0.5).init(3))
    np.testing.assert_array_equal(loaded.pooled, np.zeros((6, 6)))


def test_another_shape_is_refused_by_name():
    with pytest.raises(
        ResumeRefused, match=r"method_state.losses is float64\[4\], this run needs float64\[3\]"
    ):
        reloaded(build_method("aioli", 4).init(4), build_method("aioli", 3).init(3))
