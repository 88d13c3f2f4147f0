r"""Monomials of the observables and what the rounding of the observables does to them.

    phi_t(y) = prod_s g_{a_ts}(y),      g = (1, y_1 .. y_n, sinh y_i for small-range i)

    delta phi_t = precision sqrt(sum_i (size_i d phi_t / d y_i)^2),   size_i = max(|y_i|, spread_i)

A monomial is a row of indices into the features g, padded with 0 (the constant feature).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Array

__all__ = ["Dictionary", "Features", "Indices"]

Indices = NDArray[np.int64]
"""Indices of features or observables."""


@dataclass(frozen=True)
class Dictionary:
    """Which functions may take part in a constraint: the assumption behind a discovery.

    Args:
        degree: largest degree of the monomials.
        sinh_range: sinh(y_i) is a feature beside y_i where max |y_i| lies in this range, in the
            observable's own units (below it sinh is y_i to the precision, above it overflows).
            An empty range, (0, 0), leaves sinh out.

    Raises:
        ConfigurationError: degree < 1, or a range that is not 0 <= low <= high <= 300.
    """

    degree: int = 2
    sinh_range: tuple[float, float] = (0.5, 12.0)

    def __post_init__(self) -> None:
        if self.degree < 1:
            message = f"Dictionary: expected degree >= 1, got {self.degree}"
            raise ConfigurationError(message)
        low, high = self.sinh_range
        if not 0 <= low <= high <= 300:
            message = f"Dictionary: expected 0 <= low <= high <= 300, got {self.sinh_range}"
            raise ConfigurationError(message)

    def features_of(self, y: Array, spread: Array) -> "Features":
        """Return the features for events y, (N, n), of standard deviations spread, (n,)."""
        low, high = self.sinh_range
        largest = np.abs(y).max(axis=0)
        sinh_of = np.flatnonzero((low <= largest) & (largest < high))
        return Features(tuple(spread.tolist()), tuple(sinh_of.tolist()))


@dataclass(frozen=True)
class Features:
    """The feature vector g(y) = (1, y, sinh y_i), of length 1 + n + S.

    Args:
        spread: standard deviations of the n observables; smaller values are no more precise.
        sinh_of: the S observables with a sinh.
    """

    spread: tuple[float, ...]
    sinh_of: tuple[int, ...]

    @property
    def ambient_dim(self) -> int:
        """Number of observables, n."""
        return len(self.spread)

    @property
    def n_features(self) -> int:
        """Number of features besides the constant, n + S."""
        return self.ambient_dim + len(self.sinh_of)

    @property
    def observable(self) -> Indices:
        """Return the observable behind each feature, (1 + n + S,); -1 for the constant."""
        return np.array([-1, *range(self.ambient_dim), *self.sinh_of])

    def sizes(self, y: Array) -> Array:
        """Return max(|y_i|, spread_i), which the relative precision refers to, (N, n)."""
        return np.maximum(np.abs(y), self.spread)

    def values(self, y: Array) -> tuple[Array, Array]:
        """Return g(y) and dg_f / dy_{observable(f)}, both (N, 1 + n + S)."""
        small = y[:, list(self.sinh_of)]
        one = np.ones((len(y), 1))
        g = np.hstack([one, y, np.sinh(small)])
        slope = np.hstack([0 * one, np.ones_like(y), np.cosh(small)])
        return g, slope

    def monomials(self, kept: Iterable[int], degree: int) -> Indices:
        """Return all monomials up to a degree in the kept features, (T, degree).

        >>> Features((1.0, 1.0), ()).monomials([1, 2], 2).tolist()
        [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
        """
        return np.array(list(combinations_with_replacement([0, *kept], degree)), dtype=np.int64)

    def count(self, n_kept: int, degree: int) -> int:
        """Return the number of monomials up to a degree in n_kept features."""
        return comb(n_kept + degree, degree)

    def evaluate(self, y: Array, monomials: Indices) -> Array:
        """Return phi_t(y), (N, T)."""
        return self.values(y)[0][:, monomials].prod(axis=2)

    def gradients(self, y: Array, monomials: Indices) -> Array:
        """Return d phi_t / d y_i, (N, T, n)."""
        g, slope = self.values(y)
        owner = self.observable
        gradient = np.zeros((len(y), len(monomials), self.ambient_dim))
        for s in range(monomials.shape[1]):
            factor = slope[:, monomials[:, s]]
            others = g[:, np.delete(monomials, s, axis=1)].prod(axis=2)
            variable = owner[monomials[:, s]]
            rows = np.flatnonzero(variable >= 0)
            gradient[:, rows, variable[rows]] += factor[:, rows] * others[:, rows]
        return gradient

    def relative_errors(self, y: Array, monomials: Indices) -> Array:
        """Return an upper bound of delta phi_t / precision, (N, T); at least |phi_t|.

        Factors add linearly: sum_s |slope y / g| |phi|, so that y_i^2 has 2 |y_i^2|.
        """
        g, slope = self.values(y)
        scaled = np.abs(
            slope * np.hstack([np.ones((len(y), 1)), self.sizes(y)[:, self.observable[1:]]])
        )
        size = np.abs(g[:, monomials].prod(axis=2))
        error = np.zeros_like(size)
        for s in range(monomials.shape[1]):
            others = g[:, np.delete(monomials, s, axis=1)].prod(axis=2)
            error += scaled[:, monomials[:, s]] * np.abs(others)
        return np.maximum(error, size)
