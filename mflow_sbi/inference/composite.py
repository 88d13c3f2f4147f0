"""What likelihoods made of parts tell of themselves: names, units, ranges, evaluations."""

from collections.abc import Mapping, Sequence

import numpy as np

from mflow_sbi.inference.likelihood import CountsEvaluations, EvaluationCount
from mflow_sbi.inference.naming import constrained_names_of, distinct, merged_units
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array

__all__ = ["Composite", "ranges_of"]


class Composite:
    """The names, units, ranges and counts of a likelihood made of parts.

    Args:
        names: of the p parameters.
        parts: likelihoods and rates; what they know of ranges, units and constraints is merged.

    Raises:
        ConfigurationError: two parts give one parameter different units, or both hold its
            constraint.
    """

    def __init__(self, names: Sequence[str], parts: Sequence[object]) -> None:
        self._names = tuple(names)
        units = merged_units(parts)
        self._units = {name: units[name] for name in self._names if name in units}
        self._ranges = ranges_of(self._names, parts)
        constrained = [name for part in parts for name in constrained_names_of(part)]
        distinct(constrained, "constraints")
        self._constrained = tuple(name for name in constrained if name in self._names)
        self._points_asked = 0
        self._points_outside = 0

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where known."""
        return self._units

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value seen in the training of all parts, (p, 2); -+inf if free."""
        return self._ranges

    @property
    def constrained_names(self) -> Sequence[str]:
        """Names of the parameters whose constraint is a factor of this likelihood."""
        return self._constrained

    @property
    def evaluations(self) -> EvaluationCount:
        """Points evaluated so far, and those outside the ranges."""
        return EvaluationCount(self._points_asked, self._points_outside)

    def _counted(self, theta: Array) -> Array:
        """Return theta as (M, p) points, added to the counts."""
        points = as_points(theta, len(self._names))
        low, high = self._ranges.T
        outside = ((points < low) | (points > high)).any(axis=1)
        self._points_asked += len(points)
        self._points_outside += int(np.count_nonzero(outside))
        return points


def ranges_of(names: Sequence[str], parts: Sequence[object]) -> Array:
    """Return the ranges that all parts have in common, (p, 2); -inf and inf where none knows."""
    ranges = np.tile([-np.inf, np.inf], (len(names), 1))
    for part in parts:
        if isinstance(part, CountsEvaluations):
            own = zip(getattr(part, "parameter_names", ()), part.parameter_ranges, strict=True)
            for name, (low, high) in own:
                k = list(names).index(name) if name in names else None
                if k is not None:
                    ranges[k] = np.fmax(ranges[k, 0], low), np.fmin(ranges[k, 1], high)
    return ranges
