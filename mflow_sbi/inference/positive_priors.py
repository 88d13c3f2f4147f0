"""Priors on positive parameters, whose logarithm is uniform or normal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.prior_fields import as_parameter_names, as_positive_floats, fields_of
from mflow_sbi.interfaces import Array

__all__ = ["LogNormalPrior", "LogUniformPrior"]

_NORMAL_HALF_WIDTH = 5.0  # standard deviations: all but 6e-7 of each axis


@dataclass(frozen=True)
class LogUniformPrior:
    r"""log p(theta) = -sum_k [log theta_k + log log(high_k / low_k)] inside the closed box.

    Every decade between low and high is as likely as any other.

    Args:
        parameter_names: the p names.
        low: p lower edges, positive.
        high: p upper edges, above the lower ones.

    Raises:
        ConfigurationError: unequal lengths, numbers that are not positive, an empty interval.

    Example:
        >>> prior = LogUniformPrior(("background",), low=(1,), high=(100,))
        >>> prior.log_prob(np.array([[1.0], [10.0], [0.5]])).round(4)
        array([-1.5272, -3.8298,    -inf])
    """

    parameter_names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        low = as_positive_floats("low", self.low, len(names))
        high = as_positive_floats("high", self.high, len(names))
        for name, below, above in zip(names, low, high, strict=True):
            if not below < above:
                message = f"prior of {name}: expected low < high, got [{below}, {above}]"
                raise ConfigurationError(message)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf outside the box."""
        points = as_points(theta, len(self.low))
        inside = self._inside(points)
        norm = np.log(np.log(np.divide(self.high, self.low))).sum()
        density = -np.log(np.where(inside[:, None], points, 1.0)).sum(axis=1) - norm
        return np.where(inside, density, -np.inf)

    def gradient(self, theta: Array) -> Array:
        """Return d log p / d theta_k = -1 / theta_k, (M, p) -> (M, p); zero outside."""
        points = as_points(theta, len(self.low))
        inside = self._inside(points)[:, None]
        return np.where(inside, -1 / np.where(inside, points, 1.0), 0.0)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        logs = rng.uniform(np.log(self.low), np.log(self.high), size=(n, len(self.low)))
        return np.clip(np.exp(logs), self.low, self.high)

    def box(self) -> Array:
        """Return the edges, (p, 2)."""
        return np.stack([np.asarray(self.low), np.asarray(self.high)], axis=1)

    def support(self) -> Array:
        """Return the edges, (p, 2)."""
        return self.box()

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "log_uniform", ...} with plain lists."""
        return {
            "kind": "log_uniform",
            "parameter_names": list(self.parameter_names),
            "low": list(self.low),
            "high": list(self.high),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LogUniformPrior":
        """Return the prior written by `to_dict`."""
        return cls(**fields_of(record, "log_uniform", ("parameter_names", "low", "high")))

    def _inside(self, points: Array) -> Array:
        return np.all((points >= np.asarray(self.low)) & (points <= np.asarray(self.high)), axis=1)


@dataclass(frozen=True)
class LogNormalPrior:
    r"""log p = -sum_k [1/2 (log(theta_k/m_k)/s_k)^2 + log(theta_k s_k sqrt(2 pi))], s = log kappa.

    theta_k is known within a factor kappa_k: a density in theta, -inf for theta <= 0.

    Args:
        parameter_names: the p names.
        median: p medians m, positive, in units of the parameters.
        kappa: p factors above one; 1.05 for 5%.

    Raises:
        ConfigurationError: unequal lengths, a median that is not positive, a kappa not above one.

    Example:
        >>> prior = LogNormalPrior(("background",), median=(10,), kappa=(2,))
        >>> prior.log_prob(np.array([[10.0], [-1.0]])).round(4)
        array([-2.855,   -inf])
    """

    parameter_names: tuple[str, ...]
    median: tuple[float, ...]
    kappa: tuple[float, ...]

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        kappa = as_positive_floats("kappa", self.kappa, len(names))
        if min(kappa) <= 1:
            message = f"prior kappa: expected numbers above one, got {kappa}; 1.05 stands for 5%"
            raise ConfigurationError(message)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "median", as_positive_floats("median", self.median, len(names)))
        object.__setattr__(self, "kappa", kappa)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf where a theta_k <= 0."""
        points = as_points(theta, len(self.median))
        inside = np.all(points > 0, axis=1)
        logs = np.log(np.where(inside[:, None], points, 1.0))
        width = np.log(self.kappa)
        pulls = (logs - np.log(self.median)) / width
        norm = (logs + np.log(width)).sum(axis=1) + 0.5 * width.size * np.log(2 * np.pi)
        return np.where(inside, -0.5 * np.square(pulls).sum(axis=1) - norm, -np.inf)

    def gradient(self, theta: Array) -> Array:
        """Return -[log(theta_k/m_k)/s_k^2 + 1] / theta_k, (M, p) -> (M, p); zero outside."""
        points = as_points(theta, len(self.median))
        inside = np.all(points > 0, axis=1)[:, None]
        some = np.where(inside, points, 1.0)
        away = np.log(some / np.asarray(self.median)) / np.square(np.log(self.kappa))
        return np.where(inside, -(away + 1) / some, 0.0)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        return rng.lognormal(np.log(self.median), np.log(self.kappa), size=(n, len(self.median)))

    def box(self) -> Array:
        """Return median / kappa^5 to median * kappa^5, (p, 2): all but 6e-7 of each."""
        median, reach = np.asarray(self.median), np.asarray(self.kappa) ** _NORMAL_HALF_WIDTH
        return np.stack([median / reach, median * reach], axis=1)

    def support(self) -> Array:
        """Return zero to infinity, (p, 2)."""
        return np.tile([0.0, np.inf], (len(self.median), 1))

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "log_normal", ...} with plain lists."""
        return {
            "kind": "log_normal",
            "parameter_names": list(self.parameter_names),
            "median": list(self.median),
            "kappa": list(self.kappa),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LogNormalPrior":
        """Return the prior written by `to_dict`."""
        return cls(**fields_of(record, "log_normal", ("parameter_names", "median", "kappa")))
