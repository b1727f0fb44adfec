"""From a table of runs to a plan file: what is read, what is decided, what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.plan import plan
from titan_aioli.laws import LogLinearLaw, dirichlet_cover, optimal_mixture
from titan_aioli.laws.mixmin import Likelihoods, write_likelihoods
from titan_aioli.laws.plan import make_plan
from titan_aioli.laws.table import read_mixtures, read_table
from titan_aioli.runs.plan_file import read_plan

LAW = LogLinearLaw(b=np.array([2.0, 1.0]), theta=np.array([[-1.0, 1.0], [0.5, -0.5]]))


@pytest.fixture
def runs(tmp_path):
    """Six runs on the groups web and code, whose losses follow LAW exactly."""
    P = dirichlet_cover(2, 6)
    L = LAW.predict(P)
    lines = ["run,proportion.web,proportion.code,loss.web,loss.code"]
    lines += [
        ",".join(map(repr, [f"run{n}", *p.tolist(), *y.tolist()]))
        for n, (p, y) in enumerate(zip(P, L, strict=True))
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_plan_is_not_written_over_its_table(runs, monkeypatch):
    before = runs.read_bytes()
    monkeypatch.chdir(runs.parent)
    with pytest.raises(ValueError, match="is the table of runs itself"):
        plan(runs, output=Path(runs.name))
    assert runs.read_bytes() == before


def test_table_is_read_by_its_column_names(runs):
    table = read_table(runs)
    assert table.groups == table.evaluated == ["web", "code"]
    np.testing.assert_allclose(LAW.predict(table.proportions), table.losses, atol=1e-12)
    assert table.digest == hashlib.sha256(runs.read_bytes()).hexdigest()


def test_plan_is_the_optimum_of_the_law_and_says_how_well_it_fits(runs, tmp_path):
    output = tmp_path / "deep" / "plan.json"
    plan(runs, output=output)
    content = json.loads(output.read_text())
    expected = optimal_mixture(LAW, 2)
    np.testing.assert_allclose(content["proportions"], expected, atol=1e-5)
    np.testing.assert_allclose(content["predicted_losses"], LAW.predict(expected), atol=1e-5)
    np.testing.assert_allclose(content["fit"]["r2"], [1, 1], atol=1e-9)
    assert max(content["fit"]["held_out_mse"]) < 1e-9
    assert content["law"] == "log_linear" and content["groups"] == ["web", "code"]
    assert content["table_sha256"] == hashlib.sha256(runs.read_bytes()).hexdigest()
    assert [path.name for path in output.parent.iterdir()] == ["plan.json"]


def test_the_command_takes_its_numbers_by_group_name(runs, tmp_path, capsys):
    output = tmp_path / "plan.json"
    main([*f"plan {runs} --output {output} --anchor code 3 web 1 --anchor-strength 1e6".split()])
    np.testing.assert_allclose(read_plan(output, ["web", "code"]), [0.25, 0.75], atol=1e-3)
    assert "proportions" in capsys.readouterr().out


def test_caps_from_tokens_bound_the_plan(runs, tmp_path):
    free, output = optimal_mixture(LAW, 2), tmp_path / "plan.json"
    # 100 tokens of web for a run of 1000: at most 40 % in 4 epochs
    plan(runs, output=output, group_tokens=(("web", 100), ("code", 900)), training_tokens=1000)
    assert free[0] > 0.4 and read_plan(output, ["web", "code"])[0] == pytest.approx(0.4)


def test_grid_search_takes_the_best_run(runs):
    table = read_table(runs)
    best = int(table.losses.mean(axis=1).argmin())
    made = make_plan(table, "grid_search")
    np.testing.assert_array_equal(made.proportions, table.proportions[best])
    np.testing.assert_array_equal(made.predicted_losses, table.losses[best])
    only_code = make_plan(table, "grid_search", weights=np.array([0.0, 1.0]))
    assert only_code.proportions[1] == table.proportions[:, 1].max()


def test_grid_search_takes_the_best_run_within_the_caps(runs, tmp_path):
    table, output = read_table(runs), tmp_path / "plan.json"
    assert table.proportions[table.losses.mean(axis=1).argmin(), 0] > 0.4
    sizes = {"group_tokens": (("web", 100.0), ("code", 900.0)), "training_tokens": 1000.0}
    plan(runs, output=output, law="grid_search", **sizes)  # at most 40 % of web
    within = table.proportions[:, 0] <= 0.4
    expected = table.proportions[within][table.losses[within].mean(axis=1).argmin()]
    np.testing.assert_array_equal(read_plan(output, ["web", "code"]), expected)
    with pytest.raises(
        ValueError, match=r"each of the 6 runs has a share above its cap \(web 0.001, code 0.009\)"
    ):
        plan(runs, output=output, law="grid_search", max_epochs=0.01, **sizes)


def test_a_share_at_its_cap_is_within_it(runs):
    table = read_table(runs)
    best = int(table.losses.mean(axis=1).argmin())
    caps = np.nextafter(table.proportions[best], 0)  # a cap is computed, and a rounding error is no excess
    np.testing.assert_array_equal(
        make_plan(table, "grid_search", caps=caps).proportions, table.proportions[best]
    )


@pytest.mark.parametrize("law", ["grid_search", "mixmin"])
@pytest.mark.parametrize(
    "option",
    [
        "--anchor web 1",
        "--anchor-strength 1",
        "--tau 5",
        "--freeze web 1",
        "--huber-delta 0.1",
        "--verify",
        "--figure plan.png",
    ],
)
def test_options_of_a_law_are_refused_where_there_is_none(runs, tmp_path, capsys, law, option):
    output = tmp_path / "plan.json"
    with pytest.raises(SystemExit):
        main(f"plan {runs} --output {output} --law {law} {option}".split())
    assert f"--law {law} fits no law: leave out {option.split()[0]}, or choose" in capsys.readouterr().err
    assert not output.exists()


def test_losses_that_mixmin_cannot_predict_are_a_dash(runs, tmp_path, capsys):
    """Of four sequences none is held out; of five one is."""
    values = [np.full((4, 2), -8.0), np.full((5, 2), -8.0)]
    likelihoods = Likelihoods(["web", "code"], ["web", "code"], values, [np.full(4, 4.0), np.full(5, 4.0)])
    write_likelihoods(tmp_path / "likelihoods.json", likelihoods)
    plan(runs, output=tmp_path / "plan.json", law="mixmin")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.count("│") == 7]
    assert [(row[1], row[3]) for row in rows] == [("web", "-"), ("code", "2.0000")]


@pytest.fixture
def weighted(runs):
    """The table above, of which only the loss of code counts."""
    header, *lines = runs.read_text().splitlines()
    header += ",objective_weight.code,objective_weight.web"
    runs.write_text("\n".join([header, *(f"{line},1.0,0.0" for line in lines)]) + "\n")
    return runs


@pytest.mark.parametrize("law", ["log_linear", "grid_search"])
def test_the_tables_own_weights_decide_unless_others_are_given(weighted, tmp_path, capsys, law):
    outputs = [tmp_path / f"{name}.json" for name in ("own", "given", "equal")]
    plan(weighted, output=outputs[0], law=law)
    assert "counts" in capsys.readouterr().out
    plan(weighted, output=outputs[1], law=law, weights=(("code", 1.0),))
    plan(weighted, output=outputs[2], law=law, weights=(("code", 1.0), ("web", 1.0)))
    own, given, equal = (json.loads(path.read_text()) for path in outputs)
    assert own == given and own["settings"]["weights"] == [0.0, 1.0]
    assert own["proportions"] != equal["proportions"]
    assert own["predicted_losses"][1] < equal["predicted_losses"][1]


OBJECTIVES = "proportion.a,proportion.b,loss.c,loss.d,objective_weight.c"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{OBJECTIVES}\n0.5,0.5,3,3,1\n", r"objective_weight\.NAME for \['c'\] and loss\.NAME for"),
        (f"{OBJECTIVES},objective_weight.d\n0.5,0.5,3,3,1,1\n1,0,3,3,1,2\n", "line 3: .* one objective"),
        (f"{OBJECTIVES},objective_weight.d\n0.5,0.5,3,3,0,0\n", "one of them above 0"),
        (f"{OBJECTIVES},objective_weight.d\n0.5,0.5,3,3,2,-1\n", "at least 0"),
        (f"{OBJECTIVES},objective_weight.d\n0.5,0.5,3,3,2,\n", "line 2: objective_weight.d is ''"),
    ],
)
def test_weights_of_no_objective_are_refused(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("loss.a\n3\n", r"no column proportion\.GROUP"),
        ("proportion.a,proportion.b,loss.a\n", "no runs"),
        ("proportion.a,proportion.b,loss.a\n0.5,0.5,3\n0.5,0.6,3\n", "line 3: the proportions .* sum to 1.1"),
        ("proportion.a,proportion.b,loss.a\n1.5,-0.5,3\n", "line 2: the proportions"),
        ("proportion.a,proportion.b,loss.a\n0.5,0.5,x\n", "line 2: loss.a is 'x', not a number"),
        ("proportion.a,proportion.b,loss.a\n0.5,0.5,nan\n", "leave out runs that did not finish"),
        ("proportion.a,proportion.b,loss.a\n0.5,0.5\n", "line 2: loss.a is None"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08 is compressed", b"proportion.a,loss.a\n1," + b"9" * 200_000 + b"\n"]
)
def test_a_file_that_is_no_csv_is_named(tmp_path, content):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is not a table in CSV and UTF-8 \("):
        read_table(path)
    with pytest.raises(ValueError, match=rf"{path} is not a table in CSV and UTF-8 \("):
        read_mixtures(path, ["a"])


def test_options_that_name_other_groups_are_refused(runs, tmp_path):
    output = tmp_path / "plan.json"
    with pytest.raises(ValueError, match="--anchor names 'math'; the table has the groups web, code"):
        plan(runs, output=output, anchor=(("math", 1.0),))
    with pytest.raises(ValueError, match="--group-tokens leaves out code"):
        plan(runs, output=output, group_tokens=(("web", 1.0),), training_tokens=10)
    assert not output.exists()


def test_a_bound_on_repetition_without_sizes_is_refused(runs, tmp_path):
    output, tokens = tmp_path / "plan.json", (("web", 1.0), ("code", 1.0))
    with pytest.raises(ValueError, match="--max-epochs needs the tokens of the groups and of the run"):
        plan(runs, output=output, max_epochs=2.0)
    with pytest.raises(ValueError, match="--training-tokens bounds nothing without --group-tokens"):
        plan(runs, output=output, training_tokens=10.0)
    with pytest.raises(ValueError, match="--group-tokens needs --training-tokens"):
        plan(runs, output=output, group_tokens=tokens)
    assert not output.exists()


def test_max_epochs_of_inf_bounds_nothing(runs, tmp_path):
    output, tokens = tmp_path / "plan.json", (("web", 1.0), ("code", 1.0))
    plan(runs, output=output, group_tokens=tokens, training_tokens=1000.0, max_epochs=float("inf"))
    np.testing.assert_allclose(read_plan(output, ["web", "code"]), optimal_mixture(LAW, 2), atol=1e-5)
