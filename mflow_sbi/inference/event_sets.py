r"""log L_s(theta) = sum_{i in s} log p(u_i|theta) of many sets of observed events at once.

All events of all sets stand in one table, encoded once.  One call of the latent density per block
of (points x events) serves every set, and the sums over the events of each set follow; sets of
different sizes leave no gaps.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.inference.cached import CHUNK_ROWS, CachedLikelihood, EncodedEvents
from mflow_sbi.inference.checks import as_events, checked_values
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array, EncodedLikelihood, LogProbs

__all__ = ["CachedEventSets"]


class CachedEventSets:
    r"""log L_s(theta) of S sets of observed events, of any sizes, up to constants in theta.

    Args:
        surrogate: the learned likelihood, physical units in.
        sets: observed events of each set, (N_s, n), physical units (GeV).
        chunk_rows: pairs of a point and an event per call of the latent density; bounds the
            memory.

    Raises:
        ShapeError: a set is not (N_s, n), sets of different n, theta of another shape, or the
            surrogate's density does not broadcast.
        EventDataError: no sets, a set without events, or with non-finite observables.
        LikelihoodError: the latent density is NaN or +inf at some theta.
    """

    def __init__(
        self,
        surrogate: EncodedLikelihood,
        sets: Sequence[Array],
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        tables = _tables(sets)
        self._names = tuple(surrogate.parameter_names)
        self._events = EncodedEvents.encode(surrogate, np.concatenate(tables), chunk_rows)
        self._sizes = np.array([len(table) for table in tables])
        self._first = np.concatenate([[0], np.cumsum(self._sizes)])
        set_of_event = np.repeat(np.arange(len(tables)), self._sizes)
        self._set_of_event = torch.as_tensor(set_of_event, device=self._events.latents.device)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self._sizes)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of events of each set, (S,)."""
        return self._sizes.copy()

    def likelihood_of(self, index: int) -> CachedLikelihood:
        """Return the likelihood of one set; its events are not encoded again.

        Raises:
            ShapeError: there is no such set.
        """
        if not 0 <= index < self.n_sets:
            message = f"likelihood_of: expected a set from 0 to {self.n_sets - 1}, got {index}"
            raise ShapeError(message)
        events = slice(int(self._first[index]), int(self._first[index + 1]))
        return CachedLikelihood.from_encoded(self._events.part(events))

    @torch.no_grad()
    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        points = as_points(theta, len(self._names))
        total = np.zeros((len(points), self.n_sets))
        rows = self._events.as_theta(points[:, None])
        for some, events in self._events.blocks(len(points)):
            self._add(total[some], events, self._events.log_densities(events, rows[some]))
        return self._checked(total, points[:, None])

    @torch.no_grad()
    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, theta[:, s] for set s, (M, S, p) -> (M, S).

        One step of S vectorised chains.
        """
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim != 3 or points.shape[1:] != (self.n_sets, len(self._names)):
            message = (
                f"theta: expected shape (M, {self.n_sets}, {len(self._names)}), points of each of "
                f"{self.n_sets} sets, got {points.shape}"
            )
            raise ShapeError(message)
        total = np.zeros(points.shape[:2])
        rows = self._events.as_theta(points)
        for some, events in self._events.blocks(len(points)):
            own = rows[some].index_select(1, self._set_of_event[events])
            self._add(total[some], events, self._events.log_densities(events, own))
        return self._checked(total, points)

    def _add(self, total: Array, events: slice, values: LogProbs) -> None:
        """Add the values (M, N') of some events to the sums (M, S) of their sets."""
        first, last = np.searchsorted(self._first, [events.start, events.stop - 1], side="right")
        starts = np.maximum(self._first[first - 1 : last] - events.start, 0)
        sums = np.add.reduceat(values.double().cpu().numpy(), starts, axis=1)
        total[:, first - 1 : last] += sums

    def _checked(self, total: Array, points: Array) -> Array:
        """Return the values (M, S) at points (M, S or 1, p); refuse NaN and +inf by set."""
        good = total < np.inf
        if not good.all():
            s = int(np.argmin(good.all(axis=0)))
            at = np.broadcast_to(points, (*total.shape, len(self._names)))[:, s]
            checked_values(total[:, s], at, self._names, f"log likelihood of set {s}")
        return total


def _tables(sets: Sequence[Array]) -> list[Array]:
    """Return sets of events as float64 tables of one width."""
    tables = [as_events(f"set {s}", x) for s, x in enumerate(sets)]
    if not tables:
        message = "sets: expected at least one set of observed events, got none"
        raise EventDataError(message)
    for s, table in enumerate(tables):
        if table.shape[1] != tables[0].shape[1]:
            message = (
                f"set {s}: expected {tables[0].shape[1]} observables as in set 0, got "
                f"{table.shape[1]}"
            )
            raise ShapeError(message)
    return tables
