"""`titan-aioli rows`: what is shown of each row, and what is opened for it."""

import json

import numpy as np
import pytest

from tests.runs.small_run import write_run
from titan_aioli.cli import main
from titan_aioli.commands import rows as command
from titan_aioli.config import Group, Mixing
from titan_aioli.config.build import build_mixture, describe
from titan_aioli.files import write_json
from titan_aioli.hosts.build import build_loader
from titan_aioli.runs.audit import blocks
from titan_aioli.runs.read import read_run
from titan_aioli.testing.stores import VOCAB_SIZE
from titan_aioli.testing.text import save_tokenizer


def test_a_step_not_trained_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "aioli")
    with pytest.raises(SystemExit):
        main(["rows", str(run), "--step", "6"])
    assert "trained steps 0 to 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-steps", "-3"], "--num-steps is -3: it must be at least 1"),
        (["--num-steps", "0"], "--num-steps is 0: it must be at least 1"),
        (["--tokenizer", "nowhere"], "no tokenizer at nowhere"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        main(["rows", str(write_run(tmp_path / "aioli")), *flags])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"titan-aioli: error: {message}")


@pytest.mark.parametrize(
    ("step", "num_steps", "title"), [(5, 4, "step 5;"), (4, 4, "step 4 and 1 more;"), (3, 1, "step 3;")]
)
def test_the_title_counts_the_steps_that_are_shown(tmp_path, capsys, step, num_steps, title):
    run = write_run(tmp_path / "aioli")
    main(["rows", str(run), "--step", str(step), "--num-steps", str(num_steps)])
    assert f"aioli: rows of {title}" in " ".join(capsys.readouterr().out.split())


def run_on(stores, folder, **changed):
    """A run on two of the toy stores, which have 12,000 tokens each."""
    run = write_run(folder / "aioli")
    mixture = json.loads((run / "mixture.json").read_text())
    paths = {"law": [f"{stores}/a/train"], "code": [f"{stores}/b/train"]}
    write_json(run / "mixture.json", {**mixture, "stores": paths, "num_sequences": [2999, 2999], **changed})
    return run


@pytest.mark.parametrize(
    "changed", [{"num_sequences": [2999, 3000]}, {"fingerprints": {"law": ["x"], "code": ["y"]}}]
)
def test_a_store_that_was_replaced_since_the_run_is_not_shown(tmp_path, stores, monkeypatch, capsys, changed):
    monkeypatch.setenv("COLUMNS", "400")
    main(["rows", str(run_on(stores, tmp_path, **changed)), "--num-steps", "6"])
    shown = capsys.readouterr().out
    assert "(replaced since the run)" in shown and f"{stores}/b/train" not in shown


def test_the_tokenizer_may_be_given_as_its_folder(tmp_path, stores, monkeypatch, capsys):
    run = run_on(stores, tmp_path)
    words = ["<|endoftext|>", *(f"word{number}" for number in range(VOCAB_SIZE))]
    monkeypatch.setenv("COLUMNS", "400")
    main(["rows", str(run), "--tokenizer", str(save_tokenizer(tmp_path / "tokenizer", words))])
    assert "word" in capsys.readouterr().out


def test_rows_of_stores_that_are_elsewhere_are_shown_without_text(tmp_path, capsys):
    main(["rows", str(write_run(tmp_path / "aioli")), "--step", "2"])
    shown = capsys.readouterr().out
    assert "rows of step 2; steps are counted from 0: the log's step 3" in " ".join(shown.split())
    assert "law" in shown and "not on" in shown


def test_stores_are_opened_once_per_call(tmp_path, stores, monkeypatch, capsys):
    run, opened = run_on(stores, tmp_path), []
    open_store = command.open_store
    monkeypatch.setenv("COLUMNS", "400")  # no path is cut
    monkeypatch.setattr(command, "open_store", lambda path: opened.append(path) or open_store(path))
    main(["rows", str(run), "--num-steps", "6"])
    assert sorted(opened) == [f"{stores}/a/train", f"{stores}/b/train"]
    assert "a/train" in "".join(capsys.readouterr().out.split())


def test_arrays_are_cut_at_the_documents_at_which_the_run_cut_them(tmp_path):
    for name in ("long", "short"):
        lengths = [9, 9, 9, 1, 1] if name == "long" else [1, 9, 9, 9, 9]
        np.save(tmp_path / f"{name}.npy", np.concatenate([[5] * length + [0] for length in lengths]))
    paths = [str(tmp_path / "long.npy"), str(tmp_path / "short.npy")]
    table = Group(train=paths, split=[3, 1, 1], end_of_document=0)
    mixing = Mixing(groups={"law": table, "code": table})
    mixture = build_mixture(mixing, 4, None)
    loader = build_loader(mixing, mixture, tmp_path, batch_size=4, local_batch_size=4)
    run = write_run(tmp_path / "aioli")
    write_json(run / "mixture.json", describe(mixing, mixture, loader, 6))
    loaded, train = read_run(run), mixture.train[0]
    texts = command.Texts(loaded, None)
    for block in blocks(loaded, 0, 6):
        for place, sequence in enumerate(block.sequences[0]):
            store, number = train.locate(sequence)
            assert texts.cells(block, 0, place)[:2] == (store.path, str(number))


def test_rows_of_a_run_that_is_not_finished_are_those_of_its_audit(tmp_path, capsys):
    run = write_run(tmp_path / "aioli", results=False)
    with pytest.raises(SystemExit):
        main(["rows", str(run), "--step", "3"])
    assert "trained steps 0 to 1" in capsys.readouterr().err  # as far as the ledger knows
    (run / "rows.csv").write_text("row,step,group,epoch,sequence\n" + "15,3,law,0,0\n16,4,law,0,0\n")
    main(["rows", str(run), "--step", "3"])
    assert "rows of step 3" in " ".join(capsys.readouterr().out.split())
    (run / "ledger.jsonl").write_text((run / "ledger.jsonl").read_text().splitlines()[0] + "\n")
    for name in ("losses.jsonl", "rows.csv"):
        (run / name).unlink()
    with pytest.raises(SystemExit):
        main(["rows", str(run)])
    assert "has no rows yet" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["seed", "num_sequences", "seq_len", "stores"])
def test_what_a_mixture_lacks_is_named(tmp_path, stores, capsys, key):
    run = write_run(tmp_path / "aioli")
    mixture = json.loads((run / "mixture.json").read_text())
    mixture["stores"] = {"law": [f"{stores}/a/train"], "code": [f"{stores}/b/train"]}
    del mixture[key]
    (run / "mixture.json").write_text(json.dumps(mixture))
    with pytest.raises(SystemExit) as stopped:
        main(["rows", str(run)])
    assert stopped.value.code == 2
    assert f"mixture.json is not what a run writes: it has no {key!r}" in capsys.readouterr().err
