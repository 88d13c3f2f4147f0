r"""The upper tail of a quantity over training events, in a few hundred numbers.

The share of n training events that are at least as extreme as an observed one, the observed one
counted in, is a p-value at any n:

    p = (1 + #{i: t_i >= t}) / (n + 1).

The most extreme events are kept one by one, the others ever more sparsely, with a share between
them interpolated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.interfaces import Array

__all__ = ["TrainingTail"]

_ONE_BY_ONE = 200
_SPARSE = 200


@dataclass(frozen=True)
class TrainingTail:
    """Training events in the order of a quantity, the most extreme first.

    Args:
        n_events: n.
        n_infinite: events beyond all numbers, e.g. without a point on the surface.
        ranks: of the kept events, increasing, the first finite one being n_infinite + 1.
        values: of the quantity there, decreasing.

    Raises:
        EventDataError: no events, or ranks and values that are no tail.

    Example:
        >>> tail = TrainingTail.of(np.arange(1.0, 1000.0))
        >>> tail.p_values(np.array([2000.0, 999.0, 500.0])).round(3)
        array([0.001, 0.002, 0.501])
    """

    n_events: int
    n_infinite: int
    ranks: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        ranks, values = np.asarray(self.ranks), np.asarray(self.values, dtype=np.float64)
        ordered = bool((np.diff(ranks) > 0).all() and (np.diff(values) <= 0).all())
        inside = not len(ranks) or (ranks[0] == self.n_infinite + 1 and ranks[-1] == self.n_events)
        fits = len(ranks) == len(values) and (len(ranks) > 0 or self.n_infinite == self.n_events)
        if self.n_events < 1 or not (ordered and inside and fits and np.isfinite(values).all()):
            message = (
                f"training tail: expected falling values at rising ranks of {self.n_events} "
                f"events, got {len(ranks)} ranks and {len(values)} values"
            )
            raise EventDataError(message)

    @classmethod
    def of(cls, extremity: Array) -> "TrainingTail":
        """Return the tail of t_i (n,), +inf allowed.

        Raises:
            EventDataError: no events, NaN or -inf.
        """
        t = np.asarray(extremity, dtype=np.float64)
        if t.ndim != 1 or not len(t) or not (t > -np.inf).all():
            message = f"training tail: expected numbers (n,) or +inf, n > 0, got {t}"
            raise EventDataError(message)
        falling = np.sort(t)[::-1]
        n_infinite = int(np.isposinf(falling).sum())
        n = len(t) - n_infinite
        kept = np.unique(
            np.concatenate([np.arange(_ONE_BY_ONE), np.geomspace(1, n, _SPARSE).astype(int) - 1])
            if n
            else np.empty(0, dtype=int)
        )
        kept = kept[kept < n]
        return cls(
            len(t),
            n_infinite,
            tuple((kept + 1 + n_infinite).tolist()),
            tuple(falling[n_infinite:][kept].tolist()),
        )

    def counts(self, extremity: Array) -> Array:
        """Return how many training events are at least as extreme, (N,) -> (N,)."""
        t = np.asarray(extremity, dtype=np.float64)
        if not self.ranks:
            return np.full(t.shape, float(self.n_infinite))
        rising, ranks = np.asarray(self.values)[::-1], np.asarray(self.ranks)[::-1]
        place = np.searchsorted(rising, t, side="left")  # kept events below t
        above = np.where(place < len(ranks), ranks[np.minimum(place, len(ranks) - 1)], 0.0)
        above = np.maximum(above, self.n_infinite)
        below = ranks[np.maximum(place - 1, 0)] - 1.0
        return np.where(place == 0, float(self.n_events), self._between(t, place, above, below))

    def p_values(self, extremity: Array) -> Array:
        """Return (1 + count) / (n + 1), (N,) -> (N,)."""
        return (1.0 + self.counts(extremity)) / (self.n_events + 1.0)

    def _between(self, t: Array, place: NDArray[np.intp], above: Array, below: Array) -> Array:
        """Return counts between two kept events, by where t lies between their values."""
        rising = np.asarray(self.values)[::-1]
        low = rising[np.maximum(place - 1, 0)]
        high = rising[np.minimum(place, len(rising) - 1)]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(high > low, (high - t) / (high - low), 0.0)
        return above + np.ceil(np.clip(share, 0.0, 1.0) * np.maximum(below - above, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "n_events": self.n_events,
            "n_infinite": self.n_infinite,
            "ranks": list(self.ranks),
            "values": list(self.values),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TrainingTail":
        """Return the tail written by `to_dict`."""
        return cls(
            record["n_events"],
            record["n_infinite"],
            tuple(record["ranks"]),
            tuple(record["values"]),
        )
