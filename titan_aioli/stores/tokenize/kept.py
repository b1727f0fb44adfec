"""Files that a run of `titan-aioli tokenize` leaves to the next one: read, or named if they are damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from titan_aioli.errors import UserError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A block that reads a file and nothing else.

    Raises: UserError: the file is damaged; says what to do. OSError: the system cannot read it.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # zipfile, NumPy, JSON and typeguard raise many kinds
        raise UserError(
            f"{path} is damaged ({error!r}): remove it and run the same command again, or start over with "
            "--restart"
        ) from None
