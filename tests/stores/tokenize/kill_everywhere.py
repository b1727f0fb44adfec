"""Kill `tokenize` before its n-th change on disk, for every n, and run it again; for test_tokenize_resume.

A child process exits without clean-up (as after SIGKILL) just before it opens a file for writing, renames or
removes one for the n-th time. A second child runs to the end. Prints the number of changes.

    python tests/stores/tokenize/kill_everywhere.py DOCUMENTS TOKENIZER FOLDER [HELD_OUT]
"""

import os
import sys
from pathlib import Path

import pyarrow  # noqa: F401, imported here so that not every child has to
import rich.table  # noqa: F401
import tokenizers  # noqa: F401
import tqdm  # noqa: F401

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.testing.text import stores_in

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
KILLED = 77


def run(
    documents: str,
    tokenizer: str,
    output: Path,
    held_out: list[str],
    kill_at: int | None,
    restart: bool = False,
) -> int:
    """Exit status of a child that tokenizes, or dies before its kill_at-th change."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = kill_at

    def hook(event: str, args: tuple) -> None:
        nonlocal left
        changes = event in CHANGES or (event == "open" and isinstance(args[1], str) and "w" in args[1])
        if left is not None and changes:
            left -= 1
            if left < 0:
                os._exit(KILLED)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.addaudithook(hook)
    options = {"processes": 1, "shard_megabytes": 0.001, "val_share": 0.0, "test_share": 0.0}
    if held_out:
        options |= {"held_out": tuple(held_out), "on_contamination": "leave-out", "contamination_ngrams": 2}
    tokenize(
        (documents,), group_by="set", tokenizer=Path(tokenizer), output=output, restart=restart, **options
    )
    os._exit(0)


def main(documents: str, tokenizer: str, folder: Path, *held_out: str) -> None:
    held = list(held_out)
    assert run(documents, tokenizer, folder / "whole", held, None) == 0
    places = 0
    while True:
        output = folder / f"killed{places}"
        status = run(documents, tokenizer, output, held, places)
        if status == 0:
            break
        assert status == KILLED, status
        # every other time the second run starts over, which must not depend on what the first left either
        assert run(documents, tokenizer, output, held, None, restart=places % 2 == 1) == 0, places
        assert stores_in(output) == stores_in(folder / "whole"), places
        assert sorted(os.listdir(output)) == sorted(os.listdir(folder / "whole")), places
        places += 1
    print(places)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
