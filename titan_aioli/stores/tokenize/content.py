"""What a file is, by its first bytes: text, JSON lines, or something that has no business in a corpus.

Archives, pointers of Git LFS and binary files decode as text, in part or whole, and would silently become
documents. They are refused, and the message says what they are.
"""

import json
from pathlib import Path

from titan_aioli.files import COMPRESSIONS, MAGIC, open_compressed

HEAD_BYTES = 4096
"""Number of bytes, after decompression, by which a file is judged."""
LONGEST_LINE_BYTES = 1 << 26
"""Length of the longest first line that is read to see whether a .json file has one object per line."""

SPACE = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may stand before the first character of a text."""

UNPACK = "unpack it and give what is inside"
KINDS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself: run `git lfs pull`",
    ),
    (b"PK\x03\x04", f"a zip archive or an office document: {UNPACK} as text"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {UNPACK}"),
    (b"Rar!\x1a\x07", f"a rar archive: {UNPACK}"),
    (b"!<arch>\n", f"an ar archive: {UNPACK}"),
    (b"\xfd7zXZ\x00", "compressed by xz: decompress it (`xz -d`), or compress it by gzip or zstd"),
    (b"\x04\x22\x4d\x18", "compressed by lz4: decompress it (`lz4 -d`), or compress it by gzip or zstd"),
    (b"LZIP", "compressed by lzip: decompress it (`lzip -d`), or compress it by gzip or zstd"),
    (b"\x1f\x9d", "compressed by compress: decompress it (`uncompress`), or compress it by gzip or zstd"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed by snappy: decompress it, or compress it by gzip or zstd"),
    (b"%PDF-", "a PDF: extract its text"),
    (b"PAR1", "a Parquet file: give it the suffix .parquet"),
    (b"ARROW1", "an Arrow file: save the dataset with `save_to_disk` and give the folder"),
    (b"SQLite format 3\x00", "an SQLite database: export its texts as JSON lines"),
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"GIF8", "an image (GIF)"),
    (
        b"\xff\xfe",
        "not a text in UTF-8 (it starts with the mark of UTF-16 or UTF-32): convert it with `iconv -t UTF-8`",
    ),
    (
        b"\xfe\xff",
        "not a text in UTF-8 (it starts with the mark of UTF-16): convert it with `iconv -t UTF-8`",
    ),
)
"""First bytes of the files that are no text, and what each is."""
SKIPPABLE = tuple(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))
"""First bytes of a zstd file that begins with a frame to skip."""
TAR = slice(257, 262), b"ustar"


def head_of(path: Path, is_json: bool = False) -> bytes:
    """The first bytes of a file, decompressed; none if it cannot be read, as reading it then reports.

    Args:
        path: the file.
        is_json: whether NUL bytes at the start, as a crash leaves them, are passed over where JSON lines may
            follow: each line is looked at.
    """
    try:
        with open_compressed(path) as file:
            head = file.read(HEAD_BYTES)
            passed = 0
            while is_json and head and not head.strip(b"\0") and passed < LONGEST_LINE_BYTES:
                passed += len(head)
                head = file.read(HEAD_BYTES)
    except OSError:
        return b""
    if not passed and not (is_json and head.startswith(b"\0")):
        return head
    text = head.lstrip(b"\0")
    if not text:
        return b"\0"
    return text if text.lstrip(SPACE).startswith(b"{") or b"\0" not in text else head


def foreign(head: bytes) -> str | None:
    """What a file with these first bytes is, if it is neither text nor JSON lines; None if it may be."""
    for start, kind in KINDS:
        if head.startswith(start):
            return kind
    if head[TAR[0]] == TAR[1]:
        return f"a tar archive: {UNPACK}"
    if head.lstrip(SPACE).startswith(b"{"):
        return None  # JSON lines, of which each is looked at
    return "a binary file (it contains NUL bytes)" if b"\0" in head else None


def not_as_named(path: Path) -> str | None:
    """What to do about a file that is not compressed as its suffix says; None if it is, or has none.

    Raises: OSError: it cannot be read.
    """
    suffix = path.suffix.casefold()
    if suffix not in COMPRESSIONS:
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    kind = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
    if kind == COMPRESSIONS[suffix] or head.startswith(SKIPPABLE):
        return None
    said = f"it is not compressed by {COMPRESSIONS[suffix]}, as its name says, "
    if kind is not None:
        right = next(end for end, name in COMPRESSIONS.items() if name == kind)
        return f"{said}but by {kind}: rename it to end in {right}"
    other = foreign(head)
    return f"{said}but {other}" if other else f"{said}nor in any way known here: rename it without {suffix}"


def refuse_foreign(path: Path, head: bytes) -> None:
    """Raises: ValueError: the file is neither text nor JSON lines; names what it is."""
    kind = foreign(head)
    if kind is not None:
        raise ValueError(f"{path} is {kind}{', or' if ':' in kind else ':'} remove it from the inputs")


def is_json_lines(path: Path) -> bool:
    """Whether the first line that is not blank is a whole JSON object, or the file cannot be read."""
    try:
        with open_compressed(path) as file:
            for line in iter(lambda: file.readline(LONGEST_LINE_BYTES), b""):
                if line.strip(SPACE + b"\0"):
                    return isinstance(json.loads(line.strip(b"\0").removeprefix(b"\xef\xbb\xbf")), dict)
    except (ValueError, RecursionError):
        return False
    except OSError:
        return True
    return False
