"""Densities of events at many parameter points, from components that are known.

    log p(x|theta) = log[w(theta) . c(x)] - log[w(theta) . C]

Shapes: M parameter points, N events, K monomials, p parameters.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing.basis import MorphingBasis

__all__ = [
    "log_likelihood",
    "log_likelihood_and_score_of_set",
    "log_likelihood_of_set",
    "score",
    "total_cross_section",
]

_BLOCK = 2**22  # numbers in one temporary array


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
    sigma = basis.weights(theta) @ basis.columns("cross_section", cross_section, 1)
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
    c = basis.columns("components", components, 2)
    result = np.empty((len(basis.points(theta)), len(c)))
    for rows, block in _blocks(basis, c, cross_section, theta):
        result[rows] = block
    return result


def log_likelihood_of_set(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> Array:
    """Return sum_i log p(x_i|theta_m), (M,), without holding (M, N) numbers.

    Arguments and errors are those of `log_likelihood`.
    """
    c = basis.columns("components", components, 2)
    result = np.empty(len(basis.points(theta)))
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
    c = basis.columns("components", components, 2)
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
    c = basis.columns("components", components, 2)
    total = basis.columns("cross_section", cross_section, 1)
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
