"""`open_chunks`: a sample larger than memory, as ranges of entries that are read on demand.

All files are opened and checked once, so that what can be refused is refused before anything is
read; after that a file is open only while one of its chunks is being read. Each chunk lies
inside one file, and reading it touches its own entries only.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mflow_sbi.errors import EventDataError, EventFileError
from mflow_sbi.events.entries import KeptEvents, read_entries, read_theta
from mflow_sbi.events.files import open_events
from mflow_sbi.events.layouts import Layout
from mflow_sbi.events.merging import merge
from mflow_sbi.events.metadata import Benchmarks, EventMetadata
from mflow_sbi.events.plan import ReadingPlan, plan_reading
from mflow_sbi.events.request import Observables, ReadingRequest
from mflow_sbi.events.sample import EventSample
from mflow_sbi.events.sources import Sources, Theta, resolve_sources
from mflow_sbi.interfaces import Array

__all__ = ["CHUNK_EVENTS", "EventChunks", "PlannedFile", "open_chunks", "plan_chunks"]

CHUNK_EVENTS = 50_000
_Ranges: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PlannedFile:
    """One file of a sample, opened once and found readable.

    Attributes:
        path: The file.
        n_entries: Entries of its tree.
        metadata: Its record, with the observables, and with the sum of the weights of all entries
            where they have weights and the file does not tell it.
        carries: What travels with its events: theta, weight, score, components.
        ranges: Its chunks, (first entry, one past the last).
        request: What is asked of it.
        record: Its record as it stands in the file.
        alone: Whether it cannot be read with others.
        theta_range: Smallest and largest theta of all entries, (2, p), where they have theta.
    """

    path: Path
    n_entries: int
    metadata: EventMetadata
    carries: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...] = field(repr=False)
    request: ReadingRequest = field(repr=False)
    record: EventMetadata = field(repr=False)
    alone: bool
    theta_range: Array | None = field(repr=False)


class EventChunks(Sequence[EventSample]):
    """Events of one or several files, a chunk of entries at a time.

    `chunks[k]` reads the entries of the k-th range and returns the events kept among them, none
    or up to `chunk_events`; nothing is kept in memory. Every chunk carries the `metadata` of the
    whole, so that chunks concatenate to what `read_events` returns.

    Attributes:
        files: The files, in order.
        n_entries: Entries of all files, before any selection.
    """

    def __init__(self, files: Sequence[PlannedFile]) -> None:
        self.files = tuple(files)
        self.n_entries = sum(file.n_entries for file in self.files)
        self._places = [(n, k) for n, f in enumerate(self.files) for k in range(len(f.ranges))]

    @property
    def metadata(self) -> EventMetadata:
        """The record of the whole; its parameters range over theta of all entries.

        Raises:
            MetadataError: The files are not of one process and one setting.
        """
        return self._metadata

    @cached_property
    def _metadata(self) -> EventMetadata:
        merged = merge([file.metadata for file in self.files])
        ranges = [file.theta_range for file in self.files if file.theta_range is not None]
        return merged.with_ranges_of(np.vstack(ranges)) if ranges else merged

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> EventSample:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the events kept among the entries of one chunk.

        Raises:
            IndexError: No such chunk.
            EventFileError: A file is gone, damaged or changed.
            EventDataError: Numbers that are not finite or not physical.
        """
        which, k = self._places[number]
        with self.opened(which) as plan:
            return self._sample(read_entries(plan, *self.files[which].ranges[k]))

    def __iter__(self) -> Iterator[EventSample]:
        for which, file in enumerate(self.files):
            with self.opened(which) as plan:
                for start, stop in file.ranges:
                    yield self._sample(read_entries(plan, start, stop))

    def __repr__(self) -> str:
        return (
            f"EventChunks({len(self)} chunks, {self.n_entries} entries, "
            f"{len(self.files)} files, process={self.files[0].metadata.process!r})"
        )

    @contextmanager
    def opened(self, which: int) -> Iterator[ReadingPlan]:
        """Open a file by its number in `files`, as a context; refuse it if it has changed."""
        planned = self.files[which]
        with open_events(planned.path) as file:
            plan = plan_reading(file, planned.request)
            if plan.tree.n_entries != planned.n_entries or plan.metadata != planned.record:
                msg = (
                    f"{planned.path}: changed while it was being read ({planned.n_entries:,} "
                    f"entries before, {plan.tree.n_entries:,} now); expected the same file. "
                    "Wait until it is written, and read again."
                )
                raise EventFileError(msg)
            yield plan

    def _sample(self, kept: KeptEvents) -> EventSample:
        return EventSample(metadata=self.metadata, report=kept.report, **kept.arrays)


def open_chunks(
    path: Sources,
    *,
    tree: str | None = None,
    observables: Observables | None = None,
    selection: str | Sequence[str] | None = None,
    objects: Mapping[str, str] | None = None,
    layout: str | Layout | Mapping[str, Any] | None = None,
    weight: str | None = None,
    benchmark_weights: str | Benchmarks | None = None,
    theta: Theta | None = None,
    min_events: int = 1,
    chunk_events: int = CHUNK_EVENTS,
) -> EventChunks:
    """Return the events of files as chunks that are read on demand.

    Every file is opened and checked here. The parameters are read once, for their ranges, and
    weights whose sum the file does not tell; nothing else is.

    Args:
        path: This and all that follow are what they are for `read_events`.
        tree: Name of the tree.
        observables: Columns of x.
        selection: Sentence(s) that events must satisfy.
        objects: Sentences that objects must satisfy.
        layout: How the events are stored.
        weight: Branch of the event weight.
        benchmark_weights: Branch of weights at benchmark points.
        theta: Parameters of all events.
        min_events: 0 where files without entries are fine.
        chunk_events: Most entries of a chunk.

    Raises:
        EventFileError: A file, tree or branch is missing, unreadable or empty.
        EventDataError: Only some of the files carry theta, weight, score or components.
        ExpressionError: An observable or selection outside the language.
        MetadataError: A malformed metadata record, or files that do not belong together.
    """
    request = ReadingRequest.of(
        tree=tree,
        observables=observables,
        selection=selection,
        objects=objects,
        layout=layout,
        weight=weight,
        benchmark_weights=benchmark_weights,
    )
    chunks = plan_chunks(path, request, theta, min_events=min_events, chunk_events=chunk_events)
    _ = chunks.metadata  # files that do not belong together are refused now
    return chunks


def plan_chunks(
    path: Sources,
    request: ReadingRequest,
    theta: Theta | None = None,
    *,
    min_events: int,
    chunk_events: int,
) -> EventChunks:
    """Return the chunks of files, each opened and checked once; nothing is read."""
    if chunk_events < 1:
        msg = f"chunk_events={chunk_events}: expected at least 1 entry a chunk."
        raise EventDataError(msg)
    files = [
        _planned(file, replace(request, theta=point), min_events, chunk_events)
        for file, point in resolve_sources(path, theta)
    ]
    for other in files[1:]:
        differing = set(files[0].carries) ^ set(other.carries)
        if differing:
            name = sorted(differing)[0]
            n = sum(name in file.carries for file in files)
            msg = (
                f"only {n} of {len(files)} files carry {name}; expected all or none. Read the "
                "files with and those without it separately."
            )
            raise EventDataError(msg)
    whole = next((file.path for file in files if file.alone), None)
    if whole is not None and len(files) > 1:
        msg = (
            f"{whole}: its weights sum to the cross section, which {len(files)} files would hold "
            "several times; expected one file. Combine them by the program that wrote them "
            "(MadMiner: combine_and_shuffle), or read them one by one."
        )
        raise EventFileError(msg)
    return EventChunks(files)


def _planned(path: Path, request: ReadingRequest, least: int, size: int) -> PlannedFile:
    with open_events(path) as file:
        plan = plan_reading(file, request)
        n = plan.tree.n_entries
        if n == 0 and least > 0:
            msg = (
                f"{path}: tree {plan.tree.name!r} is empty (0 events); expected at least one. "
                "Check the job that wrote it."
            )
            raise EventFileError(msg)
        ranges = tuple((start, min(start + size, n)) for start in range(0, max(1, n), size))
        metadata, theta_range = _summed(plan, request, ranges), _theta_range(plan, ranges)
    return PlannedFile(
        path, n, metadata, plan.carries, ranges, request, plan.metadata, file.alone, theta_range
    )


def _summed(plan: ReadingPlan, request: ReadingRequest, ranges: _Ranges) -> EventMetadata:
    """Return the record of a file; a sum of weights that it does not tell is made here."""
    record = plan.metadata
    told = record.sum_of_weights is not None and request.weight is None
    if told or plan.weight is None:
        return record
    sums = [float(plan.tree.scalars(plan.weight, *span).sum()) for span in ranges]
    before = None if request.weight else record.sum_of_weights_before_selection
    return replace(
        record,
        sum_of_weights=sum(sums),
        sum_of_weights_before_selection=sum(sums) if before is None else before,
    )


def _theta_range(plan: ReadingPlan, ranges: _Ranges) -> Array | None:
    """Return smallest and largest theta of all entries, (2, p)."""
    parts = [read_theta(plan, *span) for span in ranges if span[1] > span[0]]
    found = [
        np.array([theta.min(axis=0), theta.max(axis=0)]) for theta in parts if theta is not None
    ]
    return np.array([np.min(found, axis=(0, 1)), np.max(found, axis=(0, 1))]) if found else None
