r"""Where a statistic crosses its threshold: the ends of intervals, all of them.

    {psi : q(psi) <= c(psi)},    q(psi) = 2 [log L_max - max over the others log L(psi)],

is looked for as sqrt(q) - sqrt(c), which is straight where log L is a parabola.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflow_sbi.interfaces import Array

__all__ = ["Interval", "IntervalSet", "excess", "intervals_below", "refine_crossings"]

_STEPS = 24
_BISECT = 3  # every third step halves the bracket, whatever the function does
_CEILING = 10.0  # standard deviations, above which only the sign counts
_PRECISION = 1e-4  # in sqrt(q): a ten thousandth of a standard deviation


@dataclass(frozen=True)
class Interval:
    """All values from low to high; an open end lies at or beyond the end of the scan.

    Args:
        low: lower end.
        high: upper end.
        low_open: whether the interval reaches the lowest value scanned.
        high_open: whether it reaches the highest value scanned.
    """

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    @property
    def length(self) -> float:
        """Return high - low."""
        return self.high - self.low

    def __str__(self) -> str:
        low = f"open below {self.low:.4g}" if self.low_open else f"{self.low:.4g}"
        high = f"open above {self.high:.4g}" if self.high_open else f"{self.high:.4g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True)
class IntervalSet:
    """The values of one parameter that are not excluded at a confidence level.

    Args:
        parameter: its name.
        level: confidence level.
        parts: disjoint intervals in increasing order; none if everything is excluded.

    >>> both = IntervalSet("CWL2", 0.95, (Interval(-1, 0), Interval(0.5, 2, high_open=True)))
    >>> print(both, both.length, both.contains(0.2), both.is_open)
    CWL2 in [-1, 0] or [0.5, open above 2] (95%) 2.5 False True
    """

    parameter: str
    level: float
    parts: tuple[Interval, ...]

    @property
    def is_open(self) -> bool:
        """Whether an end lies at the end of the scan: look further for it."""
        return any(part.low_open or part.high_open for part in self.parts)

    @property
    def hull(self) -> tuple[float, float]:
        """Lowest and highest value not excluded; NaN if everything is."""
        if not self.parts:
            return np.nan, np.nan
        return self.parts[0].low, self.parts[-1].high

    @property
    def length(self) -> float:
        """Sum of the lengths of the parts."""
        return sum(part.length for part in self.parts)

    def contains(self, value: float) -> bool:
        """Return whether a value is not excluded."""
        return any(part.low <= value <= part.high for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "parameter": self.parameter,
            "level": self.level,
            "parts": [
                {"low": p.low, "high": p.high, "low_open": p.low_open, "high_open": p.high_open}
                for p in self.parts
            ],
        }

    def __str__(self) -> str:
        parts = " or ".join(str(part) for part in self.parts) or "nothing"
        return f"{self.parameter} in {parts} ({100 * self.level:.3g}%)"


def excess(statistic: Array, threshold: Array | float) -> Array:
    """Return sqrt(q) - sqrt(c), of the shape of both; q below zero by rounding counts as zero."""
    return np.sqrt(np.maximum(statistic, 0.0)) - np.sqrt(threshold)


def intervals_below(
    axis: Array, heights: Array, function: Callable[[Array], Array] | None = None
) -> tuple[Interval, ...]:
    """Return where a function of one variable is not above zero.

    Args:
        axis: increasing values, (M,).
        heights: the function there, (M,).
        function: the function itself, (K,) -> (K,), to find its zeros; straight lines without.
    """
    below = heights <= 0
    change = np.flatnonzero(below[1:] != below[:-1])
    ends = refine_crossings(
        axis[change], axis[change + 1], heights[change], heights[change + 1], function
    )
    edges = ends.tolist()
    if below[0]:
        edges.insert(0, float(axis[0]))
    if below[-1]:
        edges.append(float(axis[-1]))
    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    last = len(pairs) - 1
    return tuple(
        Interval(low, high, bool(below[0]) and k == 0, bool(below[-1]) and k == last)
        for k, (low, high) in enumerate(pairs)
    )


def refine_crossings(
    low: Array,
    high: Array,
    at_low: Array,
    at_high: Array,
    function: Callable[[Array], Array] | None = None,
) -> Array:
    """Return a zero between every low and high, where the function has opposite signs, (K,).

    False position with the Illinois rule, every third step a bisection, all brackets at once.

    Args:
        low: one end of the brackets, (K,).
        high: the other end, (K,).
        at_low: the function there, (K,); may be infinite.
        at_high: the function there, (K,); may be infinite.
        function: (K,) -> (K,), value k for bracket k; one straight line without.
    """
    at_low, at_high = _finite(at_low), _finite(at_high)
    middle = _secant(low, high, at_low, at_high)
    if function is None or len(low) == 0:
        return middle
    before = np.zeros(len(low))  # the end replaced last: 1 low, -1 high
    for step in range(1, _STEPS + 1):
        height = _finite(function(middle))
        done = np.abs(height) < _PRECISION
        if done.all():
            break
        side = np.where(np.sign(height) == np.sign(at_low), 1.0, -1.0)
        kept = np.where(side == before, 0.5, 1.0)
        low, at_low = np.where(side > 0, (middle, height), (low, kept * at_low))
        high, at_high = np.where(side > 0, (high, kept * at_high), (middle, height))
        halved = step % _BISECT == 0
        guess = 0.5 * (low + high) if halved else _secant(low, high, at_low, at_high)
        before, middle = side, np.where(done, middle, guess)
    return middle


def _finite(heights: Array) -> Array:
    """Return heights with infinite and very large ones cut."""
    return np.clip(heights, -_CEILING, _CEILING)


def _secant(low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    rise = at_high - at_low
    share = np.where(rise != 0, -at_low / np.where(rise != 0, rise, 1.0), 0.5)
    return low + share * (high - low)
