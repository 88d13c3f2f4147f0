"""From a range of entries of one tree to the arrays of the events kept."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.expressions import FourMomentum
from mflow_sbi.events.observables import compute
from mflow_sbi.events.particles import read_objects
from mflow_sbi.events.plan import ReadingPlan
from mflow_sbi.events.sample import SelectionReport
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = ["KeptEvents", "read_entries"]


@dataclass(frozen=True, eq=False)
class KeptEvents:
    """The events kept from a range of entries.

    Attributes:
        entries: Their numbers, counted from the start of the range, (n,).
        reasons: For every entry of the range 0 if kept, else 1 + the number of its label.
        labels: Reasons for which entries are dropped.
        selections: Sentences that events had to satisfy.
        arrays: x and the truth that travels along, by name, (n, ...).
    """

    entries: NDArray[np.intp]
    reasons: NDArray[np.intp]
    labels: tuple[str, ...]
    selections: tuple[str, ...]
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
        return KeptEvents(self.entries[:n], reasons, self.labels, self.selections, arrays)

    @property
    def report(self) -> SelectionReport:
        """Entries read, kept, and dropped by reason."""
        counts = np.bincount(self.reasons, minlength=len(self.labels) + 1)
        dropped = dict(zip(self.labels, counts[1:].tolist(), strict=True))
        return SelectionReport(len(self.reasons), len(self), dropped, self.selections)


def read_entries(plan: ReadingPlan, start: int, stop: int) -> KeptEvents:
    """Read the entries [start, stop): drop, compute, and pick the truth of the events kept.

    Raises:
        EventFileError: A branch cannot be read.
        EventDataError: Numbers that are not finite or not physical, branches of unequal lengths.
    """
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
    truth = {name: array[entries] for name, array in _truth(plan, start, stop).items()}
    return KeptEvents(
        entries,
        reasons,
        labels=tuple(_labels(plan)),
        selections=tuple(selection.text for selection in plan.selections),
        arrays={"x": compute(plan.metadata.observables, names), **truth},
    )


def _labels(plan: ReadingPlan) -> list[str]:
    few = [f"fewer than {counted(n, objects.name)}" for objects, n in plan.objects]
    return few + [f"selection {selection.text}" for selection in plan.selections]


def _truth(plan: ReadingPlan, start: int, stop: int) -> dict[str, Array]:
    """Return theta, score, weight and components of all entries, where the tree has them."""
    tree = plan.tree
    columns = {
        "theta": [tree.scalars(branch, start, stop) for branch in plan.theta],
        "score": [tree.scalars(branch, start, stop) for branch in plan.score],
    }
    arrays = {name: np.column_stack(values) for name, values in columns.items() if values}
    if plan.weight is not None:
        arrays["weight"] = tree.scalars(plan.weight, start, stop)
    if plan.components is not None:
        arrays["components"] = _components(plan, start, stop)
    return arrays


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
