"""One pass over events larger than memory: columns on disk, and what is kept in memory of them.

Files of events are read once.  What the epochs need again is written to columns in a folder
(physical units, float64: about 8 bytes an observable and event), from where any rows come back
fast, whatever reading and computing the observables took.  A random share of every chunk, chosen
by the seed, is held out and never trained on: at most `HELD_OUT_ROWS` events, where there would be
more the share is lowered.  In memory remain

- events drawn from all at random, at most one chunk's worth: on these is fitted what is fitted
  before gradients (scales, constraints, charts, the thetas over which ratios are normalised);
  where there are fewer these are all, in order,
- sums: digest, ranges of theta, weights.

Rows are stored shuffled inside their chunk.  Signed weights of theta (see `events.weights`) are
merged chunk by chunk.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, TrainingError
from mflow_sbi.events import EventMetadata, EventSample, SelectionReport
from mflow_sbi.events.weights import require_trainable, theta_weights
from mflow_sbi.interfaces import Array
from mflow_sbi.training.batches import generator_of
from mflow_sbi.training.columns import Column, ColumnWriter
from mflow_sbi.training.processes import ALONE, Processes
from mflow_sbi.training.settings import FitSettings
from mflow_sbi.training.totals import DrawnRows, DuplicateCount, EventDigest, Rows, WeightTotals

__all__ = [
    "HELD_OUT_ROWS",
    "Chunks",
    "GatheredEvents",
    "StreamingSettings",
    "digest_of",
    "gathered_events",
]

HELD_OUT_ROWS = 50_000
BLOCKS_PER_CHUNK = 64
HELD_OUT = "held_out"
COLUMNS = ("x", "theta", "weight", "score", "components")


class Chunks(Sized, Iterable[EventSample], Protocol):
    """Events of one or several files, a chunk at a time: see `events.open_chunks`."""

    @property
    def metadata(self) -> EventMetadata:
        """The record of the whole."""
        ...

    @property
    def n_entries(self) -> int:
        """Events of all chunks before any selection."""
        ...


@dataclass(frozen=True)
class StreamingSettings:
    """How much of the events is in memory at a time.

    Args:
        chunk_events: events that are read from a file at once.
        buffer_chunks: chunks' worth of events that are mixed with each other at once.
    """

    chunk_events: int = 200_000
    buffer_chunks: int = 4

    @property
    def block_rows(self) -> int:
        """Neighbours in the stored columns that come into the buffer together."""
        return max(1, self.chunk_events // BLOCKS_PER_CHUNK)

    @property
    def buffer_blocks(self) -> int:
        """Blocks in the buffer."""
        return max(1, self.chunk_events * self.buffer_chunks // self.block_rows)


@dataclass(frozen=True, eq=False)
class GatheredEvents:
    """What a pass over the chunks left.

    Args:
        metadata: of all events, with the ranges of theta.
        report: how many were read, kept and dropped.
        n_events: kept, to train on and held out.
        digest: of these events.
        layout: digest of the sizes of the chunks.
        weights: sums over all weights; None where all are equal.
        drawn: events drawn at random, on which is fitted what is fitted before gradients.
        held_out: columns of the held-out events.
        columns: of the events to train on.
        folder: where they are.
        streaming: how much is in memory at a time.
        processes: that share the folder.
    """

    metadata: EventMetadata
    report: SelectionReport | None
    n_events: int
    digest: str
    layout: str
    weights: WeightTotals | None
    drawn: EventSample
    held_out: Mapping[str, Column]
    columns: Mapping[str, Column]
    folder: Path
    streaming: StreamingSettings
    processes: Processes

    @property
    def n_training(self) -> int:
        """Events to train on."""
        return self.columns["x"].shape[0]

    @property
    def n_held_out(self) -> int:
        """Held-out events."""
        return self.held_out["x"].shape[0]

    @property
    def weight_notes(self) -> tuple[str, ...]:
        """What different weights leave of the statistics: one line, none where all are equal."""
        return () if self.weights is None else (str(self.weights.summary()),)


@contextmanager
def gathered_events(
    chunks: Chunks,
    settings: FitSettings,
    streaming: StreamingSettings,
    *,
    folder: Path | None = None,
    max_events: int | None = None,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[GatheredEvents]:
    """Run a block with the events of all chunks gathered.

    Args:
        chunks: the events.
        settings: seed and held-out share; processes, of which the first writes the columns.
        streaming: how much is in memory at a time.
        folder: of the columns, which stay there and which all processes see; by default each
            process has a temporary one.
        max_events: stop after so many.
        on_chunk: called with (chunks done, chunks).

    Raises:
        MissingReference: events without theta.
        TrainingError: too few events, numbers that are not finite.
        EventDataError: weights that nothing can be trained on.
    """
    with ExitStack() as stack:
        processes = settings.processes
        if folder is None:
            name = stack.enter_context(TemporaryDirectory(prefix="mflow_sbi_events_"))
            folder, processes = Path(name), ALONE
        yield _gather(
            chunks,
            _Pass(chunks.n_entries, settings, streaming, max_events),
            folder,
            processes,
            on_chunk,
        )


def _gather(
    chunks: Chunks,
    passing: "_Pass",
    folder: Path,
    processes: Processes,
    on_chunk: Callable[[int, int], None],
) -> GatheredEvents:
    """Return what the pass leaves; the first process writes the columns."""
    with ExitStack() as files:
        if processes.is_first:
            passing.write_to(folder, files)
        for done, chunk in enumerate(chunks, start=1):
            passing.take(chunk)
            on_chunk(done, len(chunks))
            if passing.n_events == passing.max_events:
                break
    passing.require_events()
    processes.wait()
    return passing.finished(chunks.metadata, folder, processes)


def digest_of(chunks: Chunks, max_events: int | None = None) -> str:
    """Return the digest that `gathered_events` finds for these chunks."""
    digest, n_events = EventDigest(), 0
    for chunk in chunks:
        kept = _first(chunk, max_events, n_events)
        n_events += len(kept)
        if len(kept):
            digest.add(_rows(kept))
        if n_events == max_events:
            break
    return digest.hexadecimal(chunks.metadata)


class _Pass:
    """What the pass has found so far."""

    def __init__(
        self,
        n_entries: int,
        settings: FitSettings,
        streaming: StreamingSettings,
        max_events: int | None,
    ) -> None:
        self.settings = settings
        self.streaming = streaming
        self.max_events = max_events
        self.n_events = 0
        expected = n_entries if max_events is None else min(n_entries, max_events)
        self._share = min(settings.validation_fraction, HELD_OUT_ROWS / max(1, expected))
        self._drawn = DrawnRows(streaming.chunk_events, settings.seed)
        self._digest = EventDigest()
        self._duplicates = DuplicateCount()
        self._sizes: list[int] = []
        self._weights = WeightTotals()
        self._ranges: list[Array] = []
        self._reports: list[SelectionReport | None] = []
        self._n_held_out = 0
        self._names: list[str] = []
        self._write: Callable[[Rows], None] = lambda rows: None
        self._write_held_out: Callable[[Rows], None] = lambda rows: None

    def write_to(self, folder: Path, files: ExitStack) -> None:
        """Write events to columns in the folder, open until the stack is closed."""
        self._write = _writes_to(folder, files)
        self._write_held_out = _writes_to(folder / HELD_OUT, files)

    def take(self, chunk: EventSample) -> None:
        """Take the events of the next chunk."""
        kept = _first(chunk, self.max_events, self.n_events)
        self._reports.append(kept.report)
        if not len(kept):
            return
        theta, rows = kept.require_theta(), _rows(kept)
        _require_finite(rows)
        if self._drawn.rows and set(self._drawn.rows) != set(rows):
            message = (
                f"events of one chunk carry {sorted(self._drawn.rows)}, of another "
                f"{sorted(rows)}; expected the same of all. Read files that differ separately"
            )
            raise EventDataError(message)
        self._digest.add(rows)
        self._duplicates.add(kept)
        self._drawn.add(rows)
        self._ranges.append(np.array([theta.min(axis=0), theta.max(axis=0)]))
        if kept.weight is not None:
            self._weights.add(kept.weight)
            rows["theta_weight"] = _weights_of_theta(theta, kept.weight)
        self.n_events += len(kept)
        order, n_held_out = self._order(len(kept))
        self._n_held_out += n_held_out
        self._names = list(rows)
        self._write_held_out({name: v[order[:n_held_out]] for name, v in rows.items()})
        self._write({name: values[order[n_held_out:]] for name, values in rows.items()})

    def _order(self, n: int) -> tuple[NDArray[np.int64], int]:
        """Return a shuffle of a chunk's rows, and how many of its first are held out.

        That of the first chunk is the split of events in memory.
        """
        number = len(self._sizes)
        self._sizes.append(n)
        numbers = (self.settings.seed,) if number == 0 else (self.settings.seed, 3, number)
        order = torch.randperm(n, generator=generator_of(*numbers)).numpy()
        return order, round(self._share * self.n_events) - self._n_held_out

    def require_events(self) -> None:
        """Refuse too few events.

        Raises:
            TrainingError: no events on one side of the split.
        """
        if self._n_held_out < 1 or self.n_events - self._n_held_out < 2:
            message = (
                f"training needs events on both sides of the split: got {self.n_events} events "
                f"with validation_fraction {self.settings.validation_fraction}"
            )
            raise TrainingError(message)

    def finished(
        self, metadata: EventMetadata, folder: Path, processes: Processes
    ) -> GatheredEvents:
        """Return what the pass found, with the columns in the folder.

        Raises:
            EventDataError: weights that nothing can be trained on.
        """
        known = [report for report in self._reports if report is not None]
        report = None
        if known:
            total = sum(known[1:], known[0])
            report = replace(total, duplicates=self._duplicates.n_duplicates)
        weights = None if self._weights.are_equal else self._weights
        names = self._names
        if weights is None:
            names = [name for name in names if name not in ("weight", "theta_weight")]
        else:
            require_trainable(weights.summary(), weights.total)
        ranged = metadata.with_ranges_of(np.concatenate(self._ranges))
        drawn = EventSample(metadata=ranged, report=report, **self._drawn.rows)
        return GatheredEvents(
            metadata=ranged,
            report=report,
            n_events=self.n_events,
            digest=self._digest.hexadecimal(metadata),
            layout=sha256(repr((self._sizes, self._share)).encode()).hexdigest(),
            weights=weights,
            drawn=drawn if weights is not None else replace(drawn, weight=None),
            held_out={name: Column.open(folder / HELD_OUT / f"{name}.npy") for name in names},
            columns={name: Column.open(folder / f"{name}.npy") for name in names},
            folder=folder,
            streaming=self.streaming,
            processes=processes,
        )


def _writes_to(folder: Path, files: ExitStack) -> Callable[[Rows], None]:
    """Return what writes rows to columns in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, ColumnWriter] = {}

    def write(rows: Rows) -> None:
        for name, values in rows.items():
            if name not in writers:
                writer = ColumnWriter(folder / f"{name}.npy", values.shape[1:], np.float64)
                writers[name] = files.enter_context(writer)
            writers[name].append(values)

    return write


def _first(chunk: EventSample, max_events: int | None, n_before: int) -> EventSample:
    if max_events is None or n_before + len(chunk) <= max_events:
        return chunk
    return chunk.take(np.arange(max_events - n_before))


def _rows(events: EventSample) -> Rows:
    named = {name: getattr(events, name) for name in COLUMNS}
    return {name: values for name, values in named.items() if values is not None}


def _require_finite(rows: Rows) -> None:
    n_events = len(rows["x"])
    good = np.ones(n_events, dtype=np.bool_)
    for values in rows.values():
        good &= np.isfinite(values).reshape(n_events, -1).all(axis=1)
    n_bad = int((~good).sum())
    if n_bad:
        message = f"training needs finite numbers: {n_bad} of {n_events} events are not"
        raise TrainingError(message)


def _weights_of_theta(theta: Array, weight: Array) -> Array:
    """Return weights >= 0 of theta that stand for those of a chunk.

    Raises:
        EventDataError: signed weights of no positive sum.
    """
    if weight.min() < 0 and not weight.sum() > 0:
        message = (
            f"the weights of a chunk of {len(weight):,} events sum to {weight.sum():.3g}; "
            "expected a positive sum in every chunk: take a larger streaming.chunk_events, or "
            "look for a sign of all weights"
        )
        raise EventDataError(message)
    return theta_weights(theta, weight)
