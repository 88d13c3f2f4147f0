r"""Toy experiments: how the statistic is distributed, and how often intervals hold the truth.

    q(psi) = 2 [log L_max - max over the others log L(psi)]

for the likelihoods of many toys at once.  An interval at a level covers the truth if and only if
q(truth) <= c(truth), so that coverage needs no intervals, only this one number of each toy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import IntervalError
from mflow_sbi.interfaces import Array, Likelihood, Progress
from mflow_sbi.intervals.climbing import Climb, climb
from mflow_sbi.intervals.constructions import (
    LEVELS,
    Construction,
    NeymanBelt,
    Wilks,
    ordered_axes,
)
from mflow_sbi.intervals.parameters import Limits, Region, region_of
from mflow_sbi.intervals.sets import LikelihoodSets, as_sets
from mflow_sbi.intervals.starts import even_points, starts_of_sets

__all__ = [
    "Coverage",
    "Simulate",
    "highest_points",
    "likelihood_ratios",
    "neyman_belt",
    "toy_coverage",
]

_AT_ONCE = 500  # toys in memory
_STARTS = 5


class Simulate(Protocol):
    """A source of toy experiments, for instance `EventPool.simulator`."""

    def __call__(
        self, theta: Array, n_toys: int, rng: np.random.Generator, /
    ) -> LikelihoodSets | Sequence[Likelihood]:
        """Return the likelihoods of n_toys data sets generated at theta, (p,)."""
        ...


@dataclass(frozen=True)
class Coverage:
    """How many of n toys' intervals hold the truth, by confidence level.

    Args:
        levels: confidence levels.
        covered: toys whose interval holds the truth, one number per level.
        n_toys: all toys.

    >>> study = Coverage((0.95,), (940,), 1000)
    >>> study.fraction, study.error.round(4), study.pull.round(2)
    (array([0.94]), array([0.0075]), array([-1.45]))
    """

    levels: tuple[float, ...]
    covered: tuple[int, ...]
    n_toys: int

    @property
    def fraction(self) -> Array:
        """Coverage at each level."""
        return np.asarray(self.covered) / self.n_toys

    @property
    def error(self) -> Array:
        """Binomial standard error of each coverage."""
        return np.sqrt(self.fraction * (1 - self.fraction) / self.n_toys)

    @property
    def pull(self) -> Array:
        """(coverage - level) / sqrt(level (1 - level) / n)."""
        levels = np.asarray(self.levels)
        return (self.fraction - levels) / np.sqrt(levels * (1 - levels) / self.n_toys)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "levels": list(self.levels),
            "coverage": self.fraction.tolist(),
            "error": self.error.tolist(),
            "n_toys": self.n_toys,
        }


def highest_points(sets: LikelihoodSets, region: Region, near: Array | None = None) -> Climb:
    """Return the maximum of each of S likelihoods inside the limits, (1, S, p).

    Args:
        sets: log L of the data sets.
        region: finite limits.
        near: points to climb from too, (R, S, p).

    Raises:
        IntervalError: limits missing, or a likelihood that vanishes everywhere.
    """
    starts = starts_of_sets(sets, region, even_points(region), _STARTS if region.free.any() else 1)
    if near is not None:
        starts = np.concatenate([starts, near])
    starts = np.where(region.free, starts, region.held)
    ends = climb(sets, starts, region)
    best = ends.values.argmax(axis=0)[None]
    return Climb(
        np.take_along_axis(ends.points, best[..., None], axis=0),
        np.take_along_axis(ends.values, best, axis=0),
        np.take_along_axis(ends.converged, best, axis=0),
    )


def likelihood_ratios(
    sets: LikelihoodSets, theta: Array, parameters: Sequence[str], region: Region
) -> Array:
    """Return q(psi) of each of S data sets, (S,), psi the named parameters' values in theta.

    Args:
        sets: log L of the data sets.
        theta: (p,); the other parameters' values serve as one start.
        parameters: names of psi's parameters.
        region: finite limits, within which maxima are looked for.
    """
    near = np.broadcast_to(theta, (1, sets.n_sets, len(theta)))
    tops = highest_points(sets, region, near)
    held = region.holding(parameters, theta)
    values = highest_points(sets, held, np.concatenate([near, tops.points])).values
    return 2 * np.maximum(np.maximum(tops.values, values) - values, 0.0)[0]


def toy_coverage(
    simulate: Simulate,
    theta: ArrayLike,
    limits: Limits,
    rng: np.random.Generator,
    *,
    names: Sequence[str],
    n_toys: int = 1000,
    parameters: Sequence[str] | None = None,
    construction: Construction | None = None,
    levels: Sequence[float] = LEVELS,
    fixed: Mapping[str, float] | None = None,
) -> Coverage:
    """Return how often regions of the named parameters hold the truth.

    Args:
        simulate: toy experiments.
        theta: the truth, (p,).
        limits: finite ones for every free parameter.
        rng: draws of the toys.
        names: names of the p parameters.
        n_toys: toy experiments.
        parameters: those of the region, the others profiled; all free ones by default.
        construction: thresholds; Wilks' by default.
        levels: confidence levels.
        fixed: values of parameters to be held.

    Raises:
        IntervalError: an unknown parameter, limits missing, a truth outside them, no toys.
    """
    region = region_of(names, limits, fixed)
    truth = region.points(theta)
    chosen = _chosen(parameters, region)
    ratios = _toy_ratios(simulate, truth, chosen, region, rng, n_toys)
    rule = construction or Wilks()
    psi = truth[[region.index(name) for name in chosen]][None]
    thresholds = [rule.threshold(psi, level)[0] for level in levels]
    covered = tuple(int((ratios <= threshold).sum()) for threshold in thresholds)
    return Coverage(tuple(levels), covered, n_toys)


def neyman_belt(
    simulate: Simulate,
    axes: Mapping[str, Array],
    limits: Limits,
    rng: np.random.Generator,
    *,
    names: Sequence[str],
    n_toys: int = 1000,
    points: Array | None = None,
    fixed: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> NeymanBelt:
    """Return the thresholds of Neyman's construction, ordered by the profile likelihood ratio.

    Args:
        simulate: toy experiments.
        axes: values of one or two parameters to be tested, by name, increasing.
        limits: finite ones for every free parameter.
        rng: draws of the toys.
        names: names of the p parameters.
        n_toys: toy experiments at each value.
        points: where to generate the toys, (n_1[, n_2], p): for other parameters than those of
            the axes, `ProfileScan.points` of the observation; needed unless the axes and `fixed`
            hold all parameters.
        fixed: values of parameters to be held.
        progress: called with (values done, all values).

    Raises:
        IntervalError: an unknown parameter, limits missing, values outside them, no toys, or
            `points` missing.
    """
    region = region_of(names, limits, fixed)
    chosen, values = tuple(axes), ordered_axes(list(axes.values()))
    places = [region.index(name) for name in chosen]
    grid = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1)
    others = set(np.flatnonzero(region.free).tolist()) - set(places)
    if points is None and others:
        message = (
            f"toys at values of {list(chosen)}: expected points that say where the others "
            f"({[names[k] for k in sorted(others)]}) are, e.g. ProfileScan.points"
        )
        raise IntervalError(message)
    theta = np.zeros((*grid.shape[:-1], len(names))) if points is None else points.copy()
    theta[..., places] = grid
    rows = region.points(theta).reshape(-1, len(names))
    statistics = []
    for done, row in enumerate(rows, start=1):
        statistics.append(np.sort(_toy_ratios(simulate, row, chosen, region, rng, n_toys)))
        if progress is not None:
            progress(done, len(rows))
    return NeymanBelt(chosen, values, np.reshape(statistics, (*grid.shape[:-1], n_toys)))


def _toy_ratios(
    simulate: Simulate,
    theta: Array,
    parameters: Sequence[str],
    region: Region,
    rng: np.random.Generator,
    n_toys: int,
) -> Array:
    """Return q at theta of toys generated there, (n_toys,)."""
    if n_toys < 1:
        message = f"toys: expected at least one, got {n_toys}"
        raise IntervalError(message)
    ratios = []
    for begin in range(0, n_toys, _AT_ONCE):
        sets = as_sets(simulate(theta, min(_AT_ONCE, n_toys - begin), rng))
        if tuple(sets.parameter_names) != region.names:
            message = f"toys: expected parameters {region.names}, got {sets.parameter_names}"
            raise IntervalError(message)
        ratios.append(likelihood_ratios(sets, theta, parameters, region))
    return np.concatenate(ratios)


def _chosen(parameters: Sequence[str] | None, region: Region) -> tuple[str, ...]:
    """Return the names of psi's parameters, free ones."""
    free = [name for name, is_free in zip(region.names, region.free, strict=True) if is_free]
    chosen = tuple(free if parameters is None else parameters)
    if not chosen or not set(chosen) <= set(free):
        message = f"region: expected one or more of the free parameters {free}, got {list(chosen)}"
        raise IntervalError(message)
    return chosen
