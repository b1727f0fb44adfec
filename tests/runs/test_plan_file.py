"""plan.json: one writer for planners and runs, read in the order of whoever trains on it."""

import json

import numpy as np
import pytest

from titan_aioli.runs.plan_file import read_plan, write_plan


def test_a_plan_is_read_in_the_order_of_the_run_and_only_for_its_groups(tmp_path):
    path = tmp_path / "deep" / "plan.json"
    write_plan(path, law="linear", groups=["web", "code"], proportions=np.array([0.25, 0.75]))
    np.testing.assert_array_equal(read_plan(path, ["code", "web"]), [0.75, 0.25])
    with pytest.raises(
        ValueError, match=r"a plan for the groups \['code', 'web'\], this run has \['math', 'web'\]"
    ):
        read_plan(path, ["web", "math"])


def test_what_is_no_plan_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    for content, message in (
        ("{}", "it has no 'groups'"),
        ('{"groups": ["web", 3], "proportions": [1, 0]}', "groups is .*: it must be a list of texts"),
        ('{"groups": ["web", "code"], "proportions": [1]}', "2 groups and 1 proportions"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"not a plan .*{message}"):
            read_plan(path, ["web", "code"])
    write_plan(path, law="linear", groups=["web", "code"], proportions=np.array([-1.0, 2.0]))
    with pytest.raises(ValueError, match="proportions"):
        read_plan(path, ["web", "code"])


def test_reasons_follow_the_mixture_and_nan_is_null(tmp_path):
    path = tmp_path / "plan.json"
    fit = {"r2": np.array([np.nan, 1.0])}
    write_plan(path, law="linear", groups=["a", "b"], proportions=np.array([0.5, 0.5]), fit=fit)
    content = json.loads(path.read_text())
    assert list(content) == ["law", "groups", "proportions", "fit"]
    assert content["fit"] == {"r2": [None, 1.0]}
