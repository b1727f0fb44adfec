"""`titan-aioli tokenize --on-bad-line skip`: bad content is counted and named, all else is refused."""

import errno
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.tokenize import sources
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
    with pytest.raises(ValueError, match=rf"{name}: cannot be read.*Input/output error"):
        tokenize((good, str(tmp_path / name)), group="web", on_bad_line="skip", **options)
    assert not (tmp_path / "out/web").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt"])
def test_a_file_that_is_gone_is_no_bad_line(tmp_path, name):
    kind = {"t": sources.JsonLines, "p": sources.Parquet}["p" if "parquet" in name else "t"]
    source = kind(tmp_path / name) if "txt" not in name else sources.TextFiles(((name, tmp_path / name),))
    with pytest.raises(ValueError, match=r"cannot be read.*No such file"):
        list(source.records(["text"]))


def test_an_empty_parquet_file_is_bad_content(tmp_path, options, capsys):
    (tmp_path / "a.parquet").write_bytes(b"")
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "b.parquet")
    given = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    tokenize(given, group="web", on_bad_line="skip", **options)
    assert "a.parquet: not a whole Parquet file" in capsys.readouterr().out
