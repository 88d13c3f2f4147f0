"""What one pass over chunks of events adds up: digest, weights, and events drawn at random."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.events import EventMetadata, EventSample
from mflow_sbi.events.sample import row_hashes
from mflow_sbi.events.weights import WeightSummary
from mflow_sbi.interfaces import Array

__all__ = ["DrawnRows", "DuplicateCount", "EventDigest", "Rows", "WeightTotals"]

Rows: TypeAlias = dict[str, Array]
"""Columns of the same events, by name."""

_ROUNDING = 1e-6


class EventDigest:
    """sha256 of events that come in chunks, whatever the chunks are."""

    def __init__(self) -> None:
        self._columns = {}
        self._n_events = 0

    def add(self, rows: Mapping[str, Array]) -> None:
        """Take more events."""
        for name, values in rows.items():
            column = self._columns.setdefault(name, sha256())
            column.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        self._n_events += len(rows["x"])

    def hexadecimal(self, metadata: EventMetadata) -> str:
        """Return the digest of the events and their record."""
        total = sha256(metadata.to_json().encode())
        for name in sorted(self._columns):
            text = f"{name} {self._n_events} {self._columns[name].hexdigest()}"
            total.update(text.encode())
        return total.hexdigest()


@dataclass
class WeightTotals:
    """Sums over weights that come in chunks."""

    n_events: int = 0
    total: float = 0.0
    total_size: float = 0.0
    squares: float = 0.0
    n_negative: int = 0
    low: float = np.inf
    high: float = -np.inf

    def add(self, weight: Array) -> None:
        """Take more weights, (N,)."""
        self.n_events += len(weight)
        self.total += float(weight.sum())
        self.total_size += float(np.abs(weight).sum())
        self.squares += float(np.square(weight).sum())
        self.n_negative += int((weight < 0).sum())
        self.low = min(self.low, float(weight.min(initial=np.inf)))
        self.high = max(self.high, float(weight.max(initial=-np.inf)))

    @property
    def are_equal(self) -> bool:
        """Whether there are none, or positive ones that differ by rounding only."""
        return not self.n_events or (self.low > 0 and self.high <= (1 + _ROUNDING) * self.low)

    @property
    def mean(self) -> float:
        """Their mean."""
        return self.total / self.n_events

    def summary(self) -> WeightSummary:
        """Return what they leave of the statistics."""
        return WeightSummary(
            n_events=self.n_events,
            n_effective=max(self.total, 0.0) ** 2 / self.squares,
            negative_share=self.n_negative / self.n_events,
            cancelled_share=1.0 - self.total / self.total_size,
            largest_share=max(self.high, -self.low) / self.total_size,
        )


@dataclass
class DrawnRows:
    """Events drawn at random, without replacement, of all that come: those of the smallest keys.

    Fewer than the limit are all kept, and events stay in their order.

    Args:
        limit: events to keep, at most.
        seed: of the keys.

    >>> drawn = DrawnRows(3, seed=1)
    >>> for first in (0, 5):
    ...     drawn.add({"x": np.arange(first, first + 5.0)})
    >>> len(drawn.rows["x"]), bool((np.diff(drawn.rows["x"]) > 0).all())
    (3, True)
    """

    limit: int
    seed: int
    rows: Rows = field(default_factory=dict)
    _keys: Array = field(default_factory=lambda: np.empty(0))
    _n_chunks: int = 0

    def add(self, rows: Mapping[str, Array]) -> None:
        """Take or leave more events."""
        rng = np.random.default_rng([self.seed, self._n_chunks])
        keys = rng.random(len(rows["x"]))
        self._n_chunks += 1
        if len(self._keys) >= self.limit:  # most are too large already
            small = keys < self._keys.max()
            keys, rows = keys[small], {name: values[small] for name, values in rows.items()}
        keys = np.concatenate([self._keys, keys])
        joined = {
            name: np.concatenate([self.rows[name], values]) if self.rows else np.array(values)
            for name, values in rows.items()
        }
        if len(keys) > self.limit:
            kept = keys <= np.partition(keys, self.limit - 1)[self.limit - 1]
            keys, joined = keys[kept], {name: values[kept] for name, values in joined.items()}
        self._keys, self.rows = keys, joined


@dataclass
class DuplicateCount:
    """How many events repeat an earlier one in every number, in whichever chunk that was.

    Events are told apart by hashes.  Of more events than the limit those of the smallest hashes
    are counted, and stand for all: events that repeat each other are all counted or all not.

    Args:
        limit: hashes to keep, at most.
    """

    limit: int = 1 << 20
    _hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    _below: int = 1 << 64
    _all_whole: bool = True

    def add(self, events: EventSample) -> None:
        """Take more events."""
        self._all_whole &= bool((events.x == np.rint(events.x)).all())
        hashes = row_hashes(events)
        if self._below < 1 << 64:
            hashes = hashes[hashes < np.uint64(self._below)]
        self._hashes = np.concatenate([self._hashes, hashes])
        while len(self._hashes) > self.limit:
            self._below //= 2
            self._hashes = self._hashes[self._hashes < np.uint64(self._below)]

    @property
    def n_duplicates(self) -> int:
        """Their number; where all observables are whole numbers repetitions are natural: 0."""
        if self._all_whole:
            return 0
        repeated = len(self._hashes) - len(np.unique(self._hashes))
        return round(repeated * (1 << 64) / self._below)
