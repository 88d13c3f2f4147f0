"""Log densities on regular grids, between the cells and summed over them."""

import numpy as np

from mflow_sbi.interfaces import Array

__all__ = ["log_sum", "reach", "refined"]

_REACH_PARTS = 5  # of a cell per axis among which its largest value is looked for
_EDGE_LIMIT = 3.0  # nats between cells at the edges above which nothing is extrapolated
_LIMIT = 30.0  # nats between neighbouring cells above which nothing is interpolated


def reach(joint: Array) -> Array:
    """Return the largest value that each cell may hold, by interpolation.

    Cells of value -inf may hold what their neighbours do.
    """
    parts = [axis for n in joint.shape for axis in (n, _REACH_PARTS)]
    within = tuple(range(1, 2 * joint.ndim, 2))
    height = refined(joint, _REACH_PARTS, np.inf).reshape(parts).max(axis=within)
    around = np.full_like(joint, -np.inf)
    for axis in range(joint.ndim):
        padded = np.pad(joint, [(int(k == axis),) * 2 for k in range(joint.ndim)], mode="edge")
        for shift in (0, 2):
            side = np.take(padded, np.arange(joint.shape[axis]) + shift, axis=axis)
            around = np.maximum(around, side)
    return np.where(np.isneginf(joint), around, np.maximum(joint, height))


def refined(values: Array, factor: int, limit: float = _LIMIT) -> Array:
    """Return values in `factor` equal parts of every cell, interpolated along each axis.

    By the parabola through a cell and its neighbours, where these are less than `limit` apart
    (three nats at the edges, beyond which it is extrapolated); else the cell's own value.
    """
    for axis in range(values.ndim if factor > 1 else 0):
        first = np.moveaxis(values, axis, 0)
        values = np.moveaxis(_refined_first(first, factor, limit), 0, axis)
    return values


def _refined_first(values: Array, factor: int, limit: float) -> Array:
    """Return values refined along the first axis."""
    n, others = len(values), values.shape[1:]
    centre = np.clip(np.arange(n), 1, n - 2)
    within = (np.arange(factor) + 0.5) / factor - 0.5
    t = (np.arange(n) - centre)[:, None] + within  # in cells from the centre
    weights = np.stack([t * (t - 1) / 2, 1 - t**2, t * (t + 1) / 2], axis=2)
    stencil = values[centre[:, None] + np.arange(-1, 2)]
    with np.errstate(invalid="ignore"):
        curve = np.einsum("nfw,nw...->nf...", weights, stencil)
        most = np.where(centre == np.arange(n), limit, min(limit, _EDGE_LIMIT))
        smooth = np.ptp(stencil, axis=1) < most.reshape(n, *(1,) * len(others))
    return np.where(smooth[:, None], curve, values[:, None]).reshape(n * factor, *others)


def log_sum(values: Array) -> float:
    """Return log sum exp, -inf where all are."""
    peak = float(values.max())
    return peak + float(np.log(np.exp(values - peak).sum())) if np.isfinite(peak) else peak
