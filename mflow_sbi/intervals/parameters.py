"""Parameters by name at the doors of this floor: which are free, which held, and their limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["Limits", "Region", "region_of"]

Limits: TypeAlias = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, eq=False)
class Region:
    """The part of parameter space that a maximum or an interval is looked for in.

    Args:
        names: the p parameter names.
        box: lowest and highest allowed value, -inf and inf where there is none, (p, 2).
        held: value of the parameters that are held fixed, NaN for the free ones, (p,).
    """

    names: tuple[str, ...]
    box: Array
    held: Array

    @property
    def free(self) -> np.ndarray:
        """Whether each parameter is free, (p,) booleans."""
        return np.isnan(self.held)

    def index(self, name: str) -> int:
        """Return the place of a parameter.

        Raises:
            IntervalError: there is no such parameter.
        """
        if name not in self.names:
            near = get_close_matches(name, self.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"expected a parameter among {list(self.names)}, got {name!r}{hint}"
            raise IntervalError(message)
        return self.names.index(name)

    def points(self, theta: ArrayLike) -> Array:
        """Return points with the held values put in, (..., p).

        Raises:
            ShapeError: another number of parameters.
            IntervalError: a number that is not finite, or outside the limits.
        """
        points = np.array(theta, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != len(self.names):
            message = f"expected points (..., {len(self.names)}), got shape {points.shape}"
            raise ShapeError(message)
        points[..., ~self.free] = self.held[~self.free]
        good = (points >= self.box[:, 0]) & (points <= self.box[:, 1]) & np.isfinite(points)
        if not good.all():
            k = int(np.argmin(good.reshape(-1, len(self.names)).all(axis=0)))
            message = (
                f"{self.names[k]}: expected finite values in [{self.box[k, 0]:g}, "
                f"{self.box[k, 1]:g}], got {points[..., k][~good[..., k]].flat[0]:g}"
            )
            raise IntervalError(message)
        return points

    def holding(self, names: Sequence[str], theta: Array) -> "Region":
        """Return the region in which these parameters have their values in theta, (p,)."""
        held, places = self.held.copy(), [self.index(name) for name in names]
        held[places] = theta[places]
        return Region(self.names, self.box, held)

    def require_finite(self, names: Sequence[str], purpose: str) -> None:
        """Refuse parameters without limits.

        Raises:
            IntervalError: a named parameter is free and has no finite limits.
        """
        for name in names:
            k = self.index(name)
            if self.free[k] and not np.isfinite(self.box[k]).all():
                message = (
                    f"{purpose}: expected finite limits of {name}, got [{self.box[k, 0]:g}, "
                    f"{self.box[k, 1]:g}]; give limits={{{name!r}: (low, high)}}"
                )
                raise IntervalError(message)


def region_of(
    names: Sequence[str],
    limits: Limits | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Region:
    """Return the region that limits and fixed values by name leave.

    Args:
        names: the p parameter names.
        limits: (low, high) by name, None for an open side; absent names have no limits.
        fixed: values of the parameters to be held.

    Raises:
        IntervalError: an unknown name, low >= high, a fixed value that is not finite or outside.

    >>> region_of(("a", "b"), {"a": (0, None)}, {"b": 2.0}).box.tolist()
    [[0.0, inf], [-inf, inf]]
    """
    empty = Region(
        tuple(names), np.tile([-np.inf, np.inf], (len(names), 1)), np.full(len(names), np.nan)
    )
    box, held = empty.box.copy(), empty.held.copy()
    for name, (low, high) in (limits or {}).items():
        k = empty.index(name)
        box[k] = -np.inf if low is None else low, np.inf if high is None else high
        if not box[k, 0] < box[k, 1]:
            message = f"limits of {name}: expected low < high, got [{low}, {high}]"
            raise IntervalError(message)
    for name, value in (fixed or {}).items():
        k = empty.index(name)
        if not (np.isfinite(value) and box[k, 0] <= value <= box[k, 1]):
            message = (
                f"{name}: expected a finite fixed value in [{box[k, 0]:g}, {box[k, 1]:g}], "
                f"got {value:g}"
            )
            raise IntervalError(message)
        held[k] = value
    return Region(empty.names, box, held)
