r"""Rows drawn with probabilities linear in known vectors, without the matrix of all pairs.

Row i is drawn for column m with probability p_im = y_i . w_m / sum_j y_j . w_m.  Sums over blocks
of rows are linear too: first a block is drawn by its sum, then a row within it, each by the
inverse of its cumulative distribution.  With blocks of sqrt(N) rows, M draws cost
O(M sqrt(N) K) and the distribution is exact.

Shapes: N rows, M columns, K components.
"""

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.interfaces import Array

__all__ = ["draw_rows", "negative_shares"]

_BLOCK = 2**21  # numbers in one temporary array


def draw_rows(carried: Array, columns: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return one row for each column, drawn with probability y_i . w_m, (M,).

    Products below zero count as zero.

    Args:
        carried: y_i, (N, K).
        columns: w_m, (M, K), of positive sums over rows.
        rng: draws two numbers for each column.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> draw_rows(rows, np.array([[0.0, 1.0]] * 3), np.random.default_rng(1)).tolist()
    [1, 1, 1]
    """
    n_rows, n_components = carried.shape
    size = int(np.ceil(np.sqrt(n_rows)))
    n_blocks = -(-n_rows // size)
    padded = np.zeros((n_blocks * size, n_components))
    padded[:n_rows] = carried
    blocks = padded.reshape(n_blocks, size, n_components)
    sums = blocks.sum(axis=1)
    drawn = np.empty(len(columns), dtype=np.intp)
    step = max(1, _BLOCK // (size * n_components))
    for start in range(0, len(columns), step):
        w = columns[start : start + step]
        block = _inverse(w @ sums.T, rng)
        within = np.matmul(blocks[block], w[:, :, None])[:, :, 0]
        drawn[start : start + step] = block * size + _inverse(within, rng)
    return drawn


def negative_shares(carried: Array, columns: Array) -> Array:
    """Return sum_i max(-d_im, 0) / sum_i |d_im| with d_im = y_i . w_m, (M,)."""
    shares = np.empty(len(columns))
    step = max(1, _BLOCK // len(carried))
    for start in range(0, len(columns), step):
        density = columns[start : start + step] @ carried.T
        total = density.sum(axis=1)
        size = np.abs(density, out=density).sum(axis=1)
        shares[start : start + step] = 0.5 * (1.0 - total / np.where(size > 0, size, 1.0))
    return shares


def _inverse(density: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return for each row of densities one index, drawn by the density, (M,)."""
    cumulative = np.cumsum(np.maximum(density, 0.0), axis=1)
    total = cumulative[:, -1:]
    at = rng.random(len(density))[:, None] * total
    last = (cumulative < total).sum(axis=1)
    return np.minimum((cumulative <= at).sum(axis=1), last)
