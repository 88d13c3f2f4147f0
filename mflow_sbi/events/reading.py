"""`read_events`: from one or several files to an `EventSample`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.chunks import CHUNK_EVENTS, EventChunks, plan_chunks
from mflow_sbi.events.entries import KeptEvents, read_entries
from mflow_sbi.events.layouts import Layout
from mflow_sbi.events.merging import merge
from mflow_sbi.events.metadata import Benchmarks
from mflow_sbi.events.paths import Paths, resolve_paths
from mflow_sbi.events.request import Observables, ReadingRequest
from mflow_sbi.events.sample import EventSample, concatenate, count_duplicates
from mflow_sbi.events.sources import Sources, Theta
from mflow_sbi.events.wording import counted

__all__ = ["Paths", "Progress", "read_events", "resolve_paths"]

Progress: TypeAlias = Callable[[int, int], None]


def read_events(
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
    max_events: int | None = None,
    min_events: int = 1,
    progress: Progress | None = None,
) -> EventSample:
    """Return the events of files: x_i, and theta_i, weight_i, score_i, c_k(x_i), w_ib if there.

    Files are ROOT (TTree or RNTuple: Delphes, NanoAOD, flat, or declared by their branches),
    Parquet, or MadMiner's HDF5. Objects are ordered by pT here, whatever their order in the
    file; four-momenta are built in float64. Objects that their selection refuses do not count;
    events with too few objects for the observables and selections are dropped, and so are those
    that a selection refuses. `report` counts all of these, and events that repeat another.

    Args:
        path: A file, a pattern like "data/train_*.root", a campaign's manifest, an `EventSource`
            (files and their theta), or several of these; several files are read as one sample
            and must be of one process and one setting.
        tree: Name of the tree; by default that of the metadata, "Delphes", "Events", or the only
            one.
        observables: Columns of x: names of the 40 WBF observables, sentences such as
            "(a[0]+a[1]).m" (see `events.expressions`), `Observable`s, or branches; "wbf40" is
            all of the 40. By default those listed in the file's metadata, else the 40 of the
            published study (arXiv:2003.13913).
        selection: Sentence(s) that events must satisfy, e.g. "(a[0]+a[1]).m > 115"; several are
            applied one after the other.
        objects: What objects must satisfy to count, by symbol, e.g.
            {"a": "pt > 20 and abs(eta) < 2.5", "j": "pt > 30"}; further branches of the
            collection by their name without its prefix.
        layout: "delphes", "nanoaod", "flat", or as declared (see `events.declared_layouts`); by
            default as the metadata or the branches say.
        weight: Branch of the event weight; by default that of the layout, if there is one. "none"
            for events without.
        benchmark_weights: Branch of the weights of every event at B benchmarks, or `Benchmarks`
            with their names and parameters; by default those that the metadata tell.
        theta: Parameters of all events of files that have none, by name.
        max_events: Stop after this many events are kept.
        min_events: 0 where no events are an answer too, as in an observation that counts them.
        progress: Called with (entries done, entries in all).

    Returns:
        The sample; x (N, n) float64 in GeV, theta (N, p) or None.

    Raises:
        EventFileError: A file, tree or branch is missing, unreadable or (unless `min_events` is
            0) empty.
        EventDataError: Numbers that are not finite or not physical, branches of unequal lengths,
            or no event left.
        ExpressionError: An observable or selection outside the language.
        MetadataError: A malformed metadata record, or files that do not belong together.
    """
    if max_events is not None and max_events < 1:
        msg = f"max_events={max_events}: expected at least 1, or None for all events."
        raise EventDataError(msg)
    request = ReadingRequest.of(
        tree=tree,
        observables=observables,
        selection=selection,
        objects=objects,
        layout=layout,
        weight=weight,
        benchmark_weights=benchmark_weights,
    )
    chunks = plan_chunks(path, request, theta, min_events=min_events, chunk_events=CHUNK_EVENTS)
    kept = _kept(chunks, max_events, progress)
    metadata = merge([file.metadata for file in chunks.files[: len(kept)]])
    sample = concatenate(
        [
            EventSample(metadata=metadata, report=part.report, **part.arrays)
            for part in chain.from_iterable(kept)
        ]
    )
    if min_events > 0:
        _require_events(sample, chunks)
    if sample.report is not None:
        counted_once = replace(sample.report, duplicates=count_duplicates(sample))
        sample = replace(sample, report=counted_once)
    if sample.theta is None or len(sample) == 0:
        return sample
    return replace(sample, metadata=sample.metadata.with_ranges_of(sample.theta))


def _kept(
    chunks: EventChunks, wanted: int | None, progress: Progress | None
) -> list[list[KeptEvents]]:
    """Return the events of each file, chunk by chunk, until `wanted` are there."""
    done, left, files = 0, wanted, []
    for which, file in enumerate(chunks.files):
        if left == 0:
            break
        files.append([])
        with chunks.opened(which) as plan:
            for start, stop in file.ranges:
                part = read_entries(plan, start, stop)
                part = part if left is None else part.first(left)
                left = left if left is None else left - len(part)
                files[-1].append(part)
                if progress is not None:
                    progress(done + stop, chunks.n_entries)
                if left == 0:
                    break
        done += file.n_entries
    if progress is not None:
        progress(chunks.n_entries, chunks.n_entries)
    return files


def _require_events(sample: EventSample, chunks: EventChunks) -> None:
    if len(sample) == 0 and sample.report is not None:
        paths = ", ".join(str(file.path) for file in chunks.files)
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sample.report.dropped.items())
        msg = (
            f"{paths}: none of {counted(sample.report.n_read, 'event')} is "
            f"left (dropped: {reasons}); expected at least one. Loosen the selection, or choose "
            "observables of the objects that are there."
        )
        raise EventDataError(msg)
