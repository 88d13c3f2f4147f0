"""Which files are meant by a path, a pattern, or several of these."""

import glob
from collections import Counter
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from mflow_sbi.errors import EventFileError
from mflow_sbi.events.manifest import is_manifest, read_manifest

__all__ = ["Paths", "require_distinct", "resolve_paths"]

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]


def resolve_paths(path: Paths) -> list[Path]:
    """Return the files meant by a path, a pattern, or several of these; patterns in sorted order.

    A campaign's manifest, or the folder that holds it, means the files of the campaign.

    Raises:
        EventFileError: A pattern without a match, no path at all, or one file meant twice; a
            campaign that is not complete, or whose files changed.
        MetadataError: A manifest that is none, or malformed.
    """
    items = [path] if isinstance(path, str | PathLike) else list(path)
    paths: list[Path] = []
    for item in (fspath(item) for item in items):
        is_pattern = glob.has_magic(item) and not Path(item).exists()
        found = sorted(glob.glob(item, recursive=True)) if is_pattern else [item]  # noqa: PTH207
        if not found:
            msg = f"{item}: no file matches this pattern; expected at least one ROOT file."
            raise EventFileError(msg)
        for one in map(Path, found):
            paths.extend(read_manifest(one) if is_manifest(one) else [one])
    if not paths:
        msg = "no path given; expected at least one ROOT file."
        raise EventFileError(msg)
    require_distinct(paths)
    return paths


def require_distinct(paths: Sequence[Path]) -> None:
    """Refuse one file that is meant more than once.

    Raises:
        EventFileError: There is one.
    """
    most_common, n = Counter(p.resolve() for p in paths).most_common(1)[0]
    if n > 1:
        msg = f"{most_common} is given {n} times; its events would count {n} times. Name it once."
        raise EventFileError(msg)
