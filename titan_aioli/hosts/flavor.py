"""A size of a model that can be chosen by name."""

from typing import NamedTuple


class Flavor(NamedTuple):
    """A flavor of a model."""

    num_parameters: int
    """With or without those of the norms, as is at hand: they are few."""
    vocab_size: int
    name: str
