"""Static proportions: given ones, or by the size of the groups with a temperature."""

from collections.abc import Sequence
from dataclasses import dataclass

from titan_aioli.methods.stratified import FixedState, Stratified
from titan_aioli.proportions import by_size, uniform


@dataclass(frozen=True)
class Static(Stratified):
    """One mixture for the whole run.

    Source: the `--proportions` runs of Chen et al. 2024, arXiv:2411.05735; sampling by size with a
    temperature is that of multilingual models (Arivazhagan et al. 2019, arXiv:1907.05019).
    """

    proportions: Sequence[float] | None = None
    """[G] weights, normalised by their sum. None: by `sizes`, or uniform where those are None too."""
    sizes: Sequence[float] | None = None
    """[G] tokens of each group, used where no proportions are given."""
    temperature: float = 1.0
    """Share = size ** (1 / temperature): 1 is proportional to size, above 1 is flatter."""

    def check(self, num_groups: int) -> None:
        if self.proportions is not None and self.sizes is not None:
            raise ValueError("static takes either `proportions` or `sizes`, not both")
        for name, values in (("proportions", self.proportions), ("sizes", self.sizes)):
            if values is not None and len(values) != num_groups:
                raise ValueError(f"static.{name} has {len(values)} numbers for {num_groups} groups")
        self.init(num_groups)

    def init(self, num_groups: int) -> FixedState:
        if self.proportions is not None:
            proportions = by_size(self.proportions, self.temperature, "static.proportions")
        elif self.sizes is not None:
            proportions = by_size(self.sizes, self.temperature, "static.sizes")
        else:
            proportions = uniform(num_groups)
        return FixedState(round=0, proportions=proportions)
