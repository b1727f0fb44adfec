"""What the README and docs say is there, and what they show runs."""

import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import tyro

from scripts.config_reference import config_page, table_lines
from titan_aioli.cli import COMMANDS, main
from titan_aioli.config.validate import check_mixing_keys
from titan_aioli.methods import METHODS
from titan_aioli.stores import store
from titan_aioli.stores.megatron import MegatronWriter

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 160


def code_blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def sections():
    """The Python blocks of each section of docs/extending.md that has any, by its heading."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {heading: blocks for heading, _, body in parts if (blocks := code_blocks(body, "python"))}


def run_as_file(blocks, folder):
    path = folder / "example.py"
    path.write_text("\n\n".join(blocks), encoding="utf-8")
    return runpy.run_path(str(path))


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_every_key_of_the_config_is_documented_as_it_is():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_page(), "run scripts/config_reference.py"


@dataclass
class Base:
    inherited: float | None = None
    """Said in the base class."""
    hidden: int = 0
    """Not a key of the table."""
    changed: str = "a"
    """Said in the base class; the table only narrows the type."""


@dataclass
class Table(Base):
    """A table of its own."""

    hidden: tyro.conf.Suppress[int] = 0
    changed: Literal["a", "b"] = "a"  # pyright: ignore[reportIncompatibleVariableOverride]
    own: Annotated[bool, "a mark"] = True
    """Said in
    two lines."""


def test_a_table_that_inherits():
    assert list(table_lines(Table, "t"))[-5:] == [
        "|---|---|---|---|",
        "| `inherited` | float | *unset* | Said in the base class. |",
        '| `changed` | `"a"` or `"b"` | `"a"` | Said in the base class; the table only narrows the type. |',
        "| `own` | boolean | `true` | Said in two lines. |",
        "",
    ]


@dataclass
class Silent:
    key: int = 0


def test_a_key_without_a_docstring_is_refused():
    with pytest.raises(ValueError, match=r"Silent\.key has no docstring"):
        list(table_lines(Silent, "t"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_of_the_repository_exist(page):
    folders = "titan_aioli|tests|scripts|train_configs|docs|assets"
    for name in re.findall(rf"\b((?:{folders})/[\w/]+\.\w+)", page.read_text(encoding="utf-8")):
        in_an_example = f"# {name}" in (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
        assert (ROOT / name).exists() or in_an_example, name


def test_the_snippet_of_the_readme_runs(tmp_path):
    (block,) = code_blocks(README.read_text(encoding="utf-8"), "python")
    found = run_as_file([block], tmp_path)
    assert found["method"].phase(found["state"])[1:] == (2, "learn_params")


def test_the_config_of_the_readme_is_accepted(tmp_path, monkeypatch, capsys):
    (config,) = code_blocks(README.read_text(encoding="utf-8"), "toml")
    (tmp_path / "my_run.toml").write_text(config, encoding="utf-8")
    for group in ("law", "code"):
        (tmp_path / "stores" / group).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            with MegatronWriter(tmp_path / "stores" / group / split, "uint16") as writer:
                writer.add(np.arange(10_000, dtype=np.uint16))
    monkeypatch.chdir(tmp_path)
    main(["check", "my_run.toml"])
    assert "20, of 256 steps each" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_a_config_have_known_keys(page, tmp_path):
    for block in code_blocks(page.read_text(encoding="utf-8"), "toml"):
        (tmp_path / "block.toml").write_text(block, encoding="utf-8")
        check_mixing_keys(["--job.config_file", str(tmp_path / "block.toml")])


def test_extending_has_an_example_of_each_kind():
    assert list(sections()) == ["A method", "A store format", "A host: your own training loop", "A command"]


@pytest.mark.parametrize("heading", sections())
def test_extending_runs(heading, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "loss_share", None)  # what an example puts there is taken out again
    monkeypatch.setitem(COMMANDS, "shares", None)
    if heading == "A store format":
        monkeypatch.setattr("titan_aioli.stores.store.FORMATS", [*vars(store)["FORMATS"]])
    run_as_file(sections()[heading], tmp_path)
    if heading == "A command":
        assert capsys.readouterr().out == "law 0.60\ncode 0.40\n"
