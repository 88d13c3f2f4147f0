"""The door to ROOT files: open, name what is inside, read columns. Only this room knows uproot.

Files are checked before uproot sees them (is it ROOT, is it complete?), and whatever uproot
meets inside a damaged file becomes one `EventFileError`.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, EventFileError, MetadataError
from mflow_sbi.events.wording import counted, listed, nearest
from mflow_sbi.interfaces import Array

__all__ = ["EventFile", "EventTree", "open_events"]

METADATA_KEY = "mflow_sbi"
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    uproot.DeserializationError,
)
_LARGE_FILE_VERSION = 1_000_000


@dataclass(frozen=True)
class EventTree:
    """One TTree of an open file.

    Attributes:
        path: The file, for messages.
        name: Name of the tree.
        n_entries: Number of entries.
        branches: Names of its branches, split branches included.
    """

    path: Path
    name: str
    n_entries: int
    branches: tuple[str, ...]
    _tree: Any = field(repr=False)

    def require(self, branch: str) -> None:
        """Refuse a branch that does not exist, naming those that do.

        Raises:
            EventFileError: There is no such branch.
        """
        if branch not in self.branches:
            msg = (
                f"{self.path}: tree {self.name!r} has no branch {branch!r}."
                f"{nearest(branch, self.branches)} Branches: {listed(self.branches)}. "
                "`mflow-sbi inspect` shows what would be read."
            )
            raise EventFileError(msg)

    def scalars(self, branch: str, start: int, stop: int) -> Array:
        """Return one number per event, (stop - start,); lists of length one count as numbers.

        Raises:
            EventFileError: No such branch, or it cannot be read.
            EventDataError: Not one number per event, or a number that is not finite.
        """
        counts, values = self.lists(branch, start, stop)
        n_other = int(np.count_nonzero(counts != 1))
        if n_other:
            i = int(np.argmax(counts != 1))
            msg = (
                f"{self.path}: branch {branch!r} holds {counts[i]} numbers in event {start + i} "
                f"(not one in {counted(n_other, 'event')}); expected one number per event. "
                "Choose a branch that is not a list."
            )
            raise EventDataError(msg)
        return values

    def lists(self, branch: str, start: int, stop: int) -> tuple[NDArray[np.int64], Array]:
        """Return the lengths, (stop - start,), and the values end to end, of a branch of lists.

        Raises:
            EventFileError: No such branch, or it cannot be read.
            EventDataError: Its values are not numbers, or not finite.
        """
        self.require(branch)
        with _damage_named(self.path, f"branch {branch!r}"):
            array = self._tree[branch].array(entry_start=start, entry_stop=stop, library="ak")
            nested = array.ndim == 2
            counts = ak.to_numpy(ak.num(array)) if nested else np.ones(len(array), dtype=np.int64)
            flat = ak.flatten(array) if nested else array
            kind = ak.type(flat)
        if flat.ndim != 1 or not isinstance(kind.content, ak.types.NumpyType):
            msg = (
                f"{self.path}: branch {branch!r} holds {kind.content}, expected numbers or lists "
                "of numbers. Choose another branch."
            )
            raise EventDataError(msg)
        values = ak.to_numpy(flat).astype(np.float64)
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        if n_bad:
            msg = (
                f"{self.path}: branch {branch!r} holds {counted(n_bad, 'value')} that "
                f"{'is' if n_bad == 1 else 'are'} NaN or infinite; expected finite numbers. "
                "Find out where they come from and write the file again without those events."
            )
            raise EventDataError(msg)
        return counts.astype(np.int64), values


@dataclass(frozen=True)
class EventFile:
    """One open ROOT file: its TTrees with their entries, and the text of its metadata record."""

    path: Path
    trees: dict[str, int]
    metadata_text: str | None
    _file: Any = field(repr=False)

    def tree(self, name: str) -> EventTree:
        """Return a tree by name.

        Raises:
            EventFileError: There is none of that name.
        """
        if name not in self.trees:
            msg = (
                f"{self.path}: no TTree {name!r}; trees in the file: {listed(self.trees)}."
                f"{nearest(name, self.trees)} Name one by tree=..."
            )
            raise EventFileError(msg)
        with _damage_named(self.path, f"tree {name!r}"):
            tree = self._file[name]
            branches = tuple(dict.fromkeys(tree.keys(recursive=True, full_paths=False)))
        return EventTree(self.path, name, self.trees[name], branches, tree)


@contextmanager
def open_events(path: Path) -> Iterator[EventFile]:
    """Open a ROOT file for reading, as a context.

    Raises:
        EventFileError: No such file, not a ROOT file, truncated or damaged, or no TTree in it.
    """
    _require_complete(path)
    with _damage_named(path, "its directory"):
        file: Any = uproot.open(path)
    with file:
        with _damage_named(path, "its directory"):
            classes = file.classnames(recursive=True, cycle=False)
            trees = {
                name: int(file[name].num_entries)
                for name, class_name in classes.items()
                if class_name in ("TTree", "TNtuple", "TNtupleD", "TChain")
            }
        if not trees:
            ntuples = [name for name, kind in classes.items() if "RNTuple" in kind]
            hint = " RNTuples are not read: write a TTree (uproot: `mktree`)." if ntuples else ""
            contents = [f"{name} ({kind})" for name, kind in classes.items()]
            msg = f"{path}: expected a TTree; the file holds {listed(contents)}.{hint}"
            raise EventFileError(msg)
        yield EventFile(path, trees, _metadata_text(path, file, classes), file)


def _metadata_text(path: Path, file: Any, classes: dict[str, str]) -> str | None:  # noqa: ANN401
    if METADATA_KEY not in classes:
        return None
    if classes[METADATA_KEY] != "TObjString":
        msg = (
            f"{path}: {METADATA_KEY!r} is a {classes[METADATA_KEY]}; expected the metadata record "
            "as a TObjString."
        )
        raise MetadataError(msg)
    with _damage_named(path, "its metadata"):
        return str(file[METADATA_KEY])


def _require_complete(path: Path) -> None:
    """Compare the header of a ROOT file (magic, length of the file) with what is on disk."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        siblings = [p.name for p in path.parent.glob("*.root")] if path.parent.is_dir() else []
        msg = f"{path} {what}; expected a ROOT file.{nearest(path.name, siblings)}"
        raise EventFileError(msg)
    try:
        with path.open("rb") as stream:
            header = stream.read(24)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); expected a readable ROOT file."
        raise EventFileError(msg) from error
    size = path.stat().st_size
    if size == 0:
        msg = f"{path} is an empty file (0 bytes); expected a ROOT file. Write or copy it again."
        raise EventFileError(msg)
    if header[:4] != b"root":
        msg = (
            f"{path} is not a ROOT file (it starts with {header[:4]!r}, expected b'root'). "
            "Convert it to a TTree, or check the path."
        )
        raise EventFileError(msg)
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


@contextmanager
def _damage_named(path: Path, part: str) -> Iterator[None]:
    """Turn what uproot raises on unreadable bytes into one `EventFileError`."""
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).strip().split("\n")[0][:160]
        msg = (
            f"{path}: {part} cannot be read ({type(error).__name__}: {reason}); the file is "
            "damaged, or of a kind uproot does not know. Write or copy it again."
        )
        raise EventFileError(msg) from error
