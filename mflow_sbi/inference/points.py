"""Parameter points at a public door, and the unnormalised log posterior at them."""

import numpy as np

from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.inference.naming import constrained_names_of
from mflow_sbi.interfaces import (
    Array,
    DifferentiableLikelihood,
    DifferentiablePrior,
    Likelihood,
    Prior,
)

__all__ = ["as_points", "common_names", "log_joint", "log_posterior_and_gradient"]


def as_points(theta: Array, parameter_dim: int) -> Array:
    """Return theta as (M, p) float64.

    Raises:
        ShapeError: theta has another shape.
    """
    points = np.asarray(theta, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != parameter_dim:
        message = f"theta: expected shape (M, {parameter_dim}), got {points.shape}"
        raise ShapeError(message)
    return points


def common_names(likelihood: Likelihood, prior: Prior) -> tuple[str, ...]:
    """Return the parameter names on which likelihood and prior agree.

    Raises:
        ShapeError: they have other names or another order.
        ConfigurationError: the constraint of a nuisance stands in both, and would count twice.
    """
    names = tuple(likelihood.parameter_names)
    if names != tuple(prior.parameter_names):
        message = (
            f"expected likelihood and prior of the same parameters in one order, got "
            f"{list(names)} and {list(prior.parameter_names)}"
        )
        raise ShapeError(message)
    within = constrained_names_of(likelihood)
    twice = [name for name in constrained_names_of(prior) if name in within]
    if twice:
        message = (
            f"the constraint of {twice} stands in the likelihood and in the prior and would count "
            "twice; leave it in the prior (Bayesian), or in the likelihood with another prior"
        )
        raise ConfigurationError(message)
    return names


def log_joint(likelihood: Likelihood, prior: Prior, points: Array) -> Array:
    """Return log L(theta) + log p(theta), (M, p) -> (M,), -inf where the prior vanishes.

    The likelihood is asked only where the prior is positive.
    """
    log_density = prior.log_prob(points)
    inside = log_density > -np.inf
    if inside.any():
        log_density[inside] += likelihood(points[inside])
    return log_density


def log_posterior_and_gradient(
    likelihood: DifferentiableLikelihood, prior: DifferentiablePrior, points: Array
) -> tuple[Array, Array]:
    """Return log L(theta) + log p(theta) and its gradient, (M, p) -> (M,), (M, p).

    Where the prior or the likelihood vanishes the value is -inf and the gradient zero; the
    likelihood is asked only where the prior is positive.
    """
    values, gradients = prior.log_prob(points), prior.gradient(points)
    inside = values > -np.inf
    if inside.any():
        more, slopes = likelihood.value_and_gradient(points[inside])
        values[inside] += more
        gradients[inside] += slopes
    gradients[np.isneginf(values)] = 0.0
    return values, gradients
