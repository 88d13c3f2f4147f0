r"""Parameters without walls: theta = T(z), z in R^p, one bijection per parameter.

    no end          theta = z                       log|dtheta/dz| = 0
    one end, low    theta = low + exp(z)            log|dtheta/dz| = z
    one end, high   theta = high - exp(-z)          log|dtheta/dz| = -z
    two ends        theta = low + (high - low) s(z) log|dtheta/dz| = log(high - low) + log s(z)
                                                                      + log s(-z)

s(z) = 1/(1 + exp(-z)); all increase.  A density in theta times |dtheta/dz| is the same density in
z, so that draws of z carry over; a likelihood needs no such factor, so that maxima carry over.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, log_expit

from mflow_sbi.errors import ParameterRangeError, ShapeError
from mflow_sbi.inference.naming import as_names
from mflow_sbi.inference.points import as_points, common_names, log_posterior_and_gradient
from mflow_sbi.inference.points import log_joint as log_joint_at
from mflow_sbi.inference.prior_fields import RecordedPrior, support_of
from mflow_sbi.interfaces import Array, DifferentiableLikelihood

__all__ = ["Unbounded", "UnboundedLikelihood", "UnboundedPosterior"]


class Unbounded:
    """theta = T(z), a bijection of R^p and an open box.

    Args:
        parameter_names: the p names.
        ends: lower and upper end of each parameter, (p, 2); -+inf for none.

    Raises:
        ShapeError: ends are not (p, 2) with low < high.

    Example:
        >>> unbounded = Unbounded(("c", "b", "f"), [[-np.inf, np.inf], [0, np.inf], [0, 1]])
        >>> unbounded.to_parameters(np.zeros((1, 3)))
        array([[0. , 1. , 0.5]])
        >>> unbounded.log_jacobian(np.zeros((1, 3))).round(4)
        array([-1.3863])
    """

    def __init__(
        self, parameter_names: Sequence[str], ends: Array | Sequence[Sequence[float]]
    ) -> None:
        self._names = as_names(parameter_names, "unbounded parameters")
        box = np.asarray(ends, dtype=np.float64)
        if box.shape != (len(self._names), 2) or not (box[:, 0] < box[:, 1]).all():
            message = (
                f"ends: expected shape ({len(self._names)}, 2), low < high of each parameter, got "
                f"{box.tolist()}"
            )
            raise ShapeError(message)
        self._ends = box
        below, above = np.isfinite(box).T
        self._low = np.where(below, box[:, 0], 0.0)
        self._high = np.where(above, box[:, 1], 0.0)
        self._two, self._from, self._to = below & above, below & ~above, ~below & above
        self._width = np.where(self._two, self._high - self._low, 1.0)

    @classmethod
    def of(cls, prior: RecordedPrior) -> "Unbounded":
        """Return the bijection between R^p and the support of a prior (its box if unknown)."""
        return cls(prior.parameter_names, support_of(prior))

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def ends(self) -> Array:
        """Lower and upper end of each parameter, (p, 2)."""
        return self._ends.copy()

    def to_parameters(self, z: Array) -> Array:
        """Return theta, (M, p) -> (M, p); an end itself where numbers are no finer."""
        z = as_points(z, len(self._names))
        with np.errstate(over="ignore"):
            powers = np.exp(np.where(self._to, -z, z))
        theta = np.where(self._from, self._low + powers, z)
        theta = np.where(self._to, self._high - powers, theta)
        theta = np.where(self._two, self._low + self._width * expit(z), theta)
        return np.clip(theta, self._ends[:, 0], self._ends[:, 1])

    def to_unbounded(self, theta: Array) -> Array:
        """Return z, (M, p) -> (M, p).

        Raises:
            ParameterRangeError: a parameter on an end or beyond it, or NaN.
        """
        theta = as_points(theta, len(self._names))
        self._require_inside(theta)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(self._from, np.log(theta - self._low), theta)
            z = np.where(self._to, -np.log(self._high - theta), z)
            # the nearer end tells: theta - low and high - theta are exact beside it
            odds = np.log(theta - self._low) - np.log(self._high - theta)
        return np.where(self._two, odds, z)

    def log_jacobian(self, z: Array) -> Array:
        """Return log |det dtheta/dz|, (M, p) -> (M,)."""
        return self._log_slopes(as_points(z, len(self._names))).sum(axis=1)

    def log_jacobian_gradient(self, z: Array) -> Array:
        """Return d log |det dtheta/dz| / dz, (M, p) -> (M, p)."""
        z = as_points(z, len(self._names))
        return np.where(self._two, 1 - 2 * expit(z), 1.0 * self._from - 1.0 * self._to)

    def slopes(self, z: Array) -> Array:
        """Return dtheta_k/dz_k, (M, p) -> (M, p)."""
        return np.exp(self._log_slopes(as_points(z, len(self._names))))

    def _log_slopes(self, z: Array) -> Array:
        logs = np.log(self._width) + log_expit(z) + log_expit(-z)
        return np.where(self._two, logs, np.where(self._from, z, np.where(self._to, -z, 0.0)))

    def _require_inside(self, theta: Array) -> None:
        good = (theta > self._ends[:, 0]) & (theta < self._ends[:, 1])
        if not good.all():
            m, k = np.argwhere(~good)[0]
            message = (
                f"expected parameters inside their ends, got {self._names[k]} = {theta[m, k]:g} "
                f"with ends {self._ends[k].tolist()} ({int((~good).any(axis=1).sum())} of "
                f"{len(theta)} points)"
            )
            raise ParameterRangeError(message)


class UnboundedLikelihood:
    """log L(T(z)): maxima and profiles in z are those in theta.

    Args:
        likelihood: of theta.
        transform: theta = T(z), of the same parameters in the same order.

    Raises:
        ShapeError: other parameters.
    """

    def __init__(self, likelihood: DifferentiableLikelihood, transform: Unbounded) -> None:
        if tuple(likelihood.parameter_names) != tuple(transform.parameter_names):
            message = (
                f"expected a transformation of {list(likelihood.parameter_names)}, got one of "
                f"{list(transform.parameter_names)}"
            )
            raise ShapeError(message)
        self._likelihood = likelihood
        self._transform = transform

    @property
    def transform(self) -> Unbounded:
        """The map theta = T(z)."""
        return self._transform

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._likelihood.parameter_names

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return self._likelihood.n_events

    def __call__(self, z: Array) -> Array:
        """Return log L(T(z)), (M, p) -> (M,)."""
        return self._likelihood(self._transform.to_parameters(z))

    def value_and_gradient(self, z: Array) -> tuple[Array, Array]:
        """Return log L(T(z)) and its gradient in z, (M, p) -> (M,), (M, p)."""
        theta = self._transform.to_parameters(z)
        values, gradients = self._likelihood.value_and_gradient(theta)
        return values, gradients * self._transform.slopes(z)


class UnboundedPosterior:
    """log L(T(z)) + log p(T(z)) + log |dT/dz|: the posterior as a density in z.

    Its integral over R^p is that of the posterior over theta; T(z) of its draws are draws of the
    posterior.

    Args:
        likelihood: of theta.
        prior: of the same parameters in the same order; its support says how T is made.

    Raises:
        ShapeError: other parameters.
        ConfigurationError: a constraint that stands in both.
    """

    def __init__(self, likelihood: DifferentiableLikelihood, prior: RecordedPrior) -> None:
        self._names = common_names(likelihood, prior)
        self._likelihood = likelihood
        self._prior = prior
        self._transform = Unbounded.of(prior)

    @property
    def transform(self) -> Unbounded:
        """The map theta = T(z)."""
        return self._transform

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    def __call__(self, z: Array) -> Array:
        """Return the log density in z, unnormalised, (M, p) -> (M,)."""
        theta = self._transform.to_parameters(z)
        log_density = log_joint_at(self._likelihood, self._prior, theta)
        return log_density + self._transform.log_jacobian(z)

    def value_and_gradient(self, z: Array) -> tuple[Array, Array]:
        """Return the log density in z and its gradient, (M, p) -> (M,), (M, p).

        The gradient is zero where the value is -inf.
        """
        theta = self._transform.to_parameters(z)
        values, gradients = log_posterior_and_gradient(self._likelihood, self._prior, theta)
        slopes = gradients * self._transform.slopes(z) + self._transform.log_jacobian_gradient(z)
        slopes[np.isneginf(values)] = 0.0
        return values + self._transform.log_jacobian(z), slopes
