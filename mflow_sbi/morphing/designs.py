r"""Benchmark points that give small morphing errors.

Weights w_b of equal variance give at theta a weight of variance |v(theta)|^2 times theirs, with
v(theta) = w(theta) W^+.  Good points make its average over the theta that will be asked for small
(arXiv:1805.00013, section III; in statistics: V-optimal designs),

    mean_theta |v(theta)|^2 = tr[A (W^T W)^-1],    A = mean_theta w(theta)^T w(theta).

It is searched by exchanges: single points are replaced by the best of many candidates until none
improves it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing.basis import MorphingBasis
from mflow_sbi.morphing.benchmarks import MorphingBenchmarks

__all__ = ["morphing_error", "suggest_benchmarks"]

_CANDIDATES = 400
_AVERAGED = 4000
_STARTS = 4
_SWEEPS = 30


def morphing_error(benchmarks: MorphingBenchmarks, theta: ArrayLike) -> float:
    """Return sqrt(mean_m |v(theta_m)|^2) over points (M, p): error per error of the weights."""
    return float(np.sqrt(np.square(benchmarks.morphing_weights(theta)).sum(axis=1).mean()))


def suggest_benchmarks(
    basis: MorphingBasis,
    ranges: Sequence[tuple[float, float]],
    n: int,
    rng: np.random.Generator,
    fixed: ArrayLike | None = None,
) -> Array:
    """Return n points in a box of parameters of small morphing error over that box, (n, p).

    Args:
        basis: the monomials.
        ranges: lowest and highest value of each parameter, p pairs.
        n: number of points, at least K.
        rng: draws candidates and starts.
        fixed: points that must be among them, such as the Standard Model, (F, p).

    Raises:
        ShapeError: too few points, or ranges of another number of parameters.
        ParameterRangeError: a range that is empty or not finite.
    """
    low, high = _box(basis, ranges)
    kept = np.empty((0, basis.parameter_dim)) if fixed is None else basis.points(fixed)
    if n < max(basis.n_components, len(kept)):
        msg = (
            f"suggest_benchmarks: expected at least {basis.n_components} points for as many "
            f"monomials, and room for {len(kept)} fixed ones; got n={n}."
        )
        raise ShapeError(msg)
    reach = np.maximum(np.abs(low), np.abs(high))
    average = basis.weights(rng.uniform(low, high, (_AVERAGED, len(low))) / reach)
    moment = average.T @ average / len(average)
    corners = rng.integers(0, 3, size=(_CANDIDATES, len(low))) / 2  # edges are where points go
    candidates = low + (high - low) * np.vstack([corners, rng.random(corners.shape)])
    best, least = np.empty((0, len(low))), np.inf
    for _ in range(_STARTS):
        chosen = candidates[rng.choice(len(candidates), n - len(kept), replace=False)]
        points = np.vstack([kept, chosen])
        error = _exchange(basis, points, len(kept), candidates, reach, moment)
        if error < least:
            best, least = points, error
    return best


def _box(basis: MorphingBasis, ranges: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    box = np.asarray(ranges, dtype=np.float64)
    if box.shape != (basis.parameter_dim, 2):
        msg = (
            f"suggest_benchmarks: expected {basis.parameter_dim} ranges (low, high); got shape "
            f"{box.shape}."
        )
        raise ShapeError(msg)
    low, high = box.T
    if not (np.isfinite(box).all() and (low < high).all()):
        msg = f"suggest_benchmarks: expected finite ranges with low < high; got {box.tolist()}."
        raise ParameterRangeError(msg)
    return low, high


def _exchange(
    basis: MorphingBasis,
    points: Array,
    n_fixed: int,
    candidates: Array,
    reach: Array,
    moment: Array,
) -> float:
    """Replace points in place until no candidate lowers tr[A (W^T W)^-1], and return that."""
    rows, others = basis.weights(points / reach), basis.weights(candidates / reach)
    ridge = 1e-9 * np.eye(basis.n_components)  # of a start that does not determine everything
    least = float(np.trace(moment @ np.linalg.inv(rows.T @ rows + ridge)))
    for _ in range(_SWEEPS):
        before = least
        for b in range(n_fixed, len(points)):
            rest = np.delete(rows, b, axis=0)
            inverse = np.linalg.inv(rest.T @ rest + ridge)
            pulled = others @ inverse  # (X + u u^T)^-1 = X^-1 - X^-1 u u^T X^-1 / (1 + u X^-1 u)
            gain = np.einsum("ck,kl,cl->c", pulled, moment, pulled)
            gain /= 1.0 + np.einsum("ck,ck->c", pulled, others)
            c = int(gain.argmax())
            value = float(np.trace(moment @ inverse) - gain[c])
            if value < least * (1.0 - 1e-9):
                least, points[b], rows[b] = value, candidates[c], others[c]
        if least >= before:
            break
    return least
