"""The settings that follow from what was found: defaults by the model's size, and Aioli's round."""

from typing import NamedTuple

from titan_aioli.measure.budget import affordable_sequences
from titan_aioli.methods import build_method

SEQUENCES = 64
"""Held-out sequences of every group in an evaluation."""
MIN_ROUNDS = 3
"""Least number of Aioli's rounds in a run: with fewer it has hardly a mixture to change."""
MIN_SHOWN = 16
"""Least held-out sequences of a group that Aioli should be shown: fewer drown its differences in noise."""
BUDGETS = (3.0, 5.0, 10.0, 20.0)
"""Percents of the training compute for the evaluations, tried in turn; the first is the config's default."""


class Size(NamedTuple):
    """What people usually begin with at a size of model."""

    most_parameters: float
    steps: int
    seq_len: int
    local_batch_size: int
    learning_rate: str
    """As TOML."""


SIZES = (
    Size(2e7, 1000, 256, 2, "2e-3"),
    Size(2e9, 5000, 2048, 8, "5e-4"),
    Size(float("inf"), 10000, 4096, 1, "3e-4"),
)


def size_of(num_parameters: int) -> Size:
    return next(size for size in SIZES if num_parameters < size.most_parameters)


class Round(NamedTuple):
    """Settings of Aioli that fit a run."""

    num_sweeps: int
    steps_per_mixture: int
    steps_per_round: int
    learn_params: int
    """Steps of LearnParams in a round."""


def aioli_round(num_groups: int, steps: int) -> Round:
    """The most thorough LearnParams whose round, eight times as long, fits a run three times or more.

    Where even the shortest LearnParams is more than an eighth of a third of the run, its share is larger.

    Raises: ValueError: the run is too short for three rounds.
    """
    longest = steps // MIN_ROUNDS
    shortest = num_groups + 1
    if longest < shortest:
        raise ValueError(
            f"--steps {steps} is too few for {MIN_ROUNDS} rounds of aioli with {num_groups} groups: at least "
            f"{MIN_ROUNDS * shortest}, or another --method"
        )
    for num_sweeps, steps_per_mixture in ((4, 4), (2, 4), (1, 4), (1, 2), (1, 1)):
        learn_params = num_sweeps * steps_per_mixture * num_groups
        if 8 * learn_params <= longest:
            return Round(num_sweeps, steps_per_mixture, 8 * learn_params, learn_params)
    return Round(1, 1, longest, num_groups)


def evaluation_budget(settings: Round, num_groups: int, batch_size: int) -> float:
    """The smallest of BUDGETS that shows Aioli MIN_SHOWN sequences of a group; the largest if none does.

    Args:
        settings: of Aioli.
        num_groups: G.
        batch_size: B, rows of one optimizer step.
    """
    keys = ("num_sweeps", "steps_per_mixture", "steps_per_round")
    method = build_method("aioli", num_groups, **{key: getattr(settings, key) for key in keys})
    for percent in BUDGETS:
        if affordable_sequences(percent, method, num_groups, batch_size, SEQUENCES) >= MIN_SHOWN:
            return percent
    return BUDGETS[-1]
