"""What every format offers: trees of columns, read by name and range of entries, and a record.

A format supplies one function, `read(column, start, stop) -> array`; the checks every number goes
through on its way in are here, once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, EventFileError
from mflow_sbi.events.metadata import EventMetadata
from mflow_sbi.events.wording import counted, listed, nearest
from mflow_sbi.interfaces import Array

__all__ = ["EventFile", "EventTree", "damage_named"]


@dataclass(frozen=True)
class EventTree:
    """One table of events in an open file.

    Attributes:
        path: The file, for messages.
        name: Name of the tree.
        n_entries: Number of entries.
        branches: Names of its branches (columns), split branches included.
        read: From a branch and a range of entries to numbers, or lists of numbers.
    """

    path: Path
    name: str
    n_entries: int
    branches: tuple[str, ...]
    read: Callable[[str, int, int], ak.Array] = field(repr=False)

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
        with damage_named(self.path, f"branch {branch!r}"):
            array = self.read(branch, start, stop)
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
        if len(counts) != stop - start:
            msg = (
                f"{self.path}: branch {branch!r} holds {len(counts)} events of the entries "
                f"{start} to {stop}; expected {stop - start}. Write or copy the file again."
            )
            raise EventFileError(msg)
        with np.errstate(invalid="ignore"):
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
    """One open file.

    Attributes:
        path: The file.
        kind: Its format, for messages: "ROOT", "Parquet", "HDF5".
        trees: Its trees by name, with their entries.
        read_record: From nothing to the record in the file, or None for a foreign one.
        open_tree: From a name to the tree.
        named: Whether the names of its trees are the writer's, and not ours.
        alone: Whether its weights sum to the cross section, which several files would hold
            several times.
    """

    path: Path
    kind: str
    trees: dict[str, int]
    read_record: Callable[[], EventMetadata | None] = field(repr=False)
    open_tree: Callable[[str], EventTree] = field(repr=False)
    named: bool = True
    alone: bool = False

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
        with damage_named(self.path, f"tree {name!r}"):
            return self.open_tree(name)


@contextmanager
def damage_named(
    path: Path, part: str, damage: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what a library raises on unreadable bytes into one `EventFileError`.

    Args:
        path: The file.
        part: What was being read.
        damage: Errors of the library beside Python's own.
    """
    try:
        yield
    except (*_DAMAGE, *damage) as error:
        reason = str(error).strip().split("\n")[0][:160]
        msg = (
            f"{path}: {part} cannot be read ({type(error).__name__}: {reason}); the file is "
            "damaged, or of a kind that is not known here. Write or copy it again."
        )
        raise EventFileError(msg) from error


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
    StopIteration,
    TypeError,
    ValueError,
)
