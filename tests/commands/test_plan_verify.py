"""`titan-aioli plan` on the table of a sweep: the planned run, frozen groups, and plans trained on."""

import json

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.files import read_toml
from titan_aioli.laws.table import read_table
from titan_aioli.testing.torchrun import TINY


@pytest.fixture
def sweep(tmp_path, stores, toy_runs):
    """`titan-aioli sweep` with toy runs, whose losses are 2 - share of each group, into tmp_path/out."""
    words = ["sweep", str(TINY), "--output", str(tmp_path / "out"), "--mixing.stores", str(stores)]
    return lambda *arguments: main([*words, *arguments])


@pytest.fixture
def swept(sweep, tmp_path):
    """Path of the table of six toy runs."""
    sweep("--cover", "6")
    return tmp_path / "out" / "runs.csv"


def refused(words, capfd):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capfd.readouterr().err.splitlines()[-1].removeprefix("titan-aioli: error: ")


def test_the_plan_and_its_neighbors_are_trained_and_compared(swept, tmp_path, capfd):
    words = ["plan", str(swept), "--output", str(tmp_path / "p.json"), "--law", "linear", "--verify"]
    words += [
        "--weights",
        "a",
        "1",
        "b",
        "3",
        "--anchor-strength",
        "0.1",
        "--figure",
        str(tmp_path / "f.png"),
    ]
    main(words)
    content = json.loads((tmp_path / "p.json").read_text())
    verified = content["verified"]
    assert verified[0]["name"] == "plan" and len(verified) > 2
    for entry in verified:
        np.testing.assert_allclose(entry["measured"], 2.0 - np.array(entry["proportions"]))
        np.testing.assert_allclose(entry["predicted"], entry["measured"], atol=1e-9)
        objective = np.average(entry["measured"], weights=[1, 3, 0])
        assert entry["measured_objective"] == pytest.approx(objective)
    assert verified[0]["proportions"] == content["proportions"]
    assert (tmp_path / "f.png").stat().st_size > 1000
    assert "optimism" in capfd.readouterr().out
    main(words)  # finished runs stay
    assert (tmp_path / "p-verify" / "plan" / "starts").read_text() == "x"


def test_a_verified_plan_is_compared_with_what_the_table_holds(sweep, tmp_path):
    sweep("--cover", "6", "--loss", "test")
    output = tmp_path / "p.json"
    main(["plan", str(tmp_path / "out" / "runs.csv"), "--output", str(output), "--law", "linear", "--verify"])
    entry = json.loads(output.read_text())["verified"][0]
    np.testing.assert_allclose(entry["measured"], 3.0 - np.array(entry["proportions"]))


def test_a_failed_verification_is_named_and_tried_again(swept, tmp_path, capfd):
    output = tmp_path / "p.json"
    words = ["plan", str(swept), "--output", str(output), "--law", "linear", "--verify"]
    (tmp_path / "p-verify" / "plan").mkdir(parents=True)
    (tmp_path / "p-verify" / "plan" / "fail").touch()
    assert "plan: no token store at nowhere" in refused(words, capfd)
    assert "verified" not in json.loads(output.read_text())
    (tmp_path / "p-verify" / "plan" / "fail").unlink()
    main(words)
    assert json.loads(output.read_text())["verified"]


def test_what_cannot_be_verified_is_refused(swept, tmp_path, capfd):
    output = ["--output", str(tmp_path / "p.json"), "--verify"]
    moved = tmp_path / "moved.csv"
    moved.write_bytes(swept.read_bytes())
    assert f"there is no {tmp_path}/sweep.json" in refused(
        ["plan", str(moved), *output, "--law", "linear"], capfd
    )
    plan = swept.with_name("sweep.json")
    there = plan.read_text()
    for key, value, message in (
        ("runs", [{}], "runs is [{}]: it must be a list of tables"),
        ("flags", 3, "flags is 3"),
    ):
        plan.write_text(json.dumps({**json.loads(there), key: value}))
        refusal = refused(["plan", str(swept), *output, "--law", "linear"], capfd)
        assert f"sweep.json is not the plan of a sweep: {message}" in refusal
    plan.write_text(there)
    lines = swept.read_text().splitlines()
    swept.write_text("\n".join([lines[0], *(line.replace(",1.", ",9.") for line in lines[1:])]) + "\n")
    assert "no line of the table has the final losses" in refused(
        ["plan", str(swept), *output, "--law", "linear"], capfd
    )
    assert not (tmp_path / "p.json").exists()


def test_the_planned_run_says_tokens_natural_shares_and_caps(swept, tmp_path, stores, capfd):
    config = tmp_path / "big.toml"
    text = TINY.read_text().replace("[mixing]", f'[mixing]\nstores = "{stores}"')
    config.write_text(text.replace("steps = 20", "steps = 1000"))
    output = tmp_path / "p.json"
    flags = ["--output", str(output), "--law", "linear", "--for-config", str(config)]
    main(["plan", str(swept), *flags, "--weights", "a", "1"])
    content, cap = json.loads(output.read_text()), 4 * (40 * 300) / (1000 * 8 * 16)
    np.testing.assert_allclose(content["settings"]["caps"], [cap] * 3)
    assert content["proportions"][0] == pytest.approx(cap)
    assert "leave out --group-tokens" in refused(
        ["plan", str(swept), *flags, "--group-tokens", "a", "1"], capfd
    )


def test_olmix_pulls_to_the_shares_by_tokens(tmp_path):
    path = tmp_path / "runs.csv"
    P = np.random.default_rng(0).dirichlet([1, 1], 9)
    lines = [f"{p},{q},{2.0 + np.exp(-p)},{2.0 + np.exp(-q)}" for p, q in P.tolist()]
    path.write_text("\n".join(["proportion.web,proportion.code,loss.web,loss.code", *lines]) + "\n")
    output = tmp_path / "p.json"
    words = ["plan", str(path), "--output", str(output), "--law", "olmix", "--training-tokens", "1000"]
    main([*words, "--group-tokens", "web", "900", "code", "100", "--anchor-strength", "1e4"])
    np.testing.assert_allclose(json.loads(output.read_text())["proportions"], [0.9, 0.1], atol=1e-3)
    main([*words, "--group-tokens", "web", "900", "code", "50"])
    content = json.loads(output.read_text())
    assert content["settings"]["anchor_strength"] == 0.05
    assert content["proportions"][1] == pytest.approx(0.2)  # 4 x 50 / 1000
    assert content["frontier"]["strengths"] == [0, 0.02, 0.05, 0.1, 0.2]


def test_a_cover_with_frozen_groups_and_the_plan_of_it(sweep, tmp_path, capfd):
    sweep("--cover", "5", "--freeze", "a", "3", "c", "1")
    table = read_table(tmp_path / "out" / "runs.csv")
    np.testing.assert_allclose(table.proportions[:, 0], 3 * table.proportions[:, 2])
    assert np.ptp(table.proportions[:, 1]) > 0.3
    output = tmp_path / "p.json"
    words = [
        "plan",
        str(tmp_path / "out" / "runs.csv"),
        "--output",
        str(output),
        "--freeze",
        "a",
        "3",
        "c",
        "1",
    ]
    main([*words, "--law", "linear"])
    p = json.loads(output.read_text())["proportions"]
    assert p[0] == pytest.approx(3 * p[2])
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["freeze"] == [["a", 3.0], ["c", 1.0]]
    with pytest.raises(SystemExit):
        sweep("--cover", "5", "--freeze", "a", "3", "x", "1")
    assert "--freeze names 'x'; the config has the groups a, b, c" in capfd.readouterr().err


def test_a_sweep_for_a_longer_run_reads_less_of_every_group(sweep, tmp_path, capfd):
    """20 steps x 8 rows x 16 tokens = 2,560 tokens for a run of 5,120: half of the 40 documents each."""
    sweep("--cover", "2", "--dry-run", "--for-tokens", "5120")
    config = read_toml(tmp_path / "out" / "cover-000" / "config.toml")
    assert config["mixing"]["train_share"] == 0.5
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["for_tokens"] == 5120
    assert "warning" not in capfd.readouterr().err
    with pytest.raises(SystemExit):
        sweep("--cover", "2", "--dry-run", "--for-tokens", "10240")
    error = capfd.readouterr().err
    assert "with --for-tokens group a has 10 documents (3,000 tokens)" in error
    assert "another for_tokens (5120.0 there, 10240.0 now)" in error
    with pytest.raises(SystemExit):
        sweep("--cover", "2", "--for-tokens", "2000")
    assert "--for-tokens is 2000, and a run of this sweep has 2,560 tokens" in capfd.readouterr().err
