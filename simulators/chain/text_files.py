"""Event files as text, plain or compressed: opened, and checked from their first to last line."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulators.errors import InputFileError

__all__ = ["ends_of", "open_text", "opened"]

GZIP_MAGIC = b"\x1f\x8b"
N_LINES = 5
TAIL = 4096


@contextmanager
def open_text(path: Path) -> Iterator[Any]:
    """Lines of a file, plain or compressed by gzip (known by its first bytes, not its name)."""
    with opened(path) as file:
        yield (line.decode("utf-8") for line in file)


def ends_of(path: Path, expected: str) -> tuple[list[str], str]:
    """The first lines that are not empty, at most `N_LINES`, and the last one.

    Raises:
        InputFileError: No such file, or one that cannot be read to its end as text; `expected`
            says what it should be.
    """
    if not path.is_file():
        msg = f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}"
        raise InputFileError(msg)
    first: list[str] = []
    last = b""
    try:
        with opened(path) as file:
            for line in file:
                if line.strip() and len(first) < N_LINES:
                    first.append(line.decode("utf-8").strip())
                if len(first) == N_LINES:
                    break
            if not isinstance(file, gzip.GzipFile):
                file.seek(max(path.stat().st_size - TAIL, 0))
            for line in file:
                last = line if line.strip() else last
            text = last.decode("utf-8", "replace").strip()
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        msg = f"{path} is truncated or no text ({error}); expected {expected}"
        raise InputFileError(msg) from error
    return first, text or (first[-1] if first else "")


def opened(path: Path) -> Any:  # noqa: ANN401 - a binary file or its decompression
    """The bytes of a file, decompressed if they are compressed by gzip."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if compressed else path.open("rb")
