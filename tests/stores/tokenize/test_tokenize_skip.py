"""`titan-aioli tokenize --on-bad-line skip`: bad content is counted and named, all else is refused."""

import errno
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize import sources, tables
from titan_aioli.testing.text import TRAIN_ONLY, numbered, save_jsonl, save_tokenizer


@pytest.fixture
def options(tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    return {"tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1, **TRAIN_ONLY}


class Failing(io.RawIOBase):
    """A file of two lines, after which the disk fails."""

    def __init__(self):
        self.parts = [b'{"text": "one"}\n{"text": "two"}\n']

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.parts:
            raise OSError(errno.EIO, "Input/output error")
        part = self.parts.pop()
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_an_error_of_the_disk_is_no_bad_line(tmp_path, options, monkeypatch, name):
    (tmp_path / name).write_bytes(b'{"text": "one"}\n')
    good = save_jsonl(tmp_path / "good.jsonl", numbered(5))
    opened = sources.open_compressed
    monkeypatch.setattr(
        sources,
        "open_compressed",
        lambda path: io.BufferedReader(Failing()) if path.name == name else opened(path),
    )
    with pytest.raises(OSError, match=rf"{name}: cannot be read.*Input/output error"):
        tokenize((good, str(tmp_path / name)), group="web", on_bad_line="skip", **options)
    assert not (tmp_path / "out/web").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt"])
def test_a_file_that_is_gone_is_no_bad_line(tmp_path, name):
    kind = {"t": sources.JsonLines, "p": tables.Parquet}["p" if "parquet" in name else "t"]
    source = kind(tmp_path / name) if "txt" not in name else sources.TextFiles(((name, tmp_path / name),))
    with pytest.raises(OSError, match=r"cannot be read.*No such file"):
        list(source.records(["text"]))


def test_an_empty_parquet_file_is_bad_content(tmp_path, options, capsys):
    (tmp_path / "a.parquet").write_bytes(b"")
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "b.parquet")
    given = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    tokenize(given, group="web", on_bad_line="skip", **options)
    assert "a.parquet: not a whole Parquet file" in capsys.readouterr().out


def foreign_files(folder):
    """Files of other kinds than their names say."""
    folder.mkdir()
    (folder / "zeros.parquet").write_bytes(bytes(5000))
    (folder / "utf16.jsonl").write_bytes('{"text": "one"}\n'.encode("utf-16"))
    (folder / "binary.jsonl").write_bytes(bytes(range(256)) * 20)
    (folder / "pdf.json").write_bytes(b"%PDF-1.4 ...")
    return folder


@pytest.mark.parametrize("as_folder", [True, False])
def test_whole_files_of_other_kinds_are_bad_lines(tmp_path, options, capsys, as_folder):
    folder = foreign_files(tmp_path / "docs")
    save_jsonl(folder / "good.jsonl", numbered(5))
    given = (str(folder),) if as_folder else tuple(map(str, sorted(folder.iterdir())))
    with pytest.raises(ValueError, match=r"binary\.jsonl is a binary file"):
        tokenize(given, group="web", **options)
    tokenize(given, group="web", on_bad_line="skip", **options)
    shown = capsys.readouterr().out
    assert "bad lines (--on-bad-line skip): 4" in shown
    for name in ("zeros.parquet is a binary", "utf16.jsonl is not a text in UTF-8", "pdf.json is a PDF"):
        assert name in shown
    assert open_store(tmp_path / "out/web/train").num_documents == 5


def test_texts_of_other_kinds_are_bad_lines(tmp_path, options, capsys):
    (tmp_path / "docs").mkdir()
    for name, data in {"a.txt": b"one", "b.md": "two".encode("utf-16"), "c.txt": b"three"}.items():
        (tmp_path / "docs" / name).write_bytes(data)
    tokenize((str(tmp_path / "docs"),), group="web", on_bad_line="skip", **options)
    assert "b.md is not a text in UTF-8" in capsys.readouterr().out
    assert open_store(tmp_path / "out/web/train").num_documents == 2


def test_files_of_other_kinds_count_towards_the_limit(tmp_path, options):
    folder = foreign_files(tmp_path / "docs")
    with pytest.raises(ValueError, match="more than 3 bad lines"):
        tokenize((str(folder),), group="web", on_bad_line="skip", max_bad_lines=3, **options)


def test_where_everything_is_bad_the_first_places_are_named(tmp_path, options):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": 17}\n' * 5)
    with pytest.raises(ValueError, match=r"5 bad lines .*line 1: field 'text' is 17.*line 3: .*; \.\.\.$"):
        tokenize((str(tmp_path / "a.jsonl"),), group="web", on_bad_line="skip", **options)
    folder = foreign_files(tmp_path / "docs")
    with pytest.raises(ValueError, match=r"no document .* 4 bad lines .*binary\.jsonl is a binary file"):
        tokenize((str(folder),), group="web", on_bad_line="skip", **options)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"group": "web", "max_bad_lines": -1}, "--max-bad-lines is -1: it must be at least 0"),
        ({"group": "web", "group_name": ("a=b",)}, "--group-name a=b needs --group-by"),
        ({"group": "語" * 81}, "at most 240 bytes"),
        ({"group_by": "set"}, "line 1: field 'set' is .*at most 240 bytes"),
        ({"group_by": "half"}, "field 'half' is .*half of a character"),
    ],
)
@pytest.mark.parametrize("on_bad_line", ["refuse", "skip"])
def test_options_and_names_that_cannot_be_are_refused(tmp_path, options, more, words, on_bad_line):
    given = save_jsonl(tmp_path / "a.jsonl", [{"text": "one", "set": "語" * 90, "half": "\ud800"}])
    with pytest.raises(ValueError, match=words):
        tokenize((given,), on_bad_line=on_bad_line, **more, **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("more", [{"group": "語" * 80}, {"group_by": "set"}])
def test_the_longest_names_are_taken(tmp_path, options, more):
    given = save_jsonl(tmp_path / "a.jsonl", [{"text": "one", "set": "語" * 80}])
    tokenize((given,), **more, **options)
    assert open_store(tmp_path / "out" / ("語" * 80) / "train").num_tokens


def test_a_name_that_no_group_gets_is_warned_of(tmp_path, options, capsys):
    given = save_jsonl(tmp_path / "a.jsonl", [{"text": "one", "set": "en/web"}])
    for _ in range(2):  # also where the stores are made already
        tokenize((given,), group_by="set", group_name=("en/web=web", "en/wbe=code"), **options)
        shown = capsys.readouterr().out
        assert "warning: --group-name en/wbe=code: no document" in shown
        assert "en/web=web" not in shown


def test_other_settings_are_shown_as_they_are_given(tmp_path, options):
    given = save_jsonl(tmp_path / "a.jsonl", [{"text": "one", "set": "web"}])
    tokenize((given,), group_by="set", **options)
    with pytest.raises(ValueError, match=r"--group-name \(not given there, web=code now\)"):
        tokenize((given,), group_by="set", group_name=("web=code",), **options)


LINES = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl.gz", LINES, r"not compressed by gzip.* rename it without \.gz"),
        ("a.jsonl.zst", LINES, r"not compressed by zstd.* rename it without \.zst"),
        ("a.jsonl.bz2", LINES, r"not compressed by bz2.* rename it without \.bz2"),
        ("a.txt.gz", b"one", r"not compressed by gzip.* rename it without \.gz"),
        ("a.jsonl.zst", gzip.compress(LINES, mtime=0), r"but by gzip: rename it to end in \.gz"),
        ("a.jsonl.gz", b"\xfd7zXZ\x00rest", r"not compressed by gzip.*compressed by xz"),
    ],
)
def test_a_file_that_is_not_compressed_as_named_is_renamed(tmp_path, options, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        tokenize((str(tmp_path / name),), group="web", **options)
    assert "gzip -dc" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("count", [1, 100, 4096, 10_000])
@pytest.mark.parametrize("first", [b"", b'xt": "half"}\n', b"\n"])
def test_nul_bytes_at_the_start_are_one_bad_line(tmp_path, options, capsys, name, count, first):
    data = bytes(count) + first + LINES * 2
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    for number, given in enumerate((tmp_path / "docs" / name, tmp_path / "docs")):
        if name == "a.json" and number and first:
            continue  # in a folder the first line says whether a .json file holds lines
        with pytest.raises(ValueError, match=r"line 1: not JSON: it contains NUL bytes"):
            tokenize((str(given),), group=f"web{number}", **options)
        tokenize((str(given),), group=f"web{number}", on_bad_line="skip", **options)
        assert "bad lines (--on-bad-line skip): 1" in capsys.readouterr().out
        assert open_store(tmp_path / f"out/web{number}/train").num_documents == (4 if first else 3)


@pytest.mark.parametrize("data", [bytes(10_000), bytes(10) + b"\x01abc\0\0", bytes(5000) + b"\x01ab\0"])
def test_a_binary_file_that_begins_with_nul_bytes_stays_one(tmp_path, options, data):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match="is a binary file"):
        tokenize((str(tmp_path / "a.jsonl"),), group="web", **options)
