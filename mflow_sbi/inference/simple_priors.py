"""Normal and box priors on the theory parameters, normalised, seeded, written as plain dicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.prior_fields import (
    as_floats,
    as_parameter_names,
    as_positive_floats,
    fields_of,
)
from mflow_sbi.interfaces import Array

__all__ = ["BoxPrior", "NormalPrior"]

_NORMAL_HALF_WIDTH = 5.0  # standard deviations: all but 6e-7 of each axis


@dataclass(frozen=True)
class NormalPrior:
    r"""log p(theta) = sum_k [-1/2 ((theta_k - mean_k)/std_k)^2 - log(std_k sqrt(2 pi))].

    Args:
        parameter_names: the p names.
        mean: p means, in units of the parameters.
        std: p standard deviations, positive.

    Raises:
        ConfigurationError: unequal lengths, non-finite numbers, a std that is not positive.

    Example:
        >>> prior = NormalPrior(("CWL2", "CPWL2"), mean=(0, 0), std=(1, 1))
        >>> prior.log_prob(np.zeros((1, 2))).round(4)
        array([-1.8379])
    """

    parameter_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        std = as_positive_floats("std", self.std, len(names))
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "mean", as_floats("mean", self.mean, len(names)))
        object.__setattr__(self, "std", std)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,)."""
        points = as_points(theta, len(self.mean))
        std = np.asarray(self.std)
        pulls = (points - np.asarray(self.mean)) / std
        norm = np.log(std).sum() + 0.5 * std.size * np.log(2 * np.pi)
        return -0.5 * np.square(pulls).sum(axis=1) - norm

    def gradient(self, theta: Array) -> Array:
        """Return d log p / d theta_k = -(theta_k - mean_k) / std_k^2, (M, p) -> (M, p)."""
        points = as_points(theta, len(self.mean))
        return (np.asarray(self.mean) - points) / np.square(self.std)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        return rng.normal(self.mean, self.std, size=(n, len(self.mean)))

    def box(self) -> Array:
        """Return mean -+ 5 std, (p, 2): all but 6e-7 of the mass of each parameter."""
        mean, reach = np.asarray(self.mean), _NORMAL_HALF_WIDTH * np.asarray(self.std)
        return np.stack([mean - reach, mean + reach], axis=1)

    def support(self) -> Array:
        """Return all numbers, (p, 2)."""
        return np.tile([-np.inf, np.inf], (len(self.mean), 1))

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "normal", ...} with plain lists."""
        return {
            "kind": "normal",
            "parameter_names": list(self.parameter_names),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "NormalPrior":
        """Return the prior written by `to_dict`."""
        return cls(**fields_of(record, "normal", ("parameter_names", "mean", "std")))


@dataclass(frozen=True)
class BoxPrior:
    r"""log p(theta) = -sum_k log(high_k - low_k) inside the closed box, -inf outside.

    Args:
        parameter_names: the p names.
        low: p lower edges.
        high: p upper edges, above the lower ones.

    Raises:
        ConfigurationError: unequal lengths, non-finite numbers, an empty interval.

    Example:
        >>> prior = BoxPrior(("CWL2",), low=(-1,), high=(1,))
        >>> prior.log_prob(np.array([[0.0], [1.0], [1.1]])).round(4)
        array([-0.6931, -0.6931,    -inf])
    """

    parameter_names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        low = as_floats("low", self.low, len(names))
        high = as_floats("high", self.high, len(names))
        for name, below, above in zip(names, low, high, strict=True):
            if not below < above:
                message = f"prior box of {name}: expected low < high, got [{below}, {above}]"
                raise ConfigurationError(message)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf outside the box."""
        points = as_points(theta, len(self.low))
        low, high = np.asarray(self.low), np.asarray(self.high)
        inside = np.all((points >= low) & (points <= high), axis=1)
        return np.where(inside, -np.log(high - low).sum(), -np.inf)

    def gradient(self, theta: Array) -> Array:
        """Return zeros, (M, p) -> (M, p): inside, and outside too, where log p = -inf."""
        return np.zeros_like(as_points(theta, len(self.low)))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        return rng.uniform(self.low, self.high, size=(n, len(self.low)))

    def box(self) -> Array:
        """Return the edges, (p, 2)."""
        return np.stack([np.asarray(self.low), np.asarray(self.high)], axis=1)

    def support(self) -> Array:
        """Return the edges, (p, 2)."""
        return self.box()

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "box", ...} with plain lists."""
        return {
            "kind": "box",
            "parameter_names": list(self.parameter_names),
            "low": list(self.low),
            "high": list(self.high),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "BoxPrior":
        """Return the prior written by `to_dict`."""
        return cls(**fields_of(record, "box", ("parameter_names", "low", "high")))
