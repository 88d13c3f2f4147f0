r"""Constraints of nuisance parameters by auxiliary measurements: Gaussian and log-normal.

A nuisance nu was measured elsewhere as m with error s.  That knowledge enters an analysis once,
in one of two places:

- frequentist: as a factor p(m|nu) of the likelihood.  A constraint is a likelihood without
  events; give it to a `JointLikelihood` beside the channels.  In toy experiments m fluctuates
  (`fluctuated`).
- Bayesian: as the prior p(nu|m).  A constraint is a prior; give it to a `ProductPrior`.

The same object serves as either, and the door where likelihood and prior meet
(`points.common_names`) refuses a constraint that stands in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import ShapeError
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.positive_priors import LogNormalPrior
from mflow_sbi.inference.prior_fields import fields_of
from mflow_sbi.inference.simple_priors import NormalPrior
from mflow_sbi.interfaces import Array

__all__ = ["GaussianConstraint", "LogNormalConstraint"]


@dataclass(frozen=True)
class GaussianConstraint(NormalPrior):
    r"""log p(m|nu) = sum_k [-1/2 ((m_k - nu_k)/s_k)^2 - log(s_k sqrt(2 pi))].

    As likelihood: the density of the measured m.  As prior: the density of nu after a flat one;
    the same number, since a Gaussian is symmetric.

    Args:
        parameter_names: of the nuisances nu.
        mean: measured values m; zero for nuisances in standard deviations.
        std: their errors s; one for nuisances in standard deviations.

    Raises:
        ConfigurationError: unequal lengths, non-finite numbers, a std that is not positive.

    Example:
        >>> constraint = GaussianConstraint.unit(("luminosity",))
        >>> constraint(np.array([[0.0], [1.0]])).round(4)
        array([-0.9189, -1.4189])
    """

    @classmethod
    def unit(cls, parameter_names: Sequence[str]) -> "GaussianConstraint":
        """Return the constraint of nuisances in standard deviations: m = 0, s = 1."""
        p = len(parameter_names)
        return cls(tuple(parameter_names), (0.0,) * p, (1.0,) * p)

    @property
    def constrained_names(self) -> Sequence[str]:
        """The nuisances."""
        return self.parameter_names

    @property
    def n_events(self) -> int:
        """Number of observed events: none."""
        return 0

    def __call__(self, theta: Array) -> Array:
        """Return log p(m|nu), (M, p) -> (M,)."""
        return self.log_prob(theta)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log p(m|nu) and its gradient in nu, (M, p) -> (M,), (M, p)."""
        return self.log_prob(theta), self.gradient(theta)

    def fluctuated(self, theta: Array, rng: np.random.Generator) -> "GaussianConstraint":
        """Return the constraint of a toy experiment at nuisances theta, (p,): m ~ N(theta, s)."""
        drawn = rng.normal(_one_point(theta, len(self.mean)), self.std)
        return GaussianConstraint(self.parameter_names, tuple(drawn.tolist()), self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "gaussian_constraint", ...} with plain lists."""
        return {**super().to_dict(), "kind": "gaussian_constraint"}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "GaussianConstraint":
        """Return the constraint written by `to_dict`."""
        return cls(**fields_of(record, "gaussian_constraint", ("parameter_names", "mean", "std")))


@dataclass(frozen=True)
class LogNormalConstraint(LogNormalPrior):
    r"""log p(log m|nu) = -sum_k [1/2 (log(m_k/nu_k)/s_k)^2 + log(s_k sqrt(2 pi))], s = log kappa.

    For nuisances that are positive factors or yields themselves; one that is an exponent (kappa
    ^nu, a `LogNormalFactor`) has a Gaussian constraint.  As likelihood: the density of the
    measured log m.  As prior: the density of nu after one flat in log nu, which has one factor
    1/nu more.

    Args:
        parameter_names: of the nuisances nu, positive.
        median: measured values m, positive.
        kappa: factors above one within which they are known; 1.05 for 5%.

    Raises:
        ConfigurationError: unequal lengths, a median that is not positive, a kappa not above one.
    """

    @property
    def constrained_names(self) -> Sequence[str]:
        """The nuisances."""
        return self.parameter_names

    @property
    def n_events(self) -> int:
        """Number of observed events: none."""
        return 0

    def __call__(self, theta: Array) -> Array:
        """Return log p(log m|nu), (M, p) -> (M,); -inf where a nu <= 0."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log p(log m|nu) and its gradient in nu, (M, p) -> (M,), (M, p)."""
        points = as_points(theta, len(self.median))
        inside = np.all(points > 0, axis=1)
        some = np.where(inside[:, None], points, 1.0)
        values = self.log_prob(points) + np.log(some).sum(axis=1)
        return values, np.where(inside[:, None], self.gradient(points) + 1 / some, 0.0)

    def fluctuated(self, theta: Array, rng: np.random.Generator) -> "LogNormalConstraint":
        """Return the constraint of a toy experiment at nuisances theta, (p,): log m ~ N(log)."""
        at = _one_point(theta, len(self.median))
        drawn = rng.lognormal(np.log(at), np.log(self.kappa))
        return LogNormalConstraint(self.parameter_names, tuple(drawn.tolist()), self.kappa)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "log_normal_constraint", ...} with plain lists."""
        return {**super().to_dict(), "kind": "log_normal_constraint"}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LogNormalConstraint":
        """Return the constraint written by `to_dict`."""
        names = ("parameter_names", "median", "kappa")
        return cls(**fields_of(record, "log_normal_constraint", names))


def _one_point(theta: Array, parameter_dim: int) -> Array:
    point = np.asarray(theta, dtype=np.float64)
    if point.shape != (parameter_dim,):
        message = f"nuisances: expected shape ({parameter_dim},), got {point.shape}"
        raise ShapeError(message)
    return point
