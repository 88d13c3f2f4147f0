"""`read_events`: from one or several ROOT files to an `EventSample`."""

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, EventFileError
from mflow_sbi.events.expressions import FourMomentum
from mflow_sbi.events.observables import Observable, compute
from mflow_sbi.events.particles import read_objects
from mflow_sbi.events.plan import ReadingPlan, plan_reading
from mflow_sbi.events.root_files import open_events
from mflow_sbi.events.sample import EventSample, SelectionReport, concatenate
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = ["Paths", "Progress", "read_events", "resolve_paths"]

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]
Progress: TypeAlias = Callable[[int, int], None]

_CHUNK = 50_000


def read_events(
    path: Paths,
    *,
    tree: str | None = None,
    observables: Iterable[str | Observable] | None = None,
    selection: str | Sequence[str] | None = None,
    max_events: int | None = None,
    min_events: int = 1,
    progress: Progress | None = None,
) -> EventSample:
    """Return the events of ROOT files: x_i, and theta_i, weight_i, score_i, c_k(x_i) if there.

    Objects are ordered by pT here, whatever their order in the file; four-momenta are built in
    float64 from (pT, eta, phi, mass). Events with too few objects for the observables and
    selections are dropped and counted in `report`, and so are those that a selection refuses.

    Args:
        path: A ROOT file, a pattern like "data/train_*.root", or several of these; several files
            are read as one sample and must be of one process and one setting.
        tree: Name of the TTree; by default that of the metadata, "Delphes", or the only one.
        observables: Columns of x: names of the 40 WBF observables, sentences such as
            "(a[0]+a[1]).m", `Observable`s, or (flat files) branches. By default those listed in
            the file's metadata, else the 40 of the published study (arXiv:2003.13913).
        selection: Sentence(s) that events must satisfy, e.g. "(a[0]+a[1]).m > 115"; several are
            applied one after the other.
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
    paths = resolve_paths(path)
    observables = None if observables is None else _listed_once(observables)
    totals = [_n_entries(p, tree, observables, selection, min_events) for p in paths]
    total, done, kept = sum(totals), 0, 0
    samples: list[EventSample] = []
    for file_path, n_entries in zip(paths, totals, strict=True):
        wanted = None if max_events is None else max_events - kept
        if wanted == 0:
            break
        with open_events(file_path) as file:
            plan = plan_reading(file, tree=tree, observables=observables, selection=selection)
            samples.append(_read(plan, wanted, _shifted(progress, done, total)))
        done, kept = done + n_entries, kept + len(samples[-1])
    if progress is not None:
        progress(total, total)
    sample = concatenate(samples)
    if min_events > 0:
        _require_events(sample, paths)
    if sample.theta is None or len(sample) == 0:
        return sample
    ranges = sample.metadata.with_ranges_of(sample.theta)
    return replace(sample, metadata=ranges)


def resolve_paths(path: Paths) -> list[Path]:
    """Return the files meant by a path, a pattern, or several of these; patterns in sorted order.

    Raises:
        EventFileError: A pattern without a match, no path at all, or one file meant twice.
    """
    items = [path] if isinstance(path, str | PathLike) else list(path)
    paths: list[Path] = []
    for item in (fspath(item) for item in items):
        is_pattern = glob.has_magic(item) and not Path(item).exists()
        found = sorted(glob.glob(item, recursive=True)) if is_pattern else [item]  # noqa: PTH207
        if not found:
            msg = f"{item}: no file matches this pattern; expected at least one ROOT file."
            raise EventFileError(msg)
        paths.extend(map(Path, found))
    if not paths:
        msg = "no path given; expected at least one ROOT file."
        raise EventFileError(msg)
    most_common, n = Counter(p.resolve() for p in paths).most_common(1)[0]
    if n > 1:
        msg = f"{most_common} is given {n} times; its events would count {n} times. Name it once."
        raise EventFileError(msg)
    return paths


def _listed_once(observables: Iterable[str | Observable]) -> Any:  # noqa: ANN401
    return observables if isinstance(observables, str) else tuple(observables)


def _n_entries(path: Path, tree: str | None, observables: Any, selection: Any, least: int) -> int:  # noqa: ANN401
    """Return the number of entries, after refusing what can be refused without reading."""
    with open_events(path) as file:
        plan = plan_reading(file, tree=tree, observables=observables, selection=selection)
    if plan.tree.n_entries == 0 and least > 0:
        msg = (
            f"{path}: tree {plan.tree.name!r} is empty (0 events); expected at least one. "
            "Check the job that wrote it."
        )
        raise EventFileError(msg)
    return plan.tree.n_entries


def _shifted(progress: Progress | None, offset: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


def _require_events(sample: EventSample, paths: Sequence[Path]) -> None:
    if len(sample) == 0 and sample.report is not None:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sample.report.dropped.items())
        msg = (
            f"{', '.join(map(str, paths))}: none of {counted(sample.report.n_read, 'event')} is "
            f"left (dropped: {reasons}); expected at least one. Loosen the selection, or choose "
            "observables of the objects that are there."
        )
        raise EventDataError(msg)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The events kept from a range of entries, and why the others were dropped."""

    entries: NDArray[np.intp]
    reasons: NDArray[np.intp]  # of every entry; 0 for kept
    arrays: dict[str, Array]


def _read(plan: ReadingPlan, wanted: int | None, progress: Progress | None) -> EventSample:
    chunks: list[_Chunk] = []
    n_kept = 0
    for start in range(0, max(1, plan.tree.n_entries), _CHUNK):  # an empty tree: one chunk
        stop = min(start + _CHUNK, plan.tree.n_entries)
        chunk = _read_chunk(plan, start, stop)
        if wanted is not None:
            chunk = _first(chunk, wanted - n_kept)
        chunks.append(chunk)
        n_kept += len(chunk.entries)
        if progress is not None:
            progress(stop, plan.tree.n_entries)
        if n_kept == wanted:
            break
    arrays = {
        name: np.concatenate([chunk.arrays[name] for chunk in chunks]) for name in chunks[0].arrays
    }
    counts = np.bincount(
        np.concatenate([chunk.reasons for chunk in chunks]), minlength=len(_labels(plan)) + 1
    )
    dropped = dict(zip(_labels(plan), counts[1:].tolist(), strict=True))
    sentences = tuple(selection.text for selection in plan.selections)
    report = SelectionReport(int(counts.sum()), n_kept, dropped, sentences)
    return EventSample(metadata=plan.metadata, report=report, **arrays)


def _labels(plan: ReadingPlan) -> list[str]:
    few = [f"fewer than {counted(n, objects.name)}" for objects, n in plan.objects]
    return few + [f"selection {selection.text}" for selection in plan.selections]


def _first(chunk: _Chunk, n: int) -> _Chunk:
    if len(chunk.entries) < n:
        return chunk
    last = chunk.entries[n - 1] if n else -1
    arrays = {name: array[:n] for name, array in chunk.arrays.items()}
    return _Chunk(chunk.entries[:n], chunk.reasons[: last + 1], arrays)


def _read_chunk(plan: ReadingPlan, start: int, stop: int) -> _Chunk:
    """Read the entries [start, stop): drop, compute, and pick the truth of the events kept."""
    tree = plan.tree
    reasons = np.zeros(stop - start, dtype=np.intp)
    collections = [(o, n, read_objects(tree, o, start, stop)) for o, n in plan.objects]
    for reason, (_, n_needed, objects) in enumerate(collections, start=1):
        reasons[(reasons == 0) & (objects.counts < n_needed)] = reason
    entries = np.flatnonzero(reasons == 0)
    names: dict[str, Any] = {o.symbol: all_.leading(n, entries) for o, n, all_ in collections}
    names |= {branch: tree.scalars(branch, start, stop)[entries] for branch in plan.columns}
    for reason, selection in enumerate(plan.selections, start=1 + len(collections)):
        passes = np.broadcast_to(selection(names), entries.shape)
        reasons[entries[~passes]] = reason
        entries = entries[passes]
        names = {name: _taken(value, passes) for name, value in names.items()}
    truth = {
        "theta": [tree.scalars(branch, start, stop) for branch in plan.theta],
        "score": [tree.scalars(branch, start, stop) for branch in plan.score],
    }
    arrays = {name: np.column_stack(columns) for name, columns in truth.items() if columns}
    if plan.weight is not None:
        arrays["weight"] = plan.tree.scalars(plan.weight, start, stop)
    if plan.components is not None:
        arrays["components"] = _components(plan, start, stop)
    arrays = {name: array[entries] for name, array in arrays.items()}
    return _Chunk(entries, reasons, {"x": compute(plan.metadata.observables, names), **arrays})


def _taken(value: Any, mask: NDArray[np.bool_]) -> Any:  # noqa: ANN401
    if isinstance(value, np.ndarray):
        return value[mask]
    objects: tuple[FourMomentum, ...] = value
    return tuple(momentum.take(mask) for momentum in objects)


def _components(plan: ReadingPlan, start: int, stop: int) -> Array:
    branch = plan.components or ""
    counts, values = plan.tree.lists(branch, start, stop)
    morphing = plan.metadata.morphing
    n_expected = len(morphing.exponents) if morphing else 0
    if (counts != n_expected).any():
        i = int(np.argmax(counts != n_expected))
        msg = (
            f"{plan.tree.path}: {branch!r} holds {counts[i]} numbers in event {start + i}; "
            f"expected {n_expected}, one for each exponent of the metadata. Write the file again "
            "with metadata and branches that agree."
        )
        raise EventDataError(msg)
    return values.reshape(-1, n_expected)
