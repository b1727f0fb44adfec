"""`titan-aioli tokenize`: killed at any moment and run again, it gives what it would have given."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.work_folder import WorkFolder
from titan_aioli.testing.text import numbered, save_jsonl, save_tokenizer, stores_in


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    return save_tokenizer(tmp_path / "tokenizer")


def test_finished_work_is_not_done_again(tmp_path, tokenizer, capsys):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(50))
    options = {"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out"}
    tokenize((docs,), **options)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/web").iterdir()}
    tokenize((docs,), **options)
    assert "made already" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out/web").iterdir()} == before
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["web", "web.done.json"]


def test_other_settings_or_inputs_start_over_only_by_name(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(200))
    options = {"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out"}
    tokenize((docs,), **options)
    with pytest.raises(ValueError, match=r"other --val-share \(0.02 there, 0.1 now\).*--restart"):
        tokenize((docs,), **options, val_share=0.1)
    save_jsonl(tmp_path / "docs.jsonl", numbered(201))
    with pytest.raises(ValueError, match="made with other inputs"):
        tokenize((docs,), **options)
    tokenize((docs,), **options, restart=True)
    counts = [
        open_store(tmp_path / f"out/web/{split}").num_documents for split in ("train", "validation", "test")
    ]
    assert sum(counts) == 201  # type: ignore[arg-type]


def test_two_runs_at_once_are_kept_apart(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(3))
    with (
        WorkFolder(tmp_path / "out", "web", {}).locked(),
        pytest.raises(ValueError, match="another run is at work"),
    ):
        tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out")


def test_files_of_others_are_never_replaced(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(5))
    (tmp_path / "out/web").mkdir(parents=True)
    (tmp_path / "out/web/notes.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(ValueError, match=r"out/web holds files of another origin"):
            tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out", restart=restart)
    assert [file.name for file in (tmp_path / "out").rglob("*")] == ["web", "notes.txt"]


def command(docs, tokenizer, output) -> list[str]:
    words = f"tokenize {docs} --group web --tokenizer {tokenizer} --output {output}"
    return [
        sys.executable,
        "-m",
        "titan_aioli.cli",
        *words.split(),
        "--shard-megabytes=0.002",
        "--processes=2",
    ]


def kill_when(words, moment) -> bool:
    """Start the command and SIGKILL it, alone, when `moment()`; whether it was still at work."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while process.poll() is None and not moment():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_killed_twice_and_run_again_gives_the_same_stores(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(2500))
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "whole", shard_megabytes=0.002)
    words = command(docs, tokenizer, tmp_path / "killed")
    for least in (2, 8):
        shards = tmp_path / "killed/web.partial"
        assert kill_when(
            words, lambda least=least, shards=shards: len(list(shards.glob("shard-*.npz"))) >= least
        )
        assert not (tmp_path / "killed/web").exists()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert stores_in(tmp_path / "killed") == stores_in(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path / "killed")) == ["web", "web.done.json"]


@pytest.mark.parametrize("held_out", [[], [{"text": "9 \u00e9"}]])
def test_killed_before_every_change_on_disk_it_continues(tmp_path, tokenizer, held_out):
    records = [{**record, "set": "ab"[index % 2]} for index, record in enumerate(numbered(60))]
    docs = save_jsonl(tmp_path / "docs.jsonl", records)
    script = Path(__file__).with_name("kill_everywhere.py")
    words = [sys.executable, str(script), docs, str(tokenizer), str(tmp_path / "runs")]
    words += [save_jsonl(tmp_path / "exam.jsonl", held_out)] if held_out else []
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


@pytest.mark.slow
def test_killed_at_ten_random_moments_gives_the_same_stores(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(20_000))
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "whole", shard_megabytes=0.002)
    words = command(docs, tokenizer, tmp_path / "killed")
    rng = random.Random(0)
    for _ in range(10):
        until = time.monotonic() + rng.uniform(0.3, 1.5)
        kill_when(words, lambda until=until: time.monotonic() >= until)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert stores_in(tmp_path / "killed") == stores_in(tmp_path / "whole")
