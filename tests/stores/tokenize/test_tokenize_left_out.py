"""`titan-aioli tokenize`: what is left out is counted and named; groups are named in all sorts of ways."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.work_folder import WorkFolder
from titan_aioli.testing.text import TRAIN_ONLY, numbered, save_jsonl, save_tokenizer, stores_in


@pytest.fixture
def options(tmp_path):
    return {"tokenizer": save_tokenizer(tmp_path / "tokenizer"), "output": tmp_path / "out", **TRAIN_ONLY}


def put(path, *lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


GOOD = b'{"text": "one"}'
BAD = (
    b'{"text": "a',
    b'{"text": "\xff"}',
    b'["one"]',
    b'{"content": "one"}',
    b'{"text": 17}',
    GOOD + b"\0\0",
)


def test_null_and_empty_texts_are_counted(tmp_path, options, capsys):
    tokenize(
        (put(tmp_path / "a.jsonl", GOOD, b'{"text": null}', b'{"text": ""}', GOOD),), group="web", **options
    )
    assert open_store(tmp_path / "out/web/train").num_documents == 2
    assert "left out: empty texts: 2" in capsys.readouterr().out
    done = json.loads((tmp_path / "out/web.done.json").read_text())
    assert done["left_out"] == {"bad": 0, "empty": 2, "places": []}


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_lines_are_left_out_where_asked(tmp_path, options, capsys, processes):
    given = put(tmp_path / "a.jsonl", GOOD, *BAD, GOOD)
    tokenize((given,), group="web", on_bad_line="skip", processes=processes, **options)
    assert open_store(tmp_path / "out/web/train").num_documents == 2
    shown = capsys.readouterr().out
    assert "bad lines (--on-bad-line skip): 6" in shown
    assert all(f"a.jsonl, line {number}" in shown for number in range(2, 8))


def test_too_many_bad_lines_end_the_command_and_leave_nothing(tmp_path, options):
    inputs = (put(tmp_path / "a.jsonl", GOOD, *BAD[:3]), put(tmp_path / "b.jsonl", *BAD[3:], GOOD))
    with pytest.raises(ValueError, match=r"more than 4 bad lines .*b\.jsonl, line 2"):
        tokenize(inputs, group="web", on_bad_line="skip", max_bad_lines=4, **options)
    assert not (tmp_path / "out/web").exists()
    tokenize(inputs, group="web", on_bad_line="skip", max_bad_lines=6, **options)
    assert open_store(tmp_path / "out/web/train").num_documents == 2


def test_what_can_be_read_of_a_broken_file_is_kept(tmp_path, options, capsys):
    noise = np.random.default_rng(0).integers(0, 2**62, 60_000)
    text = "".join(json.dumps({"text": str(number)}) + "\n" for number in noise).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text)[:-1000])
    (tmp_path / "b.parquet").write_bytes(b"PAR1xx")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    inputs = tuple(str(tmp_path / name) for name in ("a.jsonl.gz", "b.parquet", "c.txt"))
    tokenize(inputs, group="web", on_bad_line="skip", **options)
    shown = capsys.readouterr().out
    assert all(
        name in shown
        for name in ("a.jsonl.gz: cannot be read", "b.parquet: not a whole", "c.txt: not a text")
    )
    assert 0 < open_store(tmp_path / "out/web/train").num_documents < 60_000


def test_a_resumed_command_counts_what_it_has_read_before(tmp_path, options, monkeypatch, capsys):
    inputs = (put(tmp_path / "a.jsonl", *BAD, GOOD), save_jsonl(tmp_path / "b.jsonl", numbered(50)))
    settings = {"group": "web", "on_bad_line": "skip", "processes": 1, **options}
    tokenize(inputs, **{**settings, "output": tmp_path / "whole"})
    end_source = WorkFolder.end_source

    def end_and_stop(self, source, *rest):
        end_source(self, source, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "end_source", end_and_stop)
        with pytest.raises(KeyboardInterrupt):
            tokenize(inputs, **settings)
    capsys.readouterr()
    tokenize(inputs, **settings)
    assert "bad lines (--on-bad-line skip): 6" in capsys.readouterr().out
    assert stores_in(tmp_path / "out") == stores_in(tmp_path / "whole")
    whole, resumed = (
        json.loads((tmp_path / name / "web.done.json").read_text()) for name in ("whole", "out")
    )
    assert whole["left_out"] == resumed["left_out"]


def groups_of(options):
    return {path.name for path in options["output"].iterdir() if path.is_dir()}


def test_numbers_are_names(tmp_path, options):
    tokenize(
        (put(tmp_path / "a.jsonl", b'{"text": "a", "set": 0}', b'{"text": "b", "set": 1}'),),
        group_by="set",
        **options,
    )
    assert groups_of(options) == {"0", "1"}


NUMBER_AND_TEXT = b'{"text": "a", "set": 0}', b'{"text": "b", "set": "0"}'


@pytest.mark.parametrize("lines", [NUMBER_AND_TEXT, NUMBER_AND_TEXT[::-1]])
@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("more", [{}, {"group_name": ("0=zero",)}, {"on_bad_line": "skip"}])
def test_a_number_and_a_text_do_not_become_one_group(tmp_path, options, lines, files, more):
    inputs = (put(tmp_path / "a.jsonl", *lines),)
    if files == 2:
        inputs = (put(tmp_path / "a.jsonl", lines[0]), put(tmp_path / "b.jsonl", lines[1]))
    with pytest.raises(ValueError, match=r"the (text|number) .*jsonl, line 1: .* the group '0'") as caught:
        tokenize(inputs, group_by="set", **more, **options)
    assert "the number 0" in str(caught.value) and 'the text "0"' in str(caught.value)


def test_a_number_and_a_text_do_not_become_one_group_after_a_kill(tmp_path, options, monkeypatch):
    inputs = tuple(put(tmp_path / f"{n}.jsonl", line) for n, line in enumerate(NUMBER_AND_TEXT))
    end_source = WorkFolder.end_source

    def end_and_stop(self, *rest):
        end_source(self, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "end_source", end_and_stop)
        with pytest.raises(KeyboardInterrupt):
            tokenize(inputs, group_by="set", processes=1, **options)
    with pytest.raises(ValueError, match="the group '0'"):
        tokenize(inputs, group_by="set", processes=1, **options)


def test_names_that_are_no_folder_get_another(tmp_path, options):
    given = put(tmp_path / "a.jsonl", b'{"text": "a", "set": "en/web"}', b'{"text": "b", "set": "v1.0"}')
    with pytest.raises(ValueError, match="--group-name en/web=web"):
        tokenize((given,), group_by="set", **options)
    tokenize((given,), group_by="set", group_name=("en/web=web",), **options)
    assert groups_of(options) == {"web", "v1.0"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("en/web",), "expected FOUND=NAME"),
        (("en/web=code",), "the name that --group-name gives to another group"),
        (("en/web=x", "code=x"), "gives two groups the name 'x'"),
        (("en/web=a/b",), "a group's name is a folder's"),
        (("en/web=web.partial",), "names that end so are those of the work on a group"),
    ],
)
def test_names_that_would_join_groups_are_refused(tmp_path, options, names, words):
    given = put(tmp_path / "a.jsonl", b'{"text": "a", "set": "en/web"}', b'{"text": "b", "set": "code"}')
    with pytest.raises(ValueError, match=words):
        tokenize((given,), group_by="set", group_name=names, **options)


@pytest.mark.parametrize(
    "meta",
    [
        ['{"set": "web"}', '{"set": "code"}'],
        pa.array([[("set", "web")], [("set", "code")]], pa.map_(pa.string(), pa.string())),
        [{"set": "web"}, {"set": "code"}],
        [{"set": b"web"}, {"set": b"code"}],
    ],
    ids=["JSON text", "map", "struct", "bytes"],
)
def test_groups_inside_of_a_column(tmp_path, options, meta):
    check_groups_inside(tmp_path, options, meta, "meta.set")


SET = pa.map_(pa.string(), pa.string())


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (['{"set": "web"}', '{"set": "code"}'], pa.string()),
        ([[("set", "web")], [("set", "code")]], SET),
        ([{"set": "web"}, {"set": "code"}], pa.struct({"set": pa.string()})),
        (['{"set": "web"}', '{"set": "code"}'], pa.dictionary(pa.int8(), pa.string())),
    ],
    ids=["JSON text", "map", "struct", "dictionary"],
)
@pytest.mark.parametrize("depth", [1, 2])
def test_groups_deep_inside_of_a_column(tmp_path, options, inner, kind, depth):
    column = pa.array(inner, kind)
    for name in ["m", "b"][:depth]:
        column = pa.StructArray.from_arrays([column, pa.array([1, 2])], names=[name, "other"])
    check_groups_inside(tmp_path, options, column, "meta.m.set" if depth == 1 else "meta.b.m.set")


def test_a_field_that_a_struct_lacks_is_named_with_those_it_has(tmp_path, options):
    pq.write_table(pa.table({"text": ["a"], "meta": [{"set": "web"}]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no field 'meta.kind'; found set"):
        tokenize((str(tmp_path / "a.parquet"),), group_by="meta.kind", **options)


def check_groups_inside(tmp_path, options, meta, field):
    pq.write_table(pa.table({"text": ["a", "b"], "meta": meta}), tmp_path / "a.parquet")
    tokenize((str(tmp_path / "a.parquet"),), group_by=field, **options)
    assert groups_of(options) == {"web", "code"}


def test_texts_may_be_bytes(tmp_path, options):
    pq.write_table(pa.table({"text": pa.array([b"one", "é".encode()], pa.binary())}), tmp_path / "a.parquet")
    tokenize((str(tmp_path / "a.parquet"),), group="web", **options)
    assert open_store(tmp_path / "out/web/train").metadata["text_bytes"] == 5


@pytest.mark.parametrize("kind", ["saved", "parquet", "hub"])
@pytest.mark.parametrize("field", ["label", "meta.label", "meta.inner.label"])
def test_class_labels_give_their_names(tmp_path, options, kind, field):
    import datasets

    feature, values = datasets.ClassLabel(names=["neg", "pos"]), [0, 1]
    root, *inside = field.split(".")
    for name in reversed(inside):
        feature, values = {name: feature}, [{name: value} for value in values]
    features = datasets.Features({"text": datasets.Value("string"), root: feature})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], root: values}, features=features)
    if kind == "saved":
        dataset.save_to_disk(str(tmp_path / "labelled"))
    else:
        (tmp_path / "hub").mkdir()
        dataset.to_parquet(str(tmp_path / "hub/labelled.parquet"))
    inputs = {"saved": "labelled", "parquet": "hub/labelled.parquet", "hub": "hub"}
    given = "hf:" * (kind == "hub") + str(tmp_path / inputs[kind])
    tokenize((given,), group_by=field, **options)
    assert groups_of(options) == {"neg", "pos"}


def test_a_console_that_cannot_show_a_name_does_not_fail_the_command(tmp_path, options):
    words = [
        "tokenize",
        put(tmp_path / "a.jsonl", GOOD),
        "--group",
        "日本語",
        "--tokenizer",
        options["tokenizer"],
    ]
    words += ["--output", options["output"], "--val-share", "0", "--test-share", "0", "--processes", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "titan_aioli.cli", *map(str, words)], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        b"\\u65e5" in done.stdout and np.prod(open_store(options["output"] / "日本語/train").num_tokens) > 0
    )


def test_a_group_is_never_lost_as_a_bad_line(tmp_path, options):
    given = put(tmp_path / "a.jsonl", b'{"text": "a", "set": "en/web"}', b'{"text": "b", "set": "code"}')
    with pytest.raises(ValueError, match="--group-name"):
        tokenize((given,), group_by="set", on_bad_line="skip", **options)


def test_bytes_of_a_table_that_are_no_text_are_named_by_row(tmp_path, options, capsys):
    bad = pa.array([b"one", b"\xff", b"two"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    given = (str(tmp_path / "a.parquet"),)
    with pytest.raises(ValueError, match="row 2: not a text in UTF-8"):
        tokenize(given, group="web", **options)
    tokenize(given, group="web", on_bad_line="skip", restart=True, **options)
    assert open_store(tmp_path / "out/web/train").num_documents == 2


def test_a_name_of_too_many_bytes_is_refused_at_once(tmp_path, options):
    given = put(
        tmp_path / "a.jsonl", json.dumps({"text": "a", "set": "日" * 90}, ensure_ascii=False).encode()
    )
    with pytest.raises(ValueError, match="240 bytes"):
        tokenize((given,), group_by="set", **options)


def test_an_error_of_the_disk_is_no_bad_line(tmp_path, options, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    given = put(tmp_path / "a.jsonl", GOOD)
    monkeypatch.setattr("titan_aioli.stores.tokenize.sources.open_compressed", fail)
    with pytest.raises(OSError, match=r"a\.jsonl: cannot be read: .*Input/output error"):
        tokenize((given,), group="web", on_bad_line="skip", **options)
