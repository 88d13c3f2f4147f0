r"""Weights under which means of events are exactly what they are only on average.

Functions f_i of events drawn at theta have a mean of zero there, for instance

    t_i = grad_theta log p(x_i|theta),    t_i t_i^T + grad grad^T log p(x_i|theta)

(Bartlett's identities).  N events that stand for n >> N have them up to noise, which pulls the
maximum of their likelihood sqrt(n / N) standard deviations away and bends it.  The weights

    u_i ~ u0_i exp(lambda . f_i),    sum_i u_i f_i = 0,    sum_i u_i = 1,

are the nearest ones (in relative entropy) without: Asimov data of the learned likelihood itself
(1007.1727), as `pools.EventPool` makes of the exact one.
"""

import numpy as np
from scipy.special import logsumexp

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["stationary_weights"]

_STEPS = 100
_PRECISION = 1e-9  # of a mean, in standard deviations of the function
_SMALLEST = 1e-6  # share of a step


def stationary_weights(functions: Array, weights: Array | None = None) -> Array:
    """Return positive weights that sum to one and under which functions have mean zero, (N,).

    Args:
        functions: f_i of events drawn at theta, (N, k), or with weights that make them so.
        weights: those weights u0_i, (N,), positive; equal ones by default.

    Raises:
        ShapeError: functions and weights that do not fit.
        IntervalError: zero is outside the functions' hull: too few events, or not at theta.

    Example:
        >>> stationary_weights(np.array([[-1.0], [2.0]])).round(4)
        array([0.6667, 0.3333])
    """
    t = np.asarray(functions, dtype=np.float64)
    start = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
    if t.ndim != 2 or start.shape != (len(t),) or not len(t):
        message = f"expected functions (N, k) and weights (N,), got {t.shape} and {start.shape}"
        raise ShapeError(message)
    size = np.maximum(np.sqrt(start @ np.square(t) / start.sum()), 1e-300)
    tilted = _Tilted(t / size, np.log(start))
    multipliers = np.zeros(t.shape[1])
    for _ in range(_STEPS):
        height, u = tilted.at(multipliers)
        mean, spread = tilted.moments(u)
        if np.abs(mean).max(initial=0.0) < _PRECISION:
            return u
        step = -np.asarray(np.linalg.lstsq(spread, mean, rcond=1e-12)[0], np.float64)
        multipliers = tilted.lower(multipliers, step, height, float(mean @ step))
    message = (
        f"{len(t)} events have no weights with the means of this theta (left: "
        f"{np.abs(tilted.moments(tilted.at(multipliers)[1])[0]).max():.2g} standard deviations); "
        "take more events, drawn at this theta"
    )
    raise IntervalError(message)


class _Tilted:
    """The convex function log sum_i u0_i exp(lambda . f_i), whose slope is the mean of f."""

    def __init__(self, functions: Array, log_weights: Array) -> None:
        self._f, self._log_weights = functions, log_weights

    def at(self, multipliers: Array) -> tuple[float, Array]:
        """Return the function, and the weights whose means are its slope, (N,)."""
        heights = self._f @ multipliers + self._log_weights
        total = float(np.asarray(logsumexp(heights)))
        return total, np.exp(heights - total)

    def moments(self, u: Array) -> tuple[Array, Array]:
        """Return means and covariance of the functions, (k,), (k, k)."""
        mean = u @ self._f
        return mean, (self._f * u[:, None]).T @ self._f - np.outer(mean, mean)

    def lower(self, multipliers: Array, step: Array, height: float, slope: float) -> Array:
        """Return multipliers on the way of a step where the function is lower."""
        share = 1.0
        while share > _SMALLEST:
            there = multipliers + share * step
            if self.at(there)[0] <= height + 0.1 * share * slope:
                return there
            share *= 0.5
        return multipliers + share * step
