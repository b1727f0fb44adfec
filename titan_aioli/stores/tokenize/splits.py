"""Train, validation or test: decided by a document's text alone.

So a document lands in the same split whatever the order, the file format, the number of processes or the
other documents; equal documents never face each other across splits.
"""

from hashlib import blake2b

SPLITS = ("train", "validation", "test")
SALT = b"titan_aioli/1"
"""Fixed for ever: another salt would move documents between the splits of stores made before."""


def split_of(text: bytes, val_share: float, test_share: float) -> str:
    """The split of a document, one of SPLITS.

    Validation takes the lowest hashes and test the highest, so changing one share leaves the other split.

    Args:
        text: the document in UTF-8.
        val_share, test_share: expected shares of the documents, in [0, 1), together below 1.
    """
    number = int.from_bytes(blake2b(text, digest_size=8, salt=SALT).digest(), "big") / 2**64
    if number < val_share:
        return "validation"
    return "test" if number >= 1.0 - test_share else "train"


def check_shares(val_share: float, test_share: float) -> None:
    """Raises: ValueError: a share outside [0, 1), or nothing left to train on."""
    for name, share in ("--val-share", val_share), ("--test-share", test_share):
        if not 0.0 <= share < 1.0:
            raise ValueError(
                f"{name} is {share}: it must be 0 or more and below 1 (0.02 is two documents in 100)"
            )
    if val_share + test_share >= 1.0:
        raise ValueError(f"--val-share {val_share} and --test-share {test_share} leave nothing to train on")
