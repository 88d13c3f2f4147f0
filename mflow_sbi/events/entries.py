"""From a range of entries of one tree to the arrays of the events kept."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.momenta import FourMomentum, PlanarMomentum
from mflow_sbi.events.observables import compute
from mflow_sbi.events.particles import Objects, read_missing, read_objects
from mflow_sbi.events.plan import ReadingPlan
from mflow_sbi.events.sample import SelectionReport
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = ["KeptEvents", "read_entries", "read_theta"]

_RANGE_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class KeptEvents:
    """The events kept from a range of entries.

    Attributes:
        entries: Their numbers, counted from the start of the range, (n,).
        reasons: For every entry of the range 0 if kept, else 1 + the number of its label.
        labels: Reasons for which entries are dropped.
        selections: Sentences that events had to satisfy.
        dropped_objects: Number of objects dropped in all entries, by kind and sentence.
        arrays: x and the truth that travels along, by name, (n, ...).
    """

    entries: NDArray[np.intp]
    reasons: NDArray[np.intp]
    labels: tuple[str, ...]
    selections: tuple[str, ...]
    dropped_objects: dict[str, int]
    arrays: dict[str, Array]

    def __len__(self) -> int:
        return len(self.entries)

    def first(self, n: int) -> "KeptEvents":
        """Return the first n events, and of the entries those up to the last of them."""
        if len(self.entries) < n:
            return self
        last = self.entries[n - 1] if n else -1
        arrays = {name: array[:n] for name, array in self.arrays.items()}
        reasons = self.reasons[: last + 1]
        return replace(self, entries=self.entries[:n], reasons=reasons, arrays=arrays)

    @property
    def report(self) -> SelectionReport:
        """Entries read, kept, and dropped by reason."""
        counts = np.bincount(self.reasons, minlength=len(self.labels) + 1)
        dropped = dict(zip(self.labels, counts[1:].tolist(), strict=True))
        return SelectionReport(
            len(self.reasons), len(self), dropped, self.selections, self.dropped_objects
        )


def read_entries(plan: ReadingPlan, start: int, stop: int) -> KeptEvents:
    """Read the entries [start, stop): drop, compute, and pick the truth of the events kept.

    Raises:
        EventFileError: A branch cannot be read.
        EventDataError: Numbers that are not finite or not physical, branches of unequal lengths.
    """
    reasons = np.zeros(stop - start, dtype=np.intp)
    needed = [c for c in (*plan.objects, *plan.unions) if c.n_needed]
    objects, dropped = _objects(plan, start, stop)
    for reason, collection in enumerate(needed, start=1):
        counts = objects[collection.symbol].counts
        reasons[(reasons == 0) & (counts < collection.n_needed)] = reason
    entries = np.flatnonzero(reasons == 0)
    names = _names(plan, objects, entries, (start, stop))
    for reason, selection in enumerate(plan.selections, start=1 + len(needed)):
        passes = np.broadcast_to(selection(names), entries.shape)
        reasons[entries[~passes]] = reason
        entries = entries[passes]
        names = {name: _taken(value, passes) for name, value in names.items()}
    truth = {name: array[entries] for name, array in _truth(plan, start, stop).items()}
    few = [f"fewer than {counted(c.n_needed, c.name)}" for c in needed]
    return KeptEvents(
        entries,
        reasons,
        labels=(*few, *(f"selection {selection.text}" for selection in plan.selections)),
        selections=tuple(selection.text for selection in plan.selections),
        dropped_objects=dropped,
        arrays={"x": compute(plan.metadata.observables, names), **truth},
    )


def read_theta(plan: ReadingPlan, start: int, stop: int) -> Array | None:
    """Return theta of the entries [start, stop), (stop - start, p), or None."""
    if plan.point is not None:
        return np.tile(np.array(plan.point), (stop - start, 1))
    columns = [plan.tree.scalars(branch, start, stop) for branch in plan.theta]
    return np.column_stack(columns) if columns else None


def _objects(
    plan: ReadingPlan, start: int, stop: int
) -> tuple[dict[str, Objects], dict[str, int]]:
    """Return the objects of each collection by symbol, and how many were dropped by sentence."""
    objects: dict[str, Objects] = {}
    dropped: dict[str, int] = {}
    for collection in plan.objects:
        branches, sentence = collection.branches, collection.selection
        found, n_dropped = read_objects(
            plan.tree, branches, start, stop, sentence, collection.further
        )
        objects[branches.symbol] = found
        if sentence is not None:
            dropped[f"{branches.name} {sentence.text}"] = n_dropped
    for union in plan.unions:
        parts = [objects[part] for part in union.union.parts]
        objects[union.symbol] = Objects.together(parts)
    return objects, dropped


def _names(
    plan: ReadingPlan,
    objects: dict[str, Objects],
    entries: NDArray[np.intp],
    span: tuple[int, int],
) -> dict[str, Any]:
    """Return what the names of sentences stand for, in the events at `entries` of a range."""
    names: dict[str, Any] = {}
    for collection in (*plan.objects, *plan.unions):
        symbol = collection.symbol
        names[symbol] = objects[symbol].leading(collection.n_needed, entries)
        further = objects[symbol].leading_further(collection.n_needed, entries)
        names |= {f"{symbol}.{name}": columns for name, columns in further.items()}
        names[f"n({symbol})"] = objects[symbol].counts[entries].astype(np.float64)
        names[f"sum_pt({symbol})"] = objects[symbol].sum_pt()[entries]
    if plan.missing is not None:
        names["met"] = read_missing(plan.tree, plan.missing, *span).take(entries)
    return names | {branch: plan.tree.scalars(branch, *span)[entries] for branch in plan.columns}


def _truth(plan: ReadingPlan, start: int, stop: int) -> dict[str, Array]:
    """Return what travels with all entries, where the tree or the request has it."""
    tree = plan.tree
    arrays: dict[str, Array] = {}
    theta = read_theta(plan, start, stop)
    if theta is not None:
        arrays["theta"] = theta
        _require_declared(plan, theta)
    if plan.score:
        arrays["score"] = np.column_stack([tree.scalars(b, start, stop) for b in plan.score])
    if plan.weight is not None:
        arrays["weight"] = tree.scalars(plan.weight, start, stop)
    if plan.components is not None and plan.metadata.morphing is not None:
        n = len(plan.metadata.morphing.exponents)
        arrays["components"] = _rows(plan, plan.components, n, "exponent", (start, stop))
    benchmarks = plan.metadata.benchmarks
    if benchmarks is not None:
        n = benchmarks.number
        rows = _rows(plan, benchmarks.branch, n, "benchmark", (start, stop))
        relative = plan.relative and "weight" in arrays
        arrays["benchmark_weight"] = rows * arrays["weight"][:, None] if relative else rows
    return arrays


def _require_declared(plan: ReadingPlan, theta: Array) -> None:
    """Refuse theta outside the range that the file declares."""
    ranges = plan.metadata.parameter_ranges
    slack = _RANGE_SLACK * np.abs(ranges).max(axis=1, initial=0.0)
    outside = (theta < ranges[:, 0] - slack) | (theta > ranges[:, 1] + slack)
    if plan.theta and outside.any():
        k = int(np.argmax(outside.any(axis=0)))
        worst = theta[int(np.argmax(outside[:, k])), k]
        msg = (
            f"{plan.tree.path}: {plan.theta[k]!r} of "
            f"{counted(int(outside[:, k].sum()), 'event')} lies outside the range that the "
            f"metadata declare, {ranges[k].tolist()} (e.g. {worst:.6g}). The file was merged or "
            "changed: write it again with metadata that fit."
        )
        raise EventDataError(msg)


def _rows(plan: ReadingPlan, branch: str, n: int | None, of: str, span: tuple[int, int]) -> Array:
    """Return n numbers of each event, (N, n); n is that of the first event where not known."""
    counts, values = plan.tree.lists(branch, *span)
    n_expected = n if n is not None else int(counts[0]) if len(counts) else 1
    if (counts != n_expected).any():
        i = int(np.argmax(counts != n_expected))
        whose = f"one for each {of} of the metadata" if n is not None else "as many as in others"
        msg = (
            f"{plan.tree.path}: {branch!r} holds {counts[i]} numbers in event {span[0] + i}; "
            f"expected {n_expected}, {whose}. Write the file again with metadata and branches "
            "that agree."
        )
        raise EventDataError(msg)
    if n_expected == 0:
        msg = f"{plan.tree.path}: {branch!r} is empty in all events; expected weights."
        raise EventDataError(msg)
    return values.reshape(-1, n_expected)


def _taken(value: Any, mask: NDArray[np.bool_]) -> Any:  # noqa: ANN401
    if isinstance(value, np.ndarray):
        return value[mask]
    if isinstance(value, PlanarMomentum):
        return value.take(mask)
    objects: tuple[FourMomentum | Array, ...] = value
    return tuple(one[mask] if isinstance(one, np.ndarray) else one.take(mask) for one in objects)
