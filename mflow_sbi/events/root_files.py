"""The door to ROOT files: TTrees and RNTuples by name. Only this room knows uproot.

RNTuples hold what TTrees do; uproot's reader of them ignores cuts and aliases without a word, so
that none are passed to it: selections are ours.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import uproot

from mflow_sbi.errors import EventFileError, MetadataError
from mflow_sbi.events.columns import EventFile, EventTree, damage_named
from mflow_sbi.events.metadata import EventMetadata
from mflow_sbi.events.wording import listed

__all__ = ["open_root"]

METADATA_KEY = "mflow_sbi"
_DAMAGE = (struct.error, zlib.error, uproot.DeserializationError)
_TREES = ("TTree", "TNtuple", "TNtupleD", "TChain", "ROOT::RNTuple")
_LARGE_FILE_VERSION = 1_000_000


@contextmanager
def open_root(path: Path) -> Iterator[EventFile]:
    """Open a ROOT file for reading, as a context.

    Raises:
        EventFileError: Truncated or damaged, or no TTree or RNTuple in it.
    """
    _require_complete(path)
    with damage_named(path, "its directory", _DAMAGE):
        file: Any = uproot.open(path)
    with file:
        with damage_named(path, "its directory", _DAMAGE):
            classes = file.classnames(recursive=True, cycle=False)
            trees = {
                name: int(file[name].num_entries)
                for name, class_name in classes.items()
                if class_name in _TREES
            }
        if not trees:
            contents = [f"{name} ({kind})" for name, kind in classes.items()]
            msg = f"{path}: expected a TTree or RNTuple; the file holds {listed(contents)}."
            raise EventFileError(msg)
        yield EventFile(
            path,
            kind="ROOT",
            trees=trees,
            read_record=lambda: _record(path, file, classes),
            open_tree=lambda name: _tree(path, name, file),
        )


def _tree(path: Path, name: str, file: Any) -> EventTree:  # noqa: ANN401
    tree = file[name]
    branches = _names(tree)

    def read(branch: str, start: int, stop: int) -> ak.Array:
        with damage_named(path, f"branch {branch!r}", _DAMAGE):
            return tree[branch].array(entry_start=start, entry_stop=stop, library="ak")

    return EventTree(path, name, int(tree.num_entries), branches, read)


def _names(tree: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the names of branches; of those that share one, their paths, which uproot knows."""
    names, paths = (tree.keys(recursive=True, full_paths=full) for full in (False, True))
    shared = {name for name, n in Counter(names).items() if n > 1}
    both = zip(names, paths, strict=True)
    return tuple(dict.fromkeys(path if name in shared else name for name, path in both))


def _record(path: Path, file: Any, classes: dict[str, str]) -> EventMetadata | None:  # noqa: ANN401
    if METADATA_KEY not in classes:
        return None
    if classes[METADATA_KEY] != "TObjString":
        msg = (
            f"{path}: {METADATA_KEY!r} is a {classes[METADATA_KEY]}; expected the metadata record "
            "as a TObjString."
        )
        raise MetadataError(msg)
    with damage_named(path, "its metadata", _DAMAGE):
        text = str(file[METADATA_KEY])
    return EventMetadata.from_json(text)


def _require_complete(path: Path) -> None:
    """Compare the header of a ROOT file (length of the file) with what is on disk."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(24)
    end = size + 1
    if len(header) == 24:
        (version,) = struct.unpack(">i", header[4:8])
        large = version >= _LARGE_FILE_VERSION
        (end,) = struct.unpack(">q" if large else ">i", header[12 : 20 if large else 16])
    if size < end:
        msg = (
            f"{path} is truncated: its header announces {end:,} bytes, {size:,} are there. "
            "Copy it again, or simulate again."
        )
        raise EventFileError(msg)
