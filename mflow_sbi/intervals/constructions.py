r"""Which values of the statistic count as "not excluded": asymptotic and Neyman constructions.

    q(psi) = 2 [log L_max - max over the others log L(psi)],     psi not excluded if q <= c(psi).

Wilks: c is the quantile of chi^2 with as many degrees of freedom as psi has parameters, right
for many events, away from limits.  Neyman with profile likelihood ratio ordering (Feldman and
Cousins, physics/9711021): c(psi) is the quantile of q(psi) in toy experiments generated at psi,
right for any number of events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import chi2

from mflow_sbi.errors import IntervalError, ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["LEVELS", "Construction", "NeymanBelt", "Wilks"]

LEVELS = (float(chi2.cdf(1.0, 1)), 0.95)
"""0.6827 and 0.95."""


class Construction(Protocol):
    """How large the statistic may be at each psi."""

    def threshold(self, psi: Array, level: float) -> Array:
        """Return c(psi) at a confidence level, (M, q) -> (M,)."""
        ...


@dataclass(frozen=True)
class Wilks:
    """c = quantile of chi^2 with q degrees of freedom, q the number of parameters of psi.

    >>> Wilks().threshold(np.zeros((1, 2)), 0.95).round(3)
    array([5.991])
    """

    def threshold(self, psi: Array, level: float) -> Array:
        """Return c, the same at every psi, (M, q) -> (M,)."""
        require_level(level)
        return np.full(len(psi), chi2.ppf(level, psi.shape[1]))


@dataclass(frozen=True, eq=False)
class NeymanBelt:
    """c(psi) = quantile of the statistic in toy experiments generated at psi.

    Args:
        parameters: names of the q parameters of psi.
        axes: values of each at which toys were generated, increasing, (n_k,).
        statistics: q(psi) of the toys at each psi, sorted along the last axis,
            (n_1, ..., n_q, toys).
    """

    parameters: tuple[str, ...]
    axes: tuple[Array, ...]
    statistics: Array

    def __post_init__(self) -> None:
        expected = tuple(len(axis) for axis in self.axes)
        if self.statistics.shape[:-1] != expected or len(expected) != len(self.parameters):
            message = (
                f"statistics: expected shape {(*expected, 'toys')} for {list(self.parameters)}, "
                f"got {self.statistics.shape}"
            )
            raise ShapeError(message)

    @property
    def n_toys(self) -> int:
        """Toys at each psi."""
        return self.statistics.shape[-1]

    def threshold(self, psi: Array, level: float) -> Array:
        """Return c(psi), interpolated between the axes' values, (M, q) -> (M,).

        Raises:
            ParameterRangeError: a psi outside the belt.
            IntervalError: a level that so few toys cannot tell.
        """
        require_level(level)
        rank = int(np.ceil(level * self.n_toys)) - 1
        if (1 - level) * self.n_toys < 1:
            message = (
                f"level {level:g}: expected more than {1 / (1 - level):.0f} toys at each point, "
                f"got {self.n_toys}"
            )
            raise IntervalError(message)
        return self._interpolated(self.statistics[..., rank], psi)

    def threshold_error(self, psi: Array, level: float) -> Array:
        """Return the statistical error of c(psi): half of the 68% range of its rank, (M,)."""
        error = np.sqrt(level * (1 - level) * self.n_toys)
        ranks = np.clip(
            np.rint(level * self.n_toys + error * np.array([-1, 1])) - 1, 0, self.n_toys - 1
        ).astype(int)
        low, high = (self.statistics[..., rank] for rank in ranks)
        return self._interpolated(0.5 * (high - low), psi)

    def p_value(self, psi: Array, statistic: Array) -> Array:
        """Return the share of toys, generated at the grid point next to psi, with a q not smaller.

        Args:
            psi: (M, q).
            statistic: q(psi) of the observation, (M,).
        """
        places = [
            np.abs(x[:, None] - axis).argmin(axis=1)
            for x, axis in zip(psi.T, self.axes, strict=True)
        ]
        return (self.statistics[tuple(places)] >= statistic[:, None]).mean(axis=1)

    def _interpolated(self, values: Array, psi: Array) -> Array:
        low = np.array([axis[0] for axis in self.axes])
        high = np.array([axis[-1] for axis in self.axes])
        outside = ((psi < low) | (psi > high)).any(axis=1)
        if outside.any():
            message = (
                f"{', '.join(self.parameters)}: expected values in "
                f"{np.stack([low, high], axis=1).tolist()}, where toys were generated, got "
                f"{psi[outside][0].tolist()}; generate toys there too"
            )
            raise ParameterRangeError(message)
        return RegularGridInterpolator(self.axes, values)(psi)


def require_level(level: float) -> None:
    """Refuse what is no confidence level.

    Raises:
        IntervalError: not between 0 and 1.
    """
    if not 0 < level < 1:
        message = f"confidence level: expected a number between 0 and 1, got {level:g}"
        raise IntervalError(message)


def ordered_axes(axes: Sequence[Array]) -> tuple[Array, ...]:
    """Return axes as float arrays.

    Raises:
        ShapeError: an axis that does not increase, or has fewer than two values.
    """
    arrays = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
    for axis in arrays:
        if axis.ndim != 1 or len(axis) < 2 or not (np.diff(axis) > 0).all():
            message = f"axis: expected at least two increasing values, got {axis.tolist()}"
            raise ShapeError(message)
    return arrays
