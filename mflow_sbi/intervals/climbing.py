r"""Local maxima of many log-likelihoods at once: Newton's method with a trust radius.

    step = |A|^-1 grad log L,    A = -Hess log L,

where |A| has the absolute eigenvalues of A, so that each step leads upwards from saddles too
(arXiv:1406.2572); it is not longer than a radius that doubles after a step up and shrinks after
one down.  Points stay in their box: a parameter at its limit whose slope points outwards is held
there.  A problem is done when the gain that a further step promises, 1/2 grad^T |A|^-1 grad, is
below the tolerance; it takes that step still.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.interfaces import Array
from mflow_sbi.intervals.parameters import Region
from mflow_sbi.intervals.sets import DifferentiableSets, LikelihoodSets, with_slopes

__all__ = ["Climb", "climb", "hesse_errors"]

TOLERANCE = 1e-6  # log-likelihood still to be gained
_DIFFERENCE = 1e-3  # of a typical size, for second derivatives; and not more than
_PART = 1e-2  # of a standard deviation
_PASSES = 3
_FLAT = 1e-7  # curvature in proportion to the largest
_KICK = 0.1  # standard deviations away from a saddle
_LARGEST_RADIUS = 50.0  # typical sizes
_SMALLEST_RADIUS = 1e-9

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Climb:
    """Where M points of S data sets ended.

    Args:
        points: maxima, (M, S, p).
        values: log L there, (M, S).
        converged: whether nothing is left to gain, (M, S).
    """

    points: Array
    values: Array
    converged: Flags


@dataclass
class _State:
    """Points on their way up, (M, S, p)."""

    points: Array
    values: Array
    slopes: Array
    radius: Array
    differences: Array
    converged: Flags
    stuck: Flags

    @property
    def moving(self) -> Flags:
        return ~(self.converged | self.stuck)


def _typical_sizes(region: Region, around: Array) -> Array:
    """Return a length for each parameter: a tenth of its limits, or of its size or one, (p,).

    Args:
        region: the limits.
        around: points near which log L is of interest, (..., p).
    """
    width = region.box[:, 1] - region.box[:, 0]
    size = np.abs(around).reshape(-1, len(width)).max(axis=0, initial=0.0)
    return 0.1 * np.where(np.isfinite(width), width, np.maximum(size, 1.0))


def climb(sets: LikelihoodSets, starts: Array, region: Region, max_steps: int = 80) -> Climb:
    """Return the local maximum that each start leads to.

    Args:
        sets: log L of S data sets.
        starts: (M, S, p), inside the region; parameters that are not free stay.
        region: limits, and which parameters are free.
        max_steps: Newton steps at most.
    """
    sizes = _typical_sizes(region, starts)
    slopes_of = with_slopes(sets, _DIFFERENCE * sizes)
    points = starts.copy()
    values, slopes = slopes_of.slopes_at_own_points(points)
    if not region.free.any():
        return Climb(points, values, np.isfinite(values))
    state = _State(
        points,
        values,
        slopes,
        radius=np.ones(values.shape),
        differences=np.broadcast_to(_DIFFERENCE * sizes, points.shape).copy(),
        converged=np.zeros(values.shape, dtype=bool),
        stuck=np.isneginf(values),
    )
    for _ in range(max_steps):
        rows = np.flatnonzero(state.moving.any(axis=1))
        if len(rows) == 0:
            break
        _step(slopes_of, state, rows, region, sizes)
    return Climb(state.points, state.values, state.converged)


def hesse_errors(sets: LikelihoodSets, points: Array, region: Region) -> Array:
    """Return sqrt of the diagonal of |A|^-1 at the points, (M, S, p); 0 for fixed parameters."""
    sizes = _typical_sizes(region, points)
    slopes_of = with_slopes(sets, _DIFFERENCE * sizes)
    slopes = slopes_of.slopes_at_own_points(points)[1]
    active = np.broadcast_to(region.free, points.shape)
    differences = np.broadcast_to(_DIFFERENCE * sizes, points.shape)
    errors = np.zeros_like(points)
    for _ in range(_PASSES):
        curvature = _curvature(slopes_of, points, slopes, differences, region) * _outer(sizes)
        values, vectors, _ = _absolute(curvature, active)
        errors = _widths(values, vectors) * sizes
        differences = _finer(differences, errors)
    return np.where(active, errors, 0.0)


def _step(
    sets: DifferentiableSets, state: _State, rows: NDArray[np.intp], region: Region, sizes: Array
) -> None:
    """Take one step at the given rows of points, in units of the sizes."""
    points, slopes, radius = state.points[rows], state.slopes[rows], state.radius[rows]
    low, high = region.box.T
    outwards = ((points <= low) & (slopes < 0)) | ((points >= high) & (slopes > 0))
    active = region.free & ~outwards
    differences = state.differences[rows]
    curvature = _curvature(sets, points, slopes, differences, region) * _outer(sizes)
    values, vectors, negative = _absolute(curvature, active)
    step, gain = _newton(np.where(active, slopes * sizes, 0.0), values, vectors, negative)
    step = np.where(active, step, 0.0)
    moving = state.moving[rows]
    state.converged[rows] |= (gain < TOLERANCE) & moving
    length = np.linalg.norm(step, axis=-1)
    reach = np.minimum(length, radius)
    share = reach / np.where(length > 0, length, 1.0)
    proposed = np.clip(points + sizes * step * share[..., None], low, high)
    heights, new_slopes = sets.slopes_at_own_points(proposed)
    better = (heights > state.values[rows]) & moving
    state.points[rows] = np.where(better[..., None], proposed, points)
    state.slopes[rows] = np.where(better[..., None], new_slopes, slopes)
    state.values[rows] = np.where(better, heights, state.values[rows])
    wider = np.clip(2 * reach, radius, _LARGEST_RADIUS)
    state.radius[rows] = np.where(better, wider, 0.25 * reach)
    state.differences[rows] = _finer(differences, _widths(values, vectors) * sizes)
    state.stuck[rows] |= (state.radius[rows] < _SMALLEST_RADIUS) & ~state.converged[rows]


def _curvature(
    sets: DifferentiableSets, points: Array, slopes: Array, differences: Array, region: Region
) -> Array:
    """Return A = -Hess log L, symmetric, (M, S, p, p); 0 for parameters that are not free."""
    curvature = np.zeros((*points.shape, points.shape[-1]))
    for k in np.flatnonzero(region.free):
        step = differences[..., k]
        step = np.where(points[..., k] + step > region.box[k, 1], -step, step)
        shifted = points.copy()
        shifted[..., k] += step
        values, there = sets.slopes_at_own_points(shifted)
        change = np.where(np.isfinite(values)[..., None], there - slopes, 0.0)
        curvature[..., k, :] = -change / step[..., None]
    return 0.5 * (curvature + np.swapaxes(curvature, -1, -2))


def _outer(sizes: Array) -> Array:
    return sizes[:, None] * sizes


def _absolute(curvature: Array, active: Flags) -> tuple[Array, Array, Flags]:
    """Return absolute eigenvalues of A, its eigenvectors, and which eigenvalues are negative.

    Parameters that are not active have eigenvalue 1.
    """
    both = active[..., :, None] & active[..., None, :]
    inner = np.where(both & np.isfinite(curvature), curvature, 0.0)
    largest = np.abs(inner).max(axis=(-1, -2))
    values, vectors = np.linalg.eigh(inner + np.eye(active.shape[-1]) * ~active[..., None, :])
    floor = np.maximum(_FLAT * largest, 1e-12)[..., None]
    return np.maximum(np.abs(values), floor), vectors, values < -floor


def _newton(slopes: Array, values: Array, vectors: Array, negative: Flags) -> tuple[Array, Array]:
    """Return the steps |A|^-1 g, (M, S, p), and the gains they promise, (M, S)."""
    pulled = np.einsum("...ij,...i->...j", vectors, slopes)
    kick = np.copysign(np.maximum(np.abs(pulled), _KICK * np.sqrt(values)), pulled)
    pulled = np.where(negative, kick, pulled)
    step = np.einsum("...ij,...j->...i", vectors, pulled / values)
    return step, 0.5 * (pulled**2 / values).sum(axis=-1)


def _widths(values: Array, vectors: Array) -> Array:
    """Return sqrt of the diagonal of |A|^-1, (M, S, p)."""
    return np.sqrt(np.einsum("...ij,...j->...i", vectors**2, 1 / values))


def _finer(differences: Array, widths: Array) -> Array:
    """Return steps of differences not longer than a part of the width of log L."""
    return np.clip(_PART * widths, 1e-4 * differences, differences)
