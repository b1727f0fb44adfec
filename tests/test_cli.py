"""The command `titan-aioli`: it lists and explains every subcommand, without torch."""

import os
import subprocess
import sys

import pytest

from titan_aioli.cli import COMMANDS, main


def test_overview_names_every_command(capsys):
    main([])
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in out and command.__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: titan-aioli {name}" in capsys.readouterr().out


def help_of(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    return capsys.readouterr().out.partition("positional arguments")


@pytest.mark.parametrize(
    "name", ["rows", "plan", "replay", "simulate", "report", "check", "init", "tokenize"]
)
def test_every_example_is_indented_below_what_it_is_of(name, capsys):
    lines = help_of(name, capsys)[0].splitlines()
    examples = [index for index, line in enumerate(lines) if line.strip().startswith(f"titan-aioli {name}")]
    assert examples
    for index in examples:
        assert lines[index].startswith("  ") and lines[index - 1].strip()


@pytest.mark.parametrize(
    ("name", "metavar"), [("report", "RUN"), ("tokenize", "INPUT"), ("train-tokenizer", "INPUT")]
)
def test_arguments_of_which_there_is_at_least_one_are_no_option(name, metavar, capsys):
    usage, _, rest = help_of(name, capsys)
    positional = " ".join(rest.partition("options")[0].replace("\u2502", " ").split())
    assert f"] {metavar} [{metavar} ...]" in usage
    assert "(required)" in positional and "default" not in positional


def test_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tokenise"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(
        "titan-aioli: error: no command 'tokenise': choose one of train-tokenizer, tokenize"
    )


@pytest.mark.parametrize("words", [["--help"], ["tokenize", "--help"]])
def test_a_reader_that_wants_no_more_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "titan_aioli.cli", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_importing_the_command_imports_no_torch():
    code = "import sys, titan_aioli.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
