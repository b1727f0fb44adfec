"""`titan-aioli tokenize`: killed at any moment and run again, it gives what it would have given."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.errors import UserError
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


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_a_store_of_which_half_is_gone_is_made_again(tmp_path, tokenizer, suffix):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(50))
    options = {"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out"}
    tokenize((docs,), **options)
    whole = stores_in(tmp_path / "out")
    (tmp_path / f"out/web/train.{suffix}").unlink()
    tokenize((docs,), **options)
    assert stores_in(tmp_path / "out") == whole


def stop(*_):
    raise KeyboardInterrupt


KEPT = {
    "web.done.json": None,
    "web.partial/plan.json": "merge",
    "web.partial/source-00000.json": "merge",
    "web.partial/shard-00000-0000001.npz": "merge",
    "web.partial/merged.json": "publish",
}
"""Files that a run leaves, and where it must be stopped to leave them."""


@pytest.mark.parametrize("content", ["{", "[1]", "{}"])
@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_file_of_an_earlier_run_is_named_and_restart_starts_over(
    tmp_path, tokenizer, monkeypatch, name, content
):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(50))
    options = {"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1}
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        if KEPT[name]:
            patch.setattr(WorkFolder, KEPT[name], stop)
        tokenize((docs,), **options)
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} is damaged .*: remove it and run the same command again"):
        tokenize((docs,), **options)
    tokenize((docs,), **options, restart=True)
    tokenize((docs,), **{**options, "output": tmp_path / "whole"})
    assert stores_in(tmp_path / "out") == stores_in(tmp_path / "whole")


def test_a_damaged_record_of_many_groups_does_not_say_what_to_replace(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", [{**record, "set": "a"} for record in numbered(50)])
    options = {"group_by": "set", "tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1}
    tokenize((docs,), **options)
    (tmp_path / "out/by-set.done.json").write_text("{")
    with pytest.raises(UserError, match=r"by-set\.done\.json is damaged"):
        tokenize((docs,), **options, restart=True)


def test_two_runs_at_once_are_kept_apart(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(3))
    with (
        WorkFolder(tmp_path / "out", "web", {}).locked(),
        pytest.raises(ValueError, match="another run is at work"),
    ):
        tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out")


def test_nothing_in_the_work_folder_is_open_when_it_is_removed(tmp_path, tokenizer, monkeypatch):
    """NFS and FUSE keep an open file that is removed, under another name, so that the folder is not empty."""
    docs, partial, opened = save_jsonl(tmp_path / "docs.jsonl", numbered(3)), tmp_path / "out/web.partial", []
    rmdir = Path.rmdir

    def seen(folder):
        if folder == partial:
            found = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            opened.append([path for path in found if str(partial) in path])
        return rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", seen)
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path / "out")
    assert opened == [[]] and not partial.exists()
    with WorkFolder(tmp_path / "out", "web", {}).locked():
        (partial / "stores").mkdir()
    assert opened == [[], []] and not partial.exists()


def test_a_link_at_the_place_of_a_store_is_refused_before_anything_is_read(tmp_path, tokenizer):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/web").symlink_to(tmp_path / "elsewhere")
    docs = save_jsonl(tmp_path / "docs.jsonl", ["no record"])  # would be named if it were read
    with pytest.raises(ValueError, match="out/web is a link: a store is moved there as a whole"):
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
