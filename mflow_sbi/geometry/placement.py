r"""Are observed events where the surrogate has learned?  One answer for every event.

An event's p-value is the smallest over the quantities of the reference, times their number
(Bonferroni): on events like the training events it is below `level` for at most that share.
Events without a point on the surface are outside at every level.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import ConfigurationError, EventDataError, OffManifoldError, ShapeError
from mflow_sbi.geometry.surface_reference import (
    DENSITY,
    ERROR,
    SurfaceReference,
    event_quantities,
)
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = ["PLACEMENT_HEADER", "Placement", "place"]

PLACEMENT_HEADER = ("event", "quantity", "value", "training events beyond", "p", "verdict")
LEVEL = 1e-3
_LISTED = 5


@dataclass(frozen=True, eq=False)
class Placement:
    """Where N observed events lie among the training events.

    Args:
        level: p-value below which an event is outside.
        n_training: training events in the reference.
        has_point: whether the surface has a point for the event, (N,).
        quantities: name -> value, (N,): `reconstruction error`, `low density` (-log density), or
            `largest observable`; +inf without a point.
        beyond: name -> percentage of training events that are at least as extreme, (N,).
        below_floor: whether the reconstruction error is what rounding to float32 does, (N,).
        p_value: of each event, (N,).
    """

    level: float
    n_training: int
    has_point: NDArray[np.bool_]
    quantities: Mapping[str, Array]
    beyond: Mapping[str, Array]
    below_floor: NDArray[np.bool_]
    p_value: Array

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Whether each event is outside, (N,)."""
        return ~self.has_point | (self.p_value < self.level)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Mask of the events that are not outside, (N,)."""
        return ~self.outside

    @property
    def expected_by_chance(self) -> float:
        """Events expected outside if all are like training events, at most."""
        return self.level * len(self.p_value)

    @property
    def error_percentile(self) -> Array | None:
        """Percentage of training events with a smaller reconstruction error, (N,)."""
        return 100.0 - self.beyond[ERROR] if ERROR in self.beyond else None

    @property
    def log_density(self) -> Array | None:
        """Log density of each event, averaged over training thetas, (N,)."""
        return -self.quantities[DENSITY] if DENSITY in self.quantities else None

    @property
    def log_density_percentile(self) -> Array | None:
        """Percentage of training events with a density as small, (N,)."""
        return self.beyond[DENSITY] if DENSITY in self.beyond else None

    @property
    def statement(self) -> str:
        """One sentence: how many events are outside, which, and how many chance would give."""
        which = np.flatnonzero(self.outside)
        words = (
            f"{len(which)} of {len(self.p_value)} observed events lie outside the training "
            f"events (level {self.level:g}; by chance at most {self.expected_by_chance:.2g})"
        )
        if not len(which):
            return words
        listed = ", ".join(str(i) for i in which[:_LISTED])
        more = f" and {len(which) - _LISTED} more" if len(which) > _LISTED else ""
        lost = int((~self.has_point).sum())
        return f"{words}: {listed}{more}" + (f"; {lost} have no point on it" if lost else "")

    def rows(self, which: NDArray[np.intp] | None = None) -> list[tuple[str, ...]]:
        """Return lines of text under `PLACEMENT_HEADER`, for events outside or those named."""
        events = np.flatnonzero(self.outside) if which is None else which
        return [self._row(int(i), name) for i in events for name in self.quantities]

    def _row(self, event: int, name: str) -> tuple[str, ...]:
        value = self.quantities[name][event]
        floored = name == ERROR and self.below_floor[event]
        verdict = "outside" if self.outside[event] else "inside"
        return (
            str(event),
            name,
            ("no point" if np.isposinf(value) else f"{value:.3g}")
            + (" (rounding)" if floored else ""),
            f"{self.beyond[name][event]:.3g}%",
            f"{self.p_value[event]:.2g}",
            verdict,
        )

    def require_inside(self) -> None:
        """Refuse events outside.

        Raises:
            OffManifoldError: there are any.
        """
        if self.outside.any():
            message = (
                f"{self.statement}; the likelihood means nothing for them: exclude them, or find "
                "out what they are"
            )
            raise OffManifoldError(message)


def place(
    surrogate: TrainedSurrogate, reference: SurfaceReference, x: Array, level: float = LEVEL
) -> Placement:
    """Return where observed events (N, n), physical units, lie among the training events.

    Args:
        surrogate: trained.
        reference: made from its training events.
        x: observed events.
        level: p-value below which an event is outside.

    Raises:
        RunFolderError: the reference is of another surrogate.
        ShapeError: x is not (N, n).
        EventDataError: no events, or non-finite observables.
        ConfigurationError: a level outside (0, 1), or one that the reference cannot reach.
    """
    reference.require_of(surrogate)
    rows = _as_events(x, surrogate.surrogate.ambient_dim)
    _require_level(level, reference)
    found = event_quantities(surrogate, rows, np.array(reference.thetas))
    beyond, p_values = {}, []
    floor = np.zeros(len(rows), dtype=np.bool_)
    for name, values in found.extremities.items():
        tail = reference.tails[name]
        counts, p_value = tail.counts(values), tail.p_values(values)
        if name == ERROR:
            floor = values <= found.floor
            p_value = np.where(floor, 1.0, p_value)
        beyond[name] = 100.0 * counts / tail.n_events
        p_values.append(p_value)
    p_value = np.minimum(1.0, len(p_values) * np.min(p_values, axis=0))
    return Placement(
        level, reference.n_events, found.has_point, found.extremities, beyond, floor, p_value
    )


def _require_level(level: float, reference: SurfaceReference) -> None:
    least = len(reference.tails) / (reference.n_events + 1)
    if not 0 < level < 1 or least >= level:
        message = (
            f"level: expected a number between {least:.2g}, the smallest p-value that a reference "
            f"of {reference.n_events} events gives, and 1, got {level}"
        )
        raise ConfigurationError(message)


def _as_events(x: Array, columns: int) -> Array:
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != columns:
        message = f"observed events: expected shape (N, {columns}), got {rows.shape}"
        raise ShapeError(message)
    if not len(rows) or not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        message = f"observed events: expected finite events, got {len(rows)} with {bad} not finite"
        raise EventDataError(message)
    return rows
