"""What can be wrong with the options of `titan-aioli tokenize`, before anything is read."""

import math

from titan_aioli.stores.overlap import LARGEST_NGRAM
from titan_aioli.stores.tokenize import documents
from titan_aioli.stores.tokenize.making import OnContamination
from titan_aioli.stores.tokenize.splits import check_shares


def check(
    inputs: tuple[str, ...],
    group: str | None,
    group_by: str | None,
    val_share: float,
    test_share: float,
    processes: int | None,
    shard_megabytes: float,
    role: str,
    prompt_field: str | None,
) -> str:
    """The name of the run, its group or by-FIELD. Raises: ValueError: an option is not possible."""
    if not inputs:
        raise ValueError("no inputs: give files, folders or hf:OWNER/NAME")
    if (group is None) == (group_by is None):
        raise ValueError(
            "give either --group NAME (the inputs are one group) or --group-by FIELD (they hold many)"
        )
    check_shares(val_share, test_share)
    if prompt_field is not None and role != "target":
        raise ValueError("--prompt-field needs --role target: prompts are never trained on")
    if processes is not None and processes < 1:
        raise ValueError(f"--processes is {processes}: it must be at least 1")
    if not 0 < shard_megabytes < math.inf:
        raise ValueError(f"--shard-megabytes is {shard_megabytes}: it must be finite and above 0")
    return f"by-{group_by}" if group is None else documents.group_name(group, "--group")


def check_lines(group: str | None, group_name: tuple[str, ...], max_bad_lines: int) -> None:
    """Raises: ValueError: an option about groups or lines is not possible."""
    if group_name and group is not None:
        raise ValueError(
            f"--group-name {group_name[0]} needs --group-by FIELD: --group makes one group of all inputs"
        )
    if max_bad_lines < 0:
        raise ValueError(f"--max-bad-lines is {max_bad_lines}: it must be at least 0")


def check_held_out(
    held_out: tuple[str, ...], on_contamination: OnContamination, ngram: int | None, role: str
) -> None:
    """Raises: ValueError: options that do not go together, or an n-gram of no size."""
    if held_out and role == "target":
        raise ValueError("--held-out needs --role group: of a target nothing is trained on")
    if not held_out and (on_contamination != "warn" or ngram is not None):
        option = "--contamination-ngrams" if ngram is not None else f"--on-contamination {on_contamination}"
        raise ValueError(f"{option} needs --held-out PATH: the documents that must not be trained on")
    if ngram is not None and not 1 <= ngram <= LARGEST_NGRAM:
        raise ValueError(f"--contamination-ngrams is {ngram}: from 1 to {LARGEST_NGRAM} tokens; 13 is usual")


def renamed_groups(names: tuple[str, ...]) -> dict[str, str]:
    """Group names by what the field says. Raises: ValueError: one is not FOUND=NAME."""
    renamed = {}
    for given in names:
        found, equals, name = given.partition("=")
        if not equals or not found:
            raise ValueError(f"--group-name is {given!r}: expected FOUND=NAME, such as en/web=web")
        if name in renamed.values():
            raise ValueError(f"--group-name gives two groups the name {name!r}")
        renamed[found] = documents.group_name(name, f"--group-name {given}: the name")
    return renamed
