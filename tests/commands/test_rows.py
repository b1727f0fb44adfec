"""`titan-aioli rows`: what is shown of each row, and what is opened for it."""

import json

import pytest

from tests.runs.small_run import write_run
from titan_aioli.cli import main
from titan_aioli.commands import rows as command


def test_a_step_not_trained_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "aioli")
    with pytest.raises(SystemExit):
        main(["rows", str(run), "--step", "6"])
    assert "trained steps 0 to 5" in capsys.readouterr().err


def test_rows_of_stores_that_are_elsewhere_are_shown_without_text(tmp_path, capsys):
    main(["rows", str(write_run(tmp_path / "aioli")), "--step", "2"])
    shown = capsys.readouterr().out
    assert "rows of step 2; steps are counted from 0: the log's step 3" in " ".join(shown.split())
    assert "law" in shown and "not on" in shown


def test_stores_are_opened_once_per_call(tmp_path, stores, monkeypatch, capsys):
    run, opened = write_run(tmp_path / "aioli"), []
    mixture = json.loads((run / "mixture.json").read_text())
    mixture["stores"] = {"law": [f"{stores}/a/train"], "code": [f"{stores}/b/train"]}
    (run / "mixture.json").write_text(json.dumps(mixture))
    open_store = command.open_store
    monkeypatch.setenv("COLUMNS", "400")  # no path is cut
    monkeypatch.setattr(command, "open_store", lambda path: opened.append(path) or open_store(path))
    main(["rows", str(run), "--num-steps", "6"])
    assert sorted(opened) == [f"{stores}/a/train", f"{stores}/b/train"]
    assert "a/train" in "".join(capsys.readouterr().out.split())
