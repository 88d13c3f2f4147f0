"""Priors on the theory parameters: normal and box, normalised, seeded, written as plain dicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array, DifferentiablePrior

__all__ = ["BoxPrior", "NormalPrior", "RecordedPrior", "prior_from_dict"]

_NORMAL_HALF_WIDTH = 5.0  # standard deviations: all but 6e-7 of each axis


@runtime_checkable
class RecordedPrior(DifferentiablePrior, Protocol):
    """A prior that can be written down and knows a box holding (nearly) all of its mass."""

    def box(self) -> Array:
        """Return lowest and highest value of each parameter, (p, 2)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as plain JSON-ready values."""
        ...


def _as_floats(name: str, values: Sequence[float], expected: int) -> tuple[float, ...]:
    """Return finite floats, one per parameter, or say which field is wrong."""
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        message = f"prior {name}: expected {expected} numbers, got {values!r}"
        raise ConfigurationError(message) from error
    if len(floats) != expected:
        message = (
            f"prior {name}: expected one number per parameter ({expected}), got {len(floats)}"
        )
        raise ConfigurationError(message)
    if not np.all(np.isfinite(floats)):
        message = f"prior {name}: expected finite numbers, got {floats}"
        raise ConfigurationError(message)
    return floats


def _as_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parameter names as a tuple of distinct strings."""
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        message = f"prior parameter_names: expected a list of at least one name, got {names!r}"
        raise ConfigurationError(message)
    if len(set(names)) != len(names):
        message = f"prior parameter_names: expected distinct names, got {list(names)}"
        raise ConfigurationError(message)
    return tuple(names)


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
        names = _as_names(self.parameter_names)
        std = _as_floats("std", self.std, len(names))
        if min(std) <= 0:
            message = f"prior std: expected positive numbers, got {std}"
            raise ConfigurationError(message)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "mean", _as_floats("mean", self.mean, len(names)))
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
        return cls(**_fields(record, "normal", ("parameter_names", "mean", "std")))


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
        names = _as_names(self.parameter_names)
        low = _as_floats("low", self.low, len(names))
        high = _as_floats("high", self.high, len(names))
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
        return cls(**_fields(record, "box", ("parameter_names", "low", "high")))


def _fields(record: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return exactly the named fields of a record of the given kind."""
    expected = {"kind", *names}
    if record.get("kind") != kind or set(record) != expected:
        message = f"prior: expected kind {kind!r} with {sorted(expected)}, got {dict(record)}"
        raise ConfigurationError(message)
    return {name: record[name] for name in names}


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], NormalPrior | BoxPrior]] = {
    "normal": NormalPrior.from_dict,
    "box": BoxPrior.from_dict,
}


def prior_from_dict(record: Mapping[str, Any]) -> NormalPrior | BoxPrior:
    """Return the prior described by a plain record.

    Args:
        record: {"kind": "normal" | "box", "parameter_names": [...], ...}.

    Raises:
        ConfigurationError: unknown kind, missing or unknown fields, impossible values.
    """
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        message = f"prior kind: expected one of {sorted(_KINDS)}, got {kind!r}"
        raise ConfigurationError(message)
    return _KINDS[kind](record)
