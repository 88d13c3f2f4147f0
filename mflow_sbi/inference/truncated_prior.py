"""A normal prior cut off at limits: positive yields, one-sided bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import truncnorm

from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.prior_fields import (
    as_floats,
    as_limits,
    as_parameter_names,
    as_positive_floats,
    fields_of,
    limits_to_list,
)
from mflow_sbi.interfaces import Array

__all__ = ["TruncatedNormalPrior"]

_NORMAL_HALF_WIDTH = 5.0  # standard deviations: all but 6e-7 of each axis
_TAIL = 2.9e-7  # mass beyond one end of that


@dataclass(frozen=True)
class TruncatedNormalPrior:
    r"""log p = sum_k log N(theta_k; mean_k, std_k) - log[Phi(b_k) - Phi(a_k)] between limits.

    a = (low - mean)/std, b = (high - mean)/std; -inf outside the limits.

    Args:
        parameter_names: the p names.
        mean: p means before the cut, in units of the parameters.
        std: p standard deviations before the cut, positive.
        low: p lower limits; -inf for none (None in a record).
        high: p upper limits; inf for none (None in a record).

    Raises:
        ConfigurationError: unequal lengths, NaN, a std that is not positive, an empty interval.

    Example:
        >>> prior = TruncatedNormalPrior(("yield",), mean=(0,), std=(1,), low=(0,), high=(np.inf,))
        >>> prior.log_prob(np.array([[0.0], [-0.1]])).round(4)
        array([-0.2258,    -inf])
    """

    parameter_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        low, high = as_limits(self.low, self.high, names)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "mean", as_floats("mean", self.mean, len(names)))
        object.__setattr__(self, "std", as_positive_floats("std", self.std, len(names)))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf outside the limits."""
        points = as_points(theta, len(self.mean))
        std = np.asarray(self.std)
        pulls = (points - np.asarray(self.mean)) / std
        norm = (np.log(std) + _log_mass(*self._ends())).sum() + 0.5 * std.size * np.log(2 * np.pi)
        density = -0.5 * np.square(pulls).sum(axis=1) - norm
        return np.where(self._inside(points), density, -np.inf)

    def gradient(self, theta: Array) -> Array:
        """Return -(theta_k - mean_k) / std_k^2, (M, p) -> (M, p); zero outside the limits."""
        points = as_points(theta, len(self.mean))
        slopes = (np.asarray(self.mean) - points) / np.square(self.std)
        return np.where(self._inside(points)[:, None], slopes, 0.0)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        a, b = self._ends()
        draws = truncnorm.rvs(
            a, b, self.mean, self.std, size=(n, len(self.mean)), random_state=rng
        )
        return np.clip(draws, self.low, self.high)

    def box(self) -> Array:
        """Return the limits, or where all but 6e-7 of the mass of each parameter is, (p, 2)."""
        a, b = self._ends()
        q_low, q_high = truncnorm.ppf([[_TAIL], [1 - _TAIL]], a, b)
        low = np.maximum(a, np.minimum(q_low, -_NORMAL_HALF_WIDTH))
        high = np.minimum(b, np.maximum(q_high, _NORMAL_HALF_WIDTH))
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return np.clip(
            np.stack([mean + std * low, mean + std * high], axis=1), *self.support().T[..., None]
        )

    def support(self) -> Array:
        """Return the limits, (p, 2)."""
        return np.stack([np.asarray(self.low), np.asarray(self.high)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "truncated_normal", ...} with plain lists, None for no limit."""
        return {
            "kind": "truncated_normal",
            "parameter_names": list(self.parameter_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "low": limits_to_list(self.low),
            "high": limits_to_list(self.high),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TruncatedNormalPrior":
        """Return the prior written by `to_dict`."""
        names = ("parameter_names", "mean", "std", "low", "high")
        return cls(**fields_of(record, "truncated_normal", names))

    def _ends(self) -> tuple[Array, Array]:
        """Return the limits in standard deviations from the mean, (p,), (p,)."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (np.asarray(self.low) - mean) / std, (np.asarray(self.high) - mean) / std

    def _inside(self, points: Array) -> Array:
        return np.all((points >= np.asarray(self.low)) & (points <= np.asarray(self.high)), axis=1)


def _log_mass(a: Array, b: Array) -> Array:
    """Return log[Phi(b) - Phi(a)], accurate in both tails, (p,)."""
    right = a > 0
    low, high = np.where(right, -b, a), np.where(right, -a, b)
    lower, upper = log_ndtr(low), log_ndtr(high)
    return upper + np.log(-np.expm1(lower - upper))
