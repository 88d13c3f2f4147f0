r"""Intervals to be expected before there are data: of toy experiments, and of Asimov data.

The median of the toys' interval ends is what an experiment at theta will find; the interval of
the Asimov likelihood (`EventPool.asimov`) is the same up to O(1/n) at a small part of the price.
Limits of unweighted data shrink with luminosity as 1/sqrt(luminosity) where log L is a parabola,
and as luminosity^(-1/4) where only squares of amplitudes tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import IntervalError
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals.climbing import hesse_errors
from mflow_sbi.intervals.constructions import LEVELS, Construction, Wilks
from mflow_sbi.intervals.crossings import IntervalSet, excess, intervals_below
from mflow_sbi.intervals.parameters import Limits, Region, region_of
from mflow_sbi.intervals.profiles import conditional_maxima
from mflow_sbi.intervals.sets import LikelihoodSets, as_sets
from mflow_sbi.intervals.toys import Simulate, highest_points

__all__ = ["ExpectedIntervals", "expected_intervals", "intervals_of_sets"]

_EVEN = 41  # values all over the limits
_AROUND = np.arange(-4, 4.5, 0.5)  # and around each set's maximum, standard deviations
_BAND = (0.16, 0.84)


@dataclass(frozen=True)
class ExpectedIntervals:
    """The intervals of many toys.

    Args:
        parameter: its name.
        level: confidence level.
        intervals: of each toy.
    """

    parameter: str
    level: float
    intervals: tuple[IntervalSet, ...]

    @property
    def ends(self) -> Array:
        """Lowest and highest value not excluded by each toy, (T, 2)."""
        return np.array([interval.hull for interval in self.intervals])

    @property
    def median(self) -> tuple[float, float]:
        """Median of the lower ends and of the upper ends."""
        low, high = np.median(self.ends, axis=0)
        return float(low), float(high)

    @property
    def band(self) -> Array:
        """16% and 84% quantiles of the lower ends and of the upper ends, (2, 2)."""
        return np.quantile(self.ends, _BAND, axis=0).T

    @property
    def open_share(self) -> float:
        """Share of the toys whose interval reaches the limits."""
        return float(np.mean([interval.is_open for interval in self.intervals]))

    @property
    def disjoint_share(self) -> float:
        """Share of the toys with more than one interval."""
        return float(np.mean([len(interval.parts) > 1 for interval in self.intervals]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "parameter": self.parameter,
            "level": self.level,
            "n_toys": len(self.intervals),
            "median": list(self.median),
            "band": self.band.tolist(),
            "open_share": self.open_share,
            "disjoint_share": self.disjoint_share,
        }


def expected_intervals(
    simulate: Simulate,
    theta: ArrayLike,
    parameter: str,
    limits: Limits,
    rng: np.random.Generator,
    *,
    names: Sequence[str],
    n_toys: int = 300,
    level: float = LEVELS[1],
    construction: Construction | None = None,
    fixed: Mapping[str, float] | None = None,
) -> ExpectedIntervals:
    """Return the intervals that experiments at theta find, the other parameters profiled.

    Args:
        simulate: toy experiments.
        theta: where they are generated, (p,).
        parameter: whose intervals.
        limits: finite ones for every free parameter.
        rng: draws of the toys.
        names: names of the p parameters.
        n_toys: toy experiments.
        level: confidence level.
        construction: thresholds; Wilks' by default.
        fixed: values of parameters to be held.

    Raises:
        IntervalError: an unknown or fixed parameter, limits missing, a theta outside, no toys.
    """
    region = region_of(names, limits, fixed)
    if n_toys < 1:
        message = f"toys: expected at least one, got {n_toys}"
        raise IntervalError(message)
    sets = as_sets(simulate(region.points(theta), n_toys, rng))
    found = intervals_of_sets(sets, parameter, region, level, construction)
    return ExpectedIntervals(parameter, level, found)


def intervals_of_sets(
    sets: LikelihoodSets,
    parameter: str,
    region: Region,
    level: float,
    construction: Construction | None = None,
) -> tuple[IntervalSet, ...]:
    """Return the profile likelihood intervals of each data set, to a hundredth of their length.

    Args:
        sets: log L of the data sets.
        parameter: whose intervals.
        region: finite limits.
        level: confidence level.
        construction: thresholds; Wilks' by default.

    Raises:
        IntervalError: an unknown or fixed parameter, limits missing.
    """
    k = region.index(parameter)
    if not region.free[k]:
        message = f"intervals of {parameter}: expected a free parameter, got a fixed one"
        raise IntervalError(message)
    tops = highest_points(sets, region)
    low, high = region.box[k]
    centre, width = tops.points[..., k], hesse_errors(sets, tops.points, region)[..., k]
    even = np.tile(np.linspace(low, high, _EVEN)[:, None], (1, sets.n_sets))
    around = np.clip(centre + _AROUND[:, None] * width, low, high)
    values = np.sort(np.concatenate([even, around]), axis=0)
    held = region.holding([parameter], np.zeros(len(region.names)))  # values put in their own
    _, heights = conditional_maxima(
        sets, held, [k], values[..., None], tops.points, (len(values),), rounds=1
    )
    top = np.maximum(tops.values[0], heights.max(axis=0))
    rule = construction or Wilks()
    thresholds = rule.threshold(values.reshape(-1, 1), level).reshape(values.shape)
    above = excess(2 * (top - heights), thresholds)
    return tuple(
        IntervalSet(parameter, level, intervals_below(values[:, s], above[:, s]))
        for s in range(sets.n_sets)
    )
