"""Train, validation or test: decided by a document's text alone.

The split does not depend on the order, the file format, the number of processes or the other documents, and
equal documents are always in the same split.
"""

from hashlib import blake2b

HELD_OUT_SPLITS = ("validation", "test")
SPLITS = ("train", *HELD_OUT_SPLITS)
SALT = b"titan_aioli/1"
"""Salt of the hash, never to be changed: another one would move documents to other splits."""


def split_of(text: bytes, val_share: float, test_share: float) -> str:
    """The split of a document, one of SPLITS.

    Validation takes the lowest hashes and test the highest, so changing one share does not change the other.

    Args:
        text: the document in UTF-8.
        val_share, test_share: expected shares of the documents, in [0, 1), together below 1.
    """
    number = int.from_bytes(blake2b(text, digest_size=8, salt=SALT).digest(), "big") / 2**64
    if number < val_share:
        return "validation"
    return "test" if number >= 1.0 - test_share else "train"


def shares_of_target(val_share: float, test_share: float) -> tuple[float, float]:
    """The shares of a target, of which nothing is trained on: those of the documents that are evaluated.

    Raises: ValueError: a share outside [0, 1), or both 0.
    """
    check_shares(val_share, test_share)
    if val_share + test_share == 0:
        raise ValueError(
            "--val-share and --test-share are 0: a target needs documents of at least one of them"
        )
    test = test_share / (val_share + test_share)
    return 1.0 - test, test


def check_shares(val_share: float, test_share: float) -> None:
    """Check the shares of validation and test.

    Raises: ValueError: a share outside [0, 1), or nothing left to train on.
    """
    for name, share in ("--val-share", val_share), ("--test-share", test_share):
        if not 0.0 <= share < 1.0:
            raise ValueError(
                f"{name} is {share}: it must be 0 or more and below 1 (0.02 is two documents in 100)"
            )
    if val_share + test_share >= 1.0:
        raise ValueError(f"--val-share {val_share} and --test-share {test_share} leave nothing to train on")
