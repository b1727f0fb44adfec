"""Ways to break a config, a store, a corpus or a checkpoint, and to check the message about it.

A case of the catalogue (cases.py) makes its fault in a folder of its own and returns the words of the command
that meets it. `folder / "stores"` is a copy of three good groups.
"""

import io
import json
import re
import shutil
import struct
import zipfile

import numpy as np
import pytest

from tests.control.helpers import make_controller
from titan_aioli.cli import main
from titan_aioli.hosts.installed import launch
from titan_aioli.testing.text import save_jsonl, save_tokenizer
from titan_aioli.testing.torchrun import TINY, torchrun


class Case:
    """One fault: how to make it, and what the one line must say (a regular expression)."""

    def __init__(self, message, make):
        self.message, self.make = message, make

    def refusal(self, folder, stores, capfd):
        """Make the fault; the message, which is one line on the standard error besides warnings."""
        words = self.make(copy_stores(stores, folder))
        before = tree(folder)
        if words[0] == "--job.config_file":
            assert launch(None, words) == 2
        else:
            with pytest.raises(SystemExit) as stop:
                main(words)
            assert stop.value.code == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        lines = [line for line in text.splitlines() if "error: " in line]
        assert len(lines) == 1, text
        assert tree(folder) == before  # nothing half-written stays behind
        return lines[0]


def refusal_of_ranks(case, folder, stores):
    """Make the fault of a training run of two ranks; the message, see `message_of_ranks`."""
    _, config, *words = case.make(copy_stores(stores, folder))
    return message_of_ranks(torchrun(2, *words, config=config, timeout=60))


def message_of_ranks(done):
    """The message of a run whose ranks all ended: it is printed once, by the first."""
    errors = re.findall(r"titan_aioli: error: (.*) \[rank (\d)\]", done.stderr)
    assert done.returncode != 0 and [rank for _, rank in errors] == ["0"], errors
    return errors[0][0]


def copy_stores(stores, folder):
    """The folder, with a copy of the good stores in it."""
    shutil.copytree(stores, folder / "stores")
    return folder


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def train(folder, *flags, config=None):
    """The words of a training run with a config's text."""
    path = folder / "config.toml"
    path.write_bytes(
        config if isinstance(config, bytes) else (TINY.read_text() if config is None else config).encode()
    )
    words = ["--job.config_file", path, "--job.dump_folder", folder / "run"]
    return [str(word) for word in (*words, "--mixing.stores", folder / "stores", *flags)]


def flags(message, *words):
    """Flags of a training run; FILE stands for a path in the case's folder."""

    def make(folder):
        return train(folder, *(word.replace("FILE", str(folder / "file")) for word in words))

    return Case(message, make)


def toml(message, new, old="[mixing]\n"):
    """The tiny config with `old` replaced."""
    assert old in TINY.read_text()
    return Case(message, lambda folder: train(folder, config=TINY.read_text().replace(old, new, 1)))


def targets(message, tables, *words):
    """The tiny config with more tables at its end, and flags; STORES stands for the folder of the stores."""

    def make(folder):
        text = tables.replace("STORES", str(folder / "stores"))
        return train(folder, *words, config=f"{TINY.read_text()}\n{text}\n")

    return Case(message, make)


def whole_toml(message, content):
    return Case(message, lambda folder: train(folder, config=content))


def file(message, content, *words):
    """A file with a content (bytes, text, or what becomes JSON), and the flags that name it as FILE."""

    def make(folder):
        write(folder / "file", content)
        return flags(message, *words).make(folder)

    return Case(message, make)


def write(path, content):
    if content is None:
        path.mkdir()
    elif isinstance(content, int):  # a sparse file of this many bytes
        with open(path, "wb") as sparse:
            sparse.truncate(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def store(message, damage, *words):
    """`damage(path)` breaks the training store of group a, a path without suffix."""

    def make(folder):
        damage(folder / "stores" / "a" / "train")
        return train(folder, *words)

    return Case(message, make)


def cut(suffix, num_bytes):
    """Bytes taken off the end of a file of the store, or added to it."""

    def damage(path):
        data = path.with_suffix(suffix).read_bytes()
        path.with_suffix(suffix).write_bytes(data[:-num_bytes] if num_bytes > 0 else data + bytes(-num_bytes))

    return damage


def poke(offset, form, value, from_end=False):
    """A number written into the index."""

    def damage(path):
        data = bytearray(path.with_suffix(".idx").read_bytes())
        struct.pack_into(form, data, len(data) - offset if from_end else offset, value)
        path.with_suffix(".idx").write_bytes(data)

    return damage


def sidecar(content):
    return lambda path: path.with_suffix(".json").write_text(content)


def array(message, content, suffix=".npy", *words):
    """Group a is one file: a NumPy array, or its bytes."""

    def make(folder):
        path = folder / f"array{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else npy(content))
        return train(folder, "--mixing.groups.a.train", path, *words)

    return Case(message, make)


def npy(values, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, values, **kwargs)
    return buffer.getvalue()


def corpus(message, name, content, *words):
    """A file to tokenize; a `tokenizer` is beside it."""

    def make(folder):
        save_tokenizer(folder / "tokenizer")
        if isinstance(content, list):
            save_jsonl(folder / name, content)
        else:
            write(folder / name, content)
        own = ["tokenize", folder / name, "--output", folder / "out", "--tokenizer", folder / "tokenizer"]
        return [str(word) for word in (*own, *(words or ("--group", "web")))]

    return Case(message, make)


def tokenizer(message, change, *words):
    """`change(folder)` breaks the tokenizer's folder."""

    def make(folder):
        made = corpus(message, "docs.jsonl", [{"text": "one two"}]).make(folder)
        change(folder / "tokenizer")
        return [*made, *words]

    return Case(message, make)


def command(message, *words):
    """A command line; FOLDER stands for a run's dump folder with a damaged file, see `a_run`."""
    return Case(message, lambda folder: [word.replace("FOLDER", str(a_run(folder))) for word in words])


def runs_table(message, text, *words_after):
    """A table of runs for `titan-aioli plan`, and options."""

    def words(folder):
        (folder / "runs.csv").write_text(text)
        return ["plan", str(folder / "runs.csv"), "--output", str(folder / "plan.json"), *words_after]

    return Case(message, words)


def a_run(folder):
    """A dump folder whose mixture.json is garbage."""
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "ledger.jsonl").write_text("")
    (folder / "run" / "mixture.json").write_text("{")
    return folder / "run"


def saved(folder):
    """The mixture part of a checkpoint, as arrays."""
    controller = make_controller(folder / "saved")
    controller.begin()
    controller.finish_phase(np.array([1.0, 2.0, 3.0]))
    with np.load(io.BytesIO(controller.state_dict()["controller"])) as archive:
        return dict(archive)


def packed(arrays, compressed=False):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def without(name):
    return lambda arrays: packed({key: value for key, value in arrays.items() if key != name})


def changed(**values):
    """Arrays replaced; a dot in a name is written as two underscores."""
    new = {name.replace("__", "."): np.asarray(value) for name, value in values.items()}
    return lambda arrays: packed({**arrays, **new})


def member(content):
    """An archive whose array `step` has this content."""

    def damage(arrays):
        buffer = io.BytesIO(packed({key: value for key, value in arrays.items() if key != "step"}))
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("step.npy", content)
        return buffer.getvalue()

    return damage
