"""Where to begin to climb a likelihood of many maxima: the best few of many points, kept apart."""

import numpy as np
from scipy.stats import qmc

from mflow_sbi.errors import IntervalError
from mflow_sbi.interfaces import Array, Likelihood, Prior
from mflow_sbi.intervals.parameters import Limits, Region, region_of
from mflow_sbi.intervals.sets import LikelihoodSets, as_sets

__all__ = ["even_points", "starts_from_prior", "starts_in_box", "starts_of_sets"]

_NEIGHBOURS = 1.2  # spacings
_POINTS = {1: 64, 2: 400, 3: 1000}  # by number of free parameters; 2000 for more


def even_points(region: Region, n: int | None = None) -> Array:
    """Return points that fill the limits of the free parameters evenly (Halton's), (n, p).

    Args:
        region: limits; parameters that are not free keep their held value.
        n: how many; by default enough for the number of free parameters.

    Raises:
        IntervalError: a free parameter has no finite limits.
    """
    free = np.flatnonzero(region.free)
    region.require_finite([region.names[k] for k in free], "points all over the limits")
    points = np.tile(np.where(region.free, 0.0, region.held), (1, 1))
    if len(free) == 0:
        return points
    unit = qmc.Halton(len(free), scramble=False).random(n or _POINTS.get(len(free), 2000) + 1)[1:]
    points = np.tile(points, (len(unit), 1))
    points[:, free] = qmc.scale(unit, *region.box[free].T)
    return points


def starts_of_sets(sets: LikelihoodSets, region: Region, points: Array, keep: int) -> Array:
    """Return for every data set the best points that stand apart, (keep, S, p).

    Apart: more than a spacing of the points.  Where the points are used up before `keep` are
    found, the best comes again.

    Raises:
        IntervalError: the likelihood of a set vanishes at all points.
    """
    values = sets(points)
    lost = np.isneginf(values).all(axis=0)
    if lost.any():
        message = (
            f"data set {int(np.argmax(lost))}: the likelihood vanishes at all {len(points)} "
            "points tried; expected a positive one at some; look for starts elsewhere"
        )
        raise IntervalError(message)
    near = _near(points[:, region.free])
    best = chosen = np.argmax(values, axis=0)
    starts = [points[best]]
    for _ in range(1, keep):
        values = np.where(near[:, chosen], -np.inf, values)
        used_up = np.isneginf(values).all(axis=0)
        chosen = np.where(used_up, best, np.argmax(values, axis=0))
        starts.append(points[chosen])
    return np.stack(starts)


def starts_in_box(
    likelihood: Likelihood, limits: Limits, keep: int = 6, tries: int | None = None
) -> Array:
    """Return starts for `maximise`: the best of points all over the limits, (keep, p).

    Args:
        likelihood: log L of the observation.
        limits: finite ones for every parameter.
        keep: how many.
        tries: points to choose from; by default 400 for two parameters.

    Raises:
        IntervalError: an unknown name, limits missing, or a likelihood that vanishes everywhere.
    """
    region = region_of(likelihood.parameter_names, limits)
    return starts_of_sets(as_sets(likelihood), region, even_points(region, tries), keep)[:, 0]


def starts_from_prior(
    likelihood: Likelihood, prior: Prior, rng: np.random.Generator, keep: int = 6, tries: int = 400
) -> Array:
    """Return starts for `maximise`: the best of draws from a prior, (keep, p).

    Args:
        likelihood: log L of the observation.
        prior: of the same parameters.
        rng: draws.
        keep: how many.
        tries: draws to choose from.

    Raises:
        IntervalError: the prior is of other parameters, or the likelihood vanishes at all draws.
    """
    names = tuple(likelihood.parameter_names)
    if names != tuple(prior.parameter_names):
        message = f"expected a prior of {list(names)}, got one of {list(prior.parameter_names)}"
        raise IntervalError(message)
    draws = prior.sample(tries, rng)
    return starts_of_sets(as_sets(likelihood), region_of(names), draws, keep)[:, 0]


def _near(points: Array) -> np.ndarray:
    """Return which points are neighbours, (M, M)."""
    spread = points.std(axis=0)
    unit = points / np.where(spread > 0, spread, 1.0)
    spacing = np.sqrt(12) * len(points) ** (-1 / max(1, points.shape[1]))
    squared = np.square(unit[:, None] - unit[None]).sum(axis=2)
    return squared <= (_NEIGHBOURS * spacing) ** 2
