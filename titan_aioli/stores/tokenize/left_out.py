"""What is left out of the stores: empty texts, and lines that cannot be read if the command says so."""

from collections.abc import Mapping
from typing import Any, Literal

OnBadLine = Literal["refuse", "skip"]
MOST_PLACES = 20
"""Number of bad lines whose places are kept, the first ones."""

SHOWN_IN_ERRORS = 3
"""Number of bad lines that the message of an error names."""


class TooManyBadLines(ValueError):
    """More lines cannot be read than may be left out."""


class LeftOut:
    """Counts what is left out, in the order of the inputs, and refuses too much of it."""

    def __init__(self, on_bad_line: OnBadLine, most: int, before: int = 0):
        """Args:
        on_bad_line: `refuse`: the first bad line ends the command. `skip`: it is counted.
        most: bad lines after which the command ends all the same.
        before: bad lines of other inputs, which count towards `most`.
        """
        self._on_bad_line: OnBadLine = on_bad_line
        self._most, self._before = most, before
        self.num_bad = self.num_empty = 0
        self.places: list[str] = []
        """What was wrong where, of the first MOST_PLACES bad lines."""

    def of_next_input(self) -> "LeftOut":
        """A count of one more input, under the same limit."""
        return LeftOut(self._on_bad_line, self._most, self.num_bad)

    def empty(self) -> None:
        """A text is empty, or null."""
        self.num_empty += 1

    def bad(self, error: ValueError) -> None:
        """A line, or the rest of a file, cannot be read.

        Raises:
            ValueError: bad lines are refused.
            TooManyBadLines: there are more than may be left out.
        """
        if self._on_bad_line == "refuse":
            raise error
        self.num_bad += 1
        if len(self.places) < MOST_PLACES:
            self.places.append(str(error))
        if self._before + self.num_bad > self._most:
            raise TooManyBadLines(
                f"more than {self._most} bad lines (--max-bad-lines), the last: {error}: look at the inputs, "
                "or allow more"
            )

    def counts(self) -> dict[str, Any]:
        """What is known, as JSON values; {} where nothing was left out."""
        if not (self.num_bad or self.num_empty):
            return {}
        return {"bad": self.num_bad, "empty": self.num_empty, "places": self.places}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Take over what an earlier run has counted in an input that it has read to its end."""
        self.num_bad += counts.get("bad", 0)
        self.num_empty += counts.get("empty", 0)
        self.places = [*self.places, *counts.get("places", ())][:MOST_PLACES]

    def reason(self) -> str:
        """Why there may be no document at all, in one line; empty where nothing bad was left out."""
        if not self.num_bad:
            return ""
        places = "; ".join(self.places[:SHOWN_IN_ERRORS]) + "; ..." * (self.num_bad > SHOWN_IN_ERRORS)
        return f"{self.num_bad:,} bad lines were left out (--on-bad-line skip): {places}"

    def lines(self) -> list[str]:
        """What to say at the end."""
        lines = [f"left out: empty texts: {self.num_empty:,}"] * (self.num_empty > 0)
        if self.num_bad:
            lines.append(f"left out: bad lines (--on-bad-line skip): {self.num_bad:,}")
            lines += [f"  {place}" for place in self.places]
            lines += ["  ..."] * (self.num_bad > len(self.places))
        return lines
