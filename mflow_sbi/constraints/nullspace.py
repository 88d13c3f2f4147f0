r"""Vanishing combinations of monomials at the precision of the observables.

    A_at = w_a phi_t(y_a) / c_t,   c_t = rms_a(w_a delta phi_t(y_a)),   r(v) = |A v| / sqrt(N)

A unit vector v with r(v) of order one is a polynomial whose values are explained by the rounding
of the observables.  The threshold on r decides, never the largest gap of the singular values,
which finds the products of linear constraints.
"""

from dataclasses import dataclass

import numpy as np

from mflow_sbi.constraints.dictionary import Features, Indices
from mflow_sbi.interfaces import Array

__all__ = ["NullSpace", "null_space"]


@dataclass(frozen=True)
class NullSpace:
    """Right singular vectors of the scaled monomials.

    Args:
        monomials: the T columns, (T, degree).
        scale: c_t, (T,); coefficients of the monomials are v / c.
        residual: r of each vector, descending, (T,).
        vectors: unit vectors as rows, (T, T).
    """

    monomials: Indices
    scale: Array
    residual: Array
    vectors: Array

    def below(self, threshold: float) -> Array:
        """Return the vectors with r < threshold, (K, T), scaled."""
        return self.vectors[self.residual < threshold]

    def gap_at(self, threshold: float) -> float:
        """Return decades between the values on either side of the threshold; 0 if one is empty."""
        null, rest = self.residual[self.residual < threshold], self.residual
        rest = rest[rest >= threshold]
        if not len(null) or not len(rest):
            return 0.0
        return float(np.log10(rest.min() / max(null.max(), 1e-3)))


def null_space(
    features: Features, y: Array, monomials: Indices, precision: float, weight: Array
) -> NullSpace:
    """Return the singular vectors of the monomials in units of the propagated precision.

    Args:
        features: what the monomials are made of.
        y: events in physical units, (N, n).
        monomials: the columns, (T, degree), T <= N.
        precision: relative error of the observables.
        weight: of the events, (N,).
    """
    design = features.evaluate(y, monomials)
    error = features.relative_errors(y, monomials)
    size = np.sqrt(np.mean(np.square(error), axis=0))
    row = np.sqrt(weight / weight.mean())
    row /= np.sqrt(np.mean(np.square(design / size), axis=1))
    scale = precision * np.sqrt(np.mean(np.square(error * row[:, None]), axis=0))
    triangle = np.linalg.qr(design * (row[:, None] / scale), mode="r")
    _, singular, vectors = np.linalg.svd(triangle)
    return NullSpace(monomials, scale, singular / np.sqrt(len(y)), vectors)
