r"""Posterior predictive checks: do events of the fitted theory look like the observed ones?

Replicated sets are drawn at draws of the posterior.  For each observable the distance of a set of
N events is the largest gap between its distribution function and that of all sets together,

    D_j = sqrt(N) sup_x |F_j(x) - F_j^all(x)|,

and p_j is the share of sets, observed one included, whose distance is as large.  The smallest p_j
of many observables is small by chance; the look-elsewhere p is the share of sets whose largest
distance in any observable is as large, correlations included.  The posterior has seen the events,
which makes all these p-values larger than uniform, never smaller on average: a small one is to be
believed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["PredictiveCheck", "SamplesEvents", "draw_replicas", "predictive_check"]


class SamplesEvents(Protocol):
    """A surrogate or simulator that draws events in physical units."""

    def sample(self, theta: Array, seed: int) -> Array:
        """Return one event per row of theta, (N, p) -> (N, n)."""
        ...


@dataclass(frozen=True)
class PredictiveCheck:
    """Observed events beside replicated ones, observable by observable.

    Args:
        observables: their n names.
        distances: D_j of the observed set.
        p_values: share of sets at least as far away, for each observable.
        global_p: of the largest distance, with the look-elsewhere effect.
        n_replicas: R, replicated sets.
    """

    observables: tuple[str, ...]
    distances: tuple[float, ...]
    p_values: tuple[float, ...]
    global_p: float
    n_replicas: int

    @property
    def worst(self) -> str:
        """Name of the observable with the smallest p-value."""
        return self.observables[int(np.argmin(self.p_values))]

    @property
    def statement(self) -> str:
        """One sentence with both p-values."""
        return (
            f"smallest of {len(self.observables)} p-values: {min(self.p_values):.3f} "
            f"({self.worst}); as far off in any of them by chance: {self.global_p:.3f}"
        )

    def rows(self) -> list[tuple[str, str, str]]:
        """Return lines of text: observable, distance, p; smallest p first."""
        order = np.argsort(self.p_values, kind="stable")
        return [
            (self.observables[j], f"{self.distances[j]:.3f}", f"{self.p_values[j]:.3f}")
            for j in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


def draw_replicas(
    surrogate: SamplesEvents, draws: Array, sizes: Sequence[int] | NDArray[np.int64], seed: int
) -> list[Array]:
    """Return a replicated set of events at every posterior draw.

    Args:
        surrogate: draws events.
        draws: posterior draws, (R, p).
        sizes: events of each set, R numbers: the observed number, or Poisson counts at the draws.
        seed: of the events.

    Raises:
        ShapeError: not one size per draw.
    """
    numbers = np.asarray(sizes, dtype=np.int64)
    if draws.ndim != 2 or numbers.shape != (len(draws),):
        message = f"expected draws (R, p) and R sizes, got {draws.shape} and {numbers.shape}"
        raise ShapeError(message)
    events = surrogate.sample(np.repeat(draws, numbers, axis=0), seed)
    return np.split(events, np.cumsum(numbers)[:-1])


def predictive_check(
    observed: Array, replicas: Sequence[Array], observables: Sequence[str]
) -> PredictiveCheck:
    """Return how observed events (N, n) stand among replicated sets (N_r, n).

    Raises:
        ShapeError: columns do not match.
        EventDataError: fewer than 19 replicas (no p below 5%), an empty set, non-finite numbers.
    """
    sets = [np.asarray(x, dtype=np.float64) for x in (observed, *replicas)]
    _require_fitting(sets, len(observables))
    everything = np.sort(np.concatenate(sets), axis=0)
    distances = np.array(
        [
            [_distance(own, all_) for own, all_ in zip(np.sort(x.T), everything.T, strict=True)]
            for x in sets
        ]
    )
    p_values = _shares_as_large(distances)
    largest = distances.max(axis=1, keepdims=True)
    return PredictiveCheck(
        tuple(observables),
        tuple(distances[0].tolist()),
        tuple(p_values[0].tolist()),
        float(_shares_as_large(largest)[0, 0]),
        len(replicas),
    )


def _distance(own: Array, everything: Array) -> float:
    """Return sqrt(N) sup |F - F_all| of sorted values; F is constant between them."""
    gaps = [
        np.searchsorted(own, own, side) / len(own)
        - np.searchsorted(everything, own, side) / len(everything)
        for side in ("left", "right")
    ]
    return float(np.sqrt(len(own)) * np.abs(gaps).max())


def _shares_as_large(values: Array) -> Array:
    """Return the share of rows that are at least as large, column by column, (S, n)."""
    return (len(values) + 1 - rankdata(values, method="min", axis=0)) / len(values)


def _require_fitting(sets: Sequence[Array], n_observables: int) -> None:
    for x in sets:
        if x.ndim != 2 or x.shape[1] != n_observables:
            message = f"expected sets of events (N, {n_observables}), got {x.shape}"
            raise ShapeError(message)
        if not len(x) or not np.isfinite(x).all():
            message = f"expected finite events in every set, got {len(x)} events"
            raise EventDataError(message)
    if len(sets) < 20:
        message = f"expected at least 19 replicated sets, got {len(sets) - 1}; draw more"
        raise EventDataError(message)
