"""Lists of objects, one list per event: columns end to end, and where each event begins.

Element i belongs to the event e with offsets[e] <= i < offsets[e + 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

__all__ = ["Jagged"]

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Jagged:
    """N lists of objects.

    Attributes:
        offsets: (N + 1,), from 0 to the number of objects.
        columns: Name -> one value per object.

    Example:
        >>> jets = Jagged(np.array([0, 2, 3]), {"PT": np.array([30.0, 50.0, 20.0])})
        >>> jets.counts.tolist(), jets.descending("PT")["PT"].tolist()
        ([2, 1], [50.0, 30.0, 20.0])
    """

    offsets: Index
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def counts(self) -> Index:
        """Objects of every event, (N,)."""
        return np.diff(self.offsets)

    @property
    def event(self) -> Index:
        """The event of every object."""
        return np.repeat(np.arange(len(self)), self.counts)

    def where(self, kept: Mask) -> "Jagged":
        """The objects of a mask; every event stays."""
        below = np.concatenate([[0], np.cumsum(kept)])
        return Jagged(below[self.offsets], {k: v[kept] for k, v in self.columns.items()})

    def events(self, kept: Mask) -> "Jagged":
        """The events of a mask, with all their objects."""
        counts = self.counts
        chosen = np.repeat(kept, counts)
        offsets = np.concatenate([[0], np.cumsum(counts[kept])])
        return Jagged(offsets, {k: v[chosen] for k, v in self.columns.items()})

    def descending(self, name: str) -> "Jagged":
        """Every list ordered by one column, the largest first."""
        order = np.lexsort((-self.columns[name], self.event))
        return Jagged(self.offsets, {k: v[order] for k, v in self.columns.items()})

    def total(self, name: str) -> NDArray[np.float64]:
        """Sum of one column over every list, (N,)."""
        sums = np.bincount(self.event, weights=self.columns[name], minlength=len(self))
        return sums.astype(np.float64)

    def partners(self, event: Index) -> tuple[Index, Index]:
        """Every object of given events: (place in `event`, object), pair by pair."""
        count = self.counts[event]
        place = np.repeat(np.arange(count.size), count)
        first = np.cumsum(count) - count
        return place, np.arange(place.size) - np.repeat(first - self.offsets[event], count)

    def records(self, start: int, stop: int, name: str | None = None) -> ak.Array:
        """Events start:stop as lists of records, of awkward's class `name` if given."""
        first, last = self.offsets[start], self.offsets[stop]
        columns: dict[str, Any] = {k: v[first:last] for k, v in self.columns.items()}
        contents = [ak.contents.NumpyArray(column) for column in columns.values()]
        record = ak.contents.RecordArray(
            contents,
            list(columns),
            length=int(last - first),
            parameters={"__record__": name} if name else None,
        )
        offsets: Any = self.offsets[start : stop + 1] - first
        return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), record))

    @staticmethod
    def of(event: Index, n_events: int, columns: Mapping[str, NDArray[Any]]) -> "Jagged":
        """Lists of objects whose events are known and ascend."""
        return Jagged(np.searchsorted(event, np.arange(n_events + 1)), columns)

    @staticmethod
    def concatenate(parts: Sequence["Jagged"]) -> "Jagged":
        """The events of all parts, one after the other."""
        counts = np.concatenate([part.counts for part in parts])
        names = parts[0].columns
        columns = {k: np.concatenate([part.columns[k] for part in parts]) for k in names}
        return Jagged(np.concatenate([[0], np.cumsum(counts)]), columns)
