r"""Polynomial morphing: the exact dependence of events and rates on EFT parameters.

An amplitude linear in theta makes every density a polynomial in theta,

    sigma(theta) p(x|theta) = sum_k w_k(theta) c_k(x),    w_k(theta) = prod_j theta_j^{e_kj},

so six numbers per event, c_k(x), and six of the process, C_k = int c_k(x) dx, hold the likelihood
at every theta:

    log p(x|theta) = log[w(theta) . c(x)] - log[w(theta) . C].

The same holds for p(x, z|theta) with latent variables z; then these are the joint likelihood and
the joint score (arXiv:1805.00013).

Shapes: M parameter points, N events, K monomials, p parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = [
    "MorphingBasis",
    "log_likelihood",
    "log_likelihood_and_score_of_set",
    "log_likelihood_of_set",
    "score",
    "total_cross_section",
]

_BLOCK = 2**22  # numbers in one temporary array


@dataclass(frozen=True, eq=False)
class MorphingBasis:
    """The monomials w_k(theta) = prod_j theta_j^{e_kj}.

    Attributes:
        exponents: Powers e_kj, (K, p) integers >= 0, every row once.

    Raises:
        ShapeError: The exponents are not K different rows of p integers >= 0.

    >>> basis = MorphingBasis([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]])
    >>> basis.weights([[2.0, 3.0]])
    array([[1., 2., 3., 4., 6., 9.]])
    """

    exponents: NDArray[np.int64]

    def __post_init__(self) -> None:
        given = np.asarray(self.exponents)
        whole = given.ndim == 2 and given.size > 0 and np.array_equal(given, np.round(given))
        if not whole or given.min() < 0 or len(np.unique(given, axis=0)) < len(given):
            msg = (
                "MorphingBasis: expected exponents (K, p), K different rows of integers >= 0; "
                f"got {given.tolist()}."
            )
            raise ShapeError(msg)
        object.__setattr__(self, "exponents", given.astype(np.int64))

    @property
    def n_components(self) -> int:
        """K, the number of monomials."""
        return self.exponents.shape[0]

    @property
    def parameter_dim(self) -> int:
        """p, the number of parameters."""
        return self.exponents.shape[1]

    def weights(self, theta: ArrayLike) -> Array:
        """Return w_k(theta), (M, p) -> (M, K)."""
        points = self._points(theta)
        return np.prod(points[:, None, :] ** self.exponents, axis=2)

    def gradient(self, theta: ArrayLike) -> Array:
        """Return dw_k / dtheta_j, (M, p) -> (M, K, p)."""
        points = self._points(theta)
        powers = points[:, None, :] ** self.exponents
        lowered = self.exponents * points[:, None, :] ** np.maximum(self.exponents - 1, 0)
        gradient = np.empty((len(points), *self.exponents.shape))
        for j in range(self.parameter_dim):
            others = np.delete(powers, j, axis=2)
            gradient[:, :, j] = lowered[:, :, j] * np.prod(others, axis=2)
        return gradient

    def _points(self, theta: ArrayLike) -> Array:
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.parameter_dim:
            msg = f"theta: expected shape (M, {self.parameter_dim}); got {points.shape}."
            raise ShapeError(msg)
        if not np.isfinite(points).all():
            msg = "theta: expected finite parameters; got NaN or infinite ones."
            raise ParameterRangeError(msg)
        return points

    def _columns(self, name: str, values: ArrayLike, ndim: int) -> Array:
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != ndim or array.shape[-1] != self.n_components:
            shape = f"({'N, ' * (ndim - 1)}{self.n_components}{',' * (ndim == 1)})"
            msg = f"{name}: expected shape {shape}; got {array.shape}."
            raise ShapeError(msg)
        if not np.isfinite(array).all():
            msg = f"{name}: expected finite numbers; got NaN or infinite ones."
            raise EventDataError(msg)
        return array


def total_cross_section(basis: MorphingBasis, cross_section: ArrayLike, theta: ArrayLike) -> Array:
    """Return sigma(theta) = w(theta) . C, pb, (M,).

    Args:
        basis: The monomials.
        cross_section: C_k, pb, (K,).
        theta: Parameter points, (M, p).

    Raises:
        ShapeError: Arrays that do not fit the basis.
        ParameterRangeError: The cross section is not positive at some theta.
    """
    sigma = basis.weights(theta) @ basis._columns("cross_section", cross_section, 1)
    if (sigma <= 0).any():
        m = int(np.argmin(sigma))
        msg = (
            f"cross section {sigma[m]:.4g} pb at theta = {np.asarray(theta)[m].tolist()} "
            f"({int((sigma <= 0).sum())} of {len(sigma)} points); expected a positive one. The "
            "coefficients C_k are not those of a squared amplitude, or have too large an error."
        )
        raise ParameterRangeError(msg)
    return sigma


def log_likelihood(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> Array:
    """Return log p(x_i|theta_m) = log[w(theta_m) . c(x_i)] - log[w(theta_m) . C], (M, N).

    Minus infinity where the density w . c is not positive (events outside the cuts).

    Args:
        basis: The monomials.
        components: c_k(x_i), (N, K).
        cross_section: C_k, pb, (K,).
        theta: Parameter points, (M, p).

    Raises:
        ShapeError: Arrays that do not fit the basis.
        EventDataError: Components or cross sections that are not finite.
        ParameterRangeError: The cross section is not positive at some theta.
    """
    c = basis._columns("components", components, 2)
    result = np.empty((len(basis._points(theta)), len(c)))
    for rows, block in _blocks(basis, c, cross_section, theta):
        result[rows] = block
    return result


def log_likelihood_of_set(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> Array:
    """Return sum_i log p(x_i|theta_m), (M,), without holding (M, N) numbers.

    Arguments and errors are those of `log_likelihood`.
    """
    c = basis._columns("components", components, 2)
    result = np.empty(len(basis._points(theta)))
    for rows, block in _blocks(basis, c, cross_section, theta):
        result[rows] = block.sum(axis=1)
    return result


def log_likelihood_and_score_of_set(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> tuple[Array, Array]:
    """Return sum_i log p(x_i|theta_m), (M,), and its gradient in theta_m, (M, p).

    The gradient is sum_k dw_k [sum_i c_ik / (w . c_i) - N C_k / (w . C)], so that no (M, N, p)
    numbers are held; zero where an event has no density and the log likelihood is -inf.

    Arguments and errors are those of `log_likelihood`.
    """
    c = basis._columns("components", components, 2)
    log_sigma = np.log(total_cross_section(basis, cross_section, theta))
    values, pull = np.empty(len(log_sigma)), np.empty((len(log_sigma), basis.n_components))
    for rows, density in _densities(basis, c, theta):
        with np.errstate(divide="ignore"):
            log_density = np.log(density)
        log_density -= log_sigma[rows, None]
        values[rows] = log_density.sum(axis=1)
        density[np.isneginf(values[rows])] = np.inf
        pull[rows] = np.reciprocal(density, out=density) @ c
    pull -= len(c) * np.exp(-log_sigma)[:, None] * np.asarray(cross_section)
    pull[np.isneginf(values)] = 0.0
    return values, np.einsum("mkp,mk->mp", basis.gradient(theta), pull)


def _blocks(
    basis: MorphingBasis, c: Array, cross_section: ArrayLike, theta: ArrayLike
) -> Iterator[tuple[slice, Array]]:
    """Yield slices of points and log p(x_i|theta_m) there, (block, N)."""
    log_sigma = np.log(total_cross_section(basis, cross_section, theta))
    for rows, density in _densities(basis, c, theta):
        with np.errstate(divide="ignore"):
            np.log(density, out=density)
        density -= log_sigma[rows, None]
        yield rows, density


def _densities(basis: MorphingBasis, c: Array, theta: ArrayLike) -> Iterator[tuple[slice, Array]]:
    """Yield slices of points and w(theta_m) . c(x_i) there, not below zero, (block, N)."""
    w = basis.weights(theta)
    step = max(1, _BLOCK // max(1, len(c)))
    for start in range(0, len(w), step):
        rows = slice(start, start + step)
        density = w[rows] @ c.T
        yield rows, np.maximum(density, 0.0, out=density)


def score(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> Array:
    """Return grad_theta log p(x_i|theta_i) = (grad w . c) / (w . c) - (grad w . C) / (w . C).

    Args:
        basis: The monomials.
        components: c_k(x_i), (N, K).
        cross_section: C_k, pb, (K,).
        theta: One point per event, (N, p), or one for all, (1, p).

    Returns:
        The score of every event, (N, p).

    Raises:
        ShapeError: Arrays that do not fit the basis or each other.
        EventDataError: An event has no density at its theta, so it has no score.
        ParameterRangeError: The cross section is not positive at some theta.
    """
    c = basis._columns("components", components, 2)
    total = basis._columns("cross_section", cross_section, 1)
    sigma = total_cross_section(basis, cross_section, theta)
    if len(sigma) not in (1, len(c)):
        msg = f"score: expected theta ({len(c)}, p) or (1, p); got {len(sigma)} points."
        raise ShapeError(msg)
    gradient = basis.gradient(theta)
    density = (basis.weights(theta) * c).sum(axis=1)
    if (density <= 0).any():
        msg = (
            f"score: {int((density <= 0).sum())} of {len(c)} events have no density at their "
            "theta; expected events inside the cuts. Leave them out."
        )
        raise EventDataError(msg)
    of_events = (gradient * c[:, :, None]).sum(axis=1) / density[:, None]
    return of_events - np.einsum("mkp,k->mp", gradient, total) / sigma[:, None]
