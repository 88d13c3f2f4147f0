r"""Sparse vanishing polynomials, one per small set of dependent observables.

The polynomial of a circuit (`circuits`) is the vanishing combination of the few monomials in its
observables.  Where a constraint is no circuit's, it is a vanishing combination of least L1 norm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mflow_sbi.constraints.dictionary import Features, Indices
from mflow_sbi.constraints.nullspace import NullSpace, null_space
from mflow_sbi.interfaces import Array

__all__ = ["Polynomial", "circuit_polynomial", "nullspace_polynomials", "prune"]

_SNAP_RELATIVE = 1e-3
_LARGEST_INTEGER = 8
_N_COLUMNS = 10
_SMALLEST_TERM = 1e-5


@dataclass(frozen=True)
class Polynomial:
    """sum_t coefficients_t prod_s g_{monomials_ts}.

    Args:
        monomials: (T, degree), indices into the features.
        coefficients: (T,), the leading one 1.
    """

    monomials: Indices
    coefficients: Array

    def values(self, features: Features, y: Array) -> Array:
        """Return F(y), (N,)."""
        return features.evaluate(y, self.monomials) @ self.coefficients

    def gradients(self, features: Features, y: Array) -> Array:
        """Return dF/dy, (N, n)."""
        return np.einsum("ati,t->ai", features.gradients(y, self.monomials), self.coefficients)

    def rounding(self, features: Features, y: Array, precision: float) -> Array:
        """Return what errors `precision` size_i of the observables do to F, (N,)."""
        spread = np.linalg.norm(self.gradients(features, y) * features.sizes(y), axis=1)
        terms = np.abs(features.evaluate(y, self.monomials)) @ np.abs(self.coefficients)
        return precision * spread + 2.0**-52 * terms + np.finfo(float).tiny

    def residual(self, features: Features, y: Array, precision: float) -> Array:
        """Return |F| in units of its propagated rounding, (N,)."""
        return np.abs(self.values(features, y)) / self.rounding(features, y, precision)


def circuit_polynomial(
    features: Features,
    y: Array,
    circuit: Sequence[int],
    degree: int,
    precision: float,
    threshold: float,
    weight: Array,
) -> Polynomial | None:
    """Return the simplest vanishing polynomial in a few observables, or None.

    Lower degrees come first, and at each degree polynomials without sinh.
    """
    for monomials in _dictionaries(features, circuit, degree):
        if 2 * len(monomials) > len(y):
            return None
        n_rows = min(len(y), max(400, 5 * len(monomials)))
        found = null_space(features, y[:n_rows], monomials, precision, weight[:n_rows])
        if found.residual[-1] < threshold:
            return prune(features, y[:n_rows], found.monomials, precision, weight[:n_rows])
    return None


def _dictionaries(features: Features, circuit: Sequence[int], degree: int) -> Iterator[Indices]:
    plain = [i + 1 for i in circuit]
    curved = [
        1 + features.ambient_dim + k for k, i in enumerate(features.sinh_of) if i in set(circuit)
    ]
    for d in range(1, degree + 1):
        yield features.monomials(plain, d)
        if curved:
            yield features.monomials(plain + curved, d)


def prune(
    features: Features, y: Array, monomials: Indices, precision: float, weight: Array
) -> Polynomial:
    """Return the null vector with as few terms as the residual allows, coefficients snapped."""

    def fit(kept: Indices) -> tuple[Array, float, Array]:
        found = null_space(features, y, kept, precision, weight)
        return found.vectors[-1], float(found.residual[-1]), found.scale

    kept = monomials
    vector, residual, scale = fit(kept)
    allowed = max(3 * residual, 1.0)
    while len(kept) > 2:
        order = np.argsort(np.abs(vector))
        small = int(np.sum(np.abs(vector) < 1e-4 * np.abs(vector).max()))
        for n_dropped in {max(small, 1), 1}:
            trial = kept[np.sort(order[n_dropped:])]
            if len(trial) > 1:
                found = fit(trial)
                if found[1] <= allowed:
                    break
        else:
            break
        kept, (vector, residual, scale) = trial, found
    lead = int(np.argmax(np.abs(vector)))
    coefficients = vector / scale
    return _snap(features, y, Polynomial(kept, coefficients / coefficients[lead]), precision)


def _snap(features: Features, y: Array, fitted: Polynomial, precision: float) -> Polynomial:
    """Return the polynomial with small fractions as coefficients where the data allow them."""

    def rms(polynomial: Polynomial) -> float:
        return float(np.sqrt(np.mean(np.square(polynomial.residual(features, y, precision)))))

    nice = np.array([_nearest_fraction(c) for c in fitted.coefficients])
    snapped = Polynomial(fitted.monomials, nice)
    return snapped if rms(snapped) <= 1.2 * rms(fitted) + 0.1 else fitted


def _nearest_fraction(value: float) -> float:
    """Return p / q with p, q <= 8 if it is within a thousandth, else the value itself."""
    near = Fraction(value).limit_denominator(_LARGEST_INTEGER)
    if near == 0 or abs(near.numerator) > _LARGEST_INTEGER:
        return value
    return float(near) if abs(float(near) - value) <= _SNAP_RELATIVE * abs(value) else value


def nullspace_polynomials(space: NullSpace, threshold: float, first: int) -> Iterator[Polynomial]:
    """Yield sparse combinations of the vanishing vectors, beginning with one of them.

        min |v|_1  over v in the null space with v_c = 1,   for c among the first vector's largest

    Args:
        space: singular vectors.
        threshold: on the residual of vanishing ones.
        first: which of the vanishing vectors names the columns c.
    """
    null = space.below(threshold)
    for column in np.argsort(-np.abs(null[first]))[:_N_COLUMNS]:
        vector = null[first] / null[first, column]
        for softening in np.geomspace(1.0, 1e-7, 30):
            weighted = null / (np.abs(vector) + softening)
            solved = np.linalg.lstsq(weighted @ null.T, null[:, column], rcond=None)[0]
            vector = solved @ null
            vector /= vector[column]
        kept = np.abs(vector) > _SMALLEST_TERM * np.abs(vector).max()
        coefficients = vector[kept] / space.scale[kept]
        yield Polynomial(space.monomials[kept], coefficients / np.abs(coefficients).max())
