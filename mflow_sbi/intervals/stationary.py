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

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["stationary_weights"]

_STEPS = 50
_PRECISION = 1e-10


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
    size = np.maximum(np.sqrt(np.square(t).mean(axis=0)), 1e-300)
    unit, multipliers = t / size, np.zeros(t.shape[1])
    mean = np.full(t.shape[1], np.inf)
    for _ in range(_STEPS):
        height = unit @ multipliers + np.log(start)
        u = np.exp(height - height.max())
        u /= u.sum()
        mean = u @ unit
        if np.abs(mean).max() < _PRECISION:
            return u
        spread = np.einsum("i,ij,ik->jk", u, unit, unit) - np.outer(mean, mean)
        step = np.linalg.lstsq(spread, mean, rcond=1e-12)[0]
        multipliers -= step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-300))
    message = (
        f"{len(t)} events have no weights with the means of this theta (left: "
        f"{np.abs(mean).max():.2g}); take more events, drawn at this theta"
    )
    raise IntervalError(message)
