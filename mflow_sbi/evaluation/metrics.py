r"""Numbers that may be compared across recipes: posteriors, closure, reconstruction, marginals.

Densities on different measures are never compared.  A posterior is judged by its total variation
to the exact one on a common grid and by its log density at the truth, next to the prior's; events
by the published closure test (`mflow_sbi.events.observables.closure`) and by two-sample distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.inference import GridPosterior
from mflow_sbi.interfaces import Array

__all__ = [
    "MarginalDistance",
    "PosteriorMetrics",
    "ProjectionMetrics",
    "marginal_distances",
    "posterior_metrics",
    "projection_metrics",
    "reconstruction_error",
]

_CLIP = 10.0
_KS_95 = 1.358  # Kolmogorov distribution: sqrt(n m / (n + m)) KS exceeds this with 5 %


@dataclass(frozen=True)
class PosteriorMetrics:
    """One posterior in numbers.

    Args:
        mean: posterior means, (p,), in units of the parameters.
        width: posterior standard deviations, (p,).
        entropy: differential entropy, nats.
        log_prob_at_truth: log p(theta*|x); None where the truth is unknown.
        total_variation: 1/2 integral |p - exact|, in [0, 1]; None without an exact posterior.
        kullback_leibler: integral exact log(exact / p), nats; None without an exact posterior.
        resolved: whether the grid is fine and wide enough for this posterior.
    """

    mean: tuple[float, ...]
    width: tuple[float, ...]
    entropy: float
    log_prob_at_truth: float | None
    total_variation: float | None
    kullback_leibler: float | None
    resolved: bool


@dataclass(frozen=True)
class MarginalDistance:
    """How far one observable of generated events is from that of simulated ones.

    Args:
        name: of the observable.
        kolmogorov_smirnov: largest distance of the two empirical distribution functions.
        noise: what 5 % of the pairs of equal distributions exceed at these numbers of events.
        wasserstein: integral |F - G|, in standard deviations of the simulated events.
    """

    name: str
    kolmogorov_smirnov: float
    noise: float
    wasserstein: float


@dataclass(frozen=True)
class ProjectionMetrics:
    """What projections of test events onto a surface say.

    Args:
        n_without_projection: events for which no point of the surface was found; they are left
            out of the rest.
        reconstruction_error: of the others, see `reconstruction_error`; None if there are none.
    """

    n_without_projection: int
    reconstruction_error: float | None


def posterior_metrics(
    posterior: GridPosterior, exact: GridPosterior | None, truth: Array | None
) -> PosteriorMetrics:
    """Return the metrics of a posterior.

    Args:
        posterior: the posterior to be judged.
        exact: the exact posterior on the same grid, if known.
        truth: the parameters behind the observed events, (p,), if known.

    Raises:
        ShapeError: the grids differ, or truth is not (p,).
    """
    at_truth = None
    if truth is not None:
        point = np.asarray(truth, dtype=np.float64)
        if point.shape != (len(posterior.parameter_names),):
            message = (
                f"truth: expected shape ({len(posterior.parameter_names)},), got {point.shape}"
            )
            raise ShapeError(message)
        at_truth = float(posterior.log_prob_at(point[None])[0])
    return PosteriorMetrics(
        mean=tuple(posterior.mean.tolist()),
        width=tuple(posterior.std.tolist()),
        entropy=posterior.entropy,
        log_prob_at_truth=at_truth,
        total_variation=None if exact is None else posterior.total_variation(exact),
        kullback_leibler=None if exact is None else exact.kullback_leibler(posterior),
        resolved=posterior.is_resolved,
    )


def reconstruction_error(x: Array, projected: Array) -> float:
    """Return mean_i min(|x_i - x'_i|_2, 10), both standardised, (N, n).

    The published measure (arXiv:2003.13913): random pairs of standard normal events in 40
    dimensions have about 8.9.

    Raises:
        ShapeError: the arrays are not (N, n) of one shape.
        EventDataError: no events, or numbers that are not finite.

    Example:
        >>> reconstruction_error(np.zeros((2, 4)), np.ones((2, 4)))
        2.0
    """
    x, projected = _as_events("x", x), _as_events("projected", projected)
    if x.shape != projected.shape:
        message = f"expected x and projected of one shape, got {x.shape} and {projected.shape}"
        raise ShapeError(message)
    return float(np.minimum(np.linalg.norm(x - projected, axis=1), _CLIP).mean())


def projection_metrics(x: Array, projected: Array, found: NDArray[np.bool_]) -> ProjectionMetrics:
    """Return how far events are from their projections, and how many have none.

    Args:
        x: standardised events, (N, n).
        projected: their projections, (N, n), of any value where there is none.
        found: whether there is one, (N,).

    Raises:
        ShapeError: the arrays do not fit each other.
        EventDataError: numbers that are not finite where there is a projection.

    Example:
        >>> x = np.zeros((3, 4))
        >>> projection_metrics(x, x + 1.0, np.array([True, False, True]))
        ProjectionMetrics(n_without_projection=1, reconstruction_error=2.0)
    """
    if found.shape != x.shape[:1] or projected.shape != x.shape:
        message = (
            f"expected x and projected of one shape and flags ({len(x)},), got {x.shape}, "
            f"{projected.shape} and {found.shape}"
        )
        raise ShapeError(message)
    error = reconstruction_error(x[found], projected[found]) if found.any() else None
    return ProjectionMetrics(int((~found).sum()), error)


def marginal_distances(
    x_simulated: Array, x_generated: Array, names: Sequence[str]
) -> tuple[MarginalDistance, ...]:
    r"""Return sup |F - G| and integral |F - G| / sigma of every observable.

    F and G are the empirical distribution functions, sigma the simulated standard deviation.

    Args:
        x_simulated: (N, n), any units.
        x_generated: (M, n), the same units.
        names: of the n observables.

    Raises:
        ShapeError: the columns do not match.
        EventDataError: no events, or numbers that are not finite.

    Example:
        >>> x = np.linspace(0, 1, 1000)[:, None]
        >>> (distance,) = marginal_distances(x, x + 0.1, ["pt_j1"])
        >>> round(distance.kolmogorov_smirnov, 2), round(distance.wasserstein, 2)
        (0.1, 0.35)
    """
    simulated = _as_events("x_simulated", x_simulated)
    generated = _as_events("x_generated", x_generated)
    if not simulated.shape[1] == generated.shape[1] == len(names):
        message = (
            f"expected as many columns as names ({len(names)}), got {simulated.shape[1]} "
            f"simulated and {generated.shape[1]} generated"
        )
        raise ShapeError(message)
    n, m = len(simulated), len(generated)
    noise = _KS_95 * float(np.sqrt((n + m) / (n * m)))
    distances = []
    for k, name in enumerate(names):
        a, b = np.sort(simulated[:, k]), np.sort(generated[:, k])
        values = np.sort(np.concatenate([a, b]))
        gap = np.abs(
            np.searchsorted(a, values, side="right") / n
            - np.searchsorted(b, values, side="right") / m
        )
        area = float(gap[:-1] @ np.diff(values))
        spread = float(a.std())
        wasserstein = area / spread if spread > 0 else (0.0 if area == 0 else np.inf)
        distances.append(MarginalDistance(name, float(gap.max()), noise, wasserstein))
    return tuple(distances)


def _as_events(name: str, x: Array) -> Array:
    """Return (N, n) float64, N > 0, finite, or say what came."""
    events = np.asarray(x, dtype=np.float64)
    if events.ndim != 2:
        message = f"{name}: expected shape (N, n), got {events.shape}"
        raise ShapeError(message)
    if not len(events) or not np.isfinite(events).all():
        bad = int((~np.isfinite(events).all(axis=1)).sum())
        message = f"{name}: expected finite events, got {len(events)} with {bad} not finite"
        raise EventDataError(message)
    return events
