"""A prior by the user's own functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.prior_fields import as_parameter_names
from mflow_sbi.interfaces import Array

__all__ = ["UserPrior"]

_STEP = 1e-5  # of the box's width, for slopes from values


@dataclass(frozen=True, eq=False)
class UserPrior:
    """log p(theta) by a function, whose draws and box are supplied with it.

    Normalise the density if evidences are wanted; nothing else needs it.  The draws must follow
    it: chains start from them, and calibration rests on them.

    Args:
        parameter_names: the p names.
        density: log p(theta), (M, p) -> (M,); -inf outside the support.
        draw: n independent draws, (n, rng) -> (n, p).
        limits: lowest and highest value of each parameter, (p, 2), holding (nearly) all the mass.
        slope: gradient of log p, (M, p) -> (M, p); by default from differences of `density`.
        ends: where the density is positive, (p, 2), -+inf without an end; `limits` by default.
        description: one line for the record.

    Raises:
        ConfigurationError: limits that are no box, or functions that return other shapes or NaN.

    Example:
        >>> prior = UserPrior(
        ...     ("c",),
        ...     density=lambda theta: np.log(0.5) - np.abs(theta[:, 0]),
        ...     draw=lambda n, rng: rng.laplace(size=(n, 1)),
        ...     limits=[[-15, 15]],
        ... )
        >>> prior.gradient(np.array([[2.0], [-1.0]])).round(6)
        array([[-1.],
               [ 1.]])
    """

    parameter_names: tuple[str, ...]
    density: Callable[[Array], Array]
    draw: Callable[[int, np.random.Generator], Array]
    limits: Array | Sequence[Sequence[float]]
    slope: Callable[[Array], Array] | None = None
    ends: Array | Sequence[Sequence[float]] | None = None
    description: str = "user-defined"

    def __post_init__(self) -> None:
        names = as_parameter_names(self.parameter_names)
        limits = np.asarray(self.limits, dtype=np.float64)
        ends = limits if self.ends is None else np.asarray(self.ends, dtype=np.float64)
        for what, box in (("limits", limits), ("ends", ends)):
            if box.shape != (len(names), 2) or not (box[:, 0] < box[:, 1]).all():
                message = (
                    f"prior {what}: expected ({len(names)}, 2), low < high of each parameter, got "
                    f"{box.tolist()}"
                )
                raise ConfigurationError(message)
        if not np.isfinite(limits).all():
            message = f"prior limits: expected finite numbers, got {limits.tolist()}"
            raise ConfigurationError(message)
        object.__setattr__(self, "parameter_names", names)
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "ends", ends)

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,)."""
        points = as_points(theta, len(self.parameter_names))
        values = np.array(self.density(points), dtype=np.float64)
        if values.shape != (len(points),) or not (values < np.inf).all():
            message = (
                f"user-defined prior: expected {len(points)} numbers or -inf from its density, "
                f"got shape {values.shape}, {int((~(values < np.inf)).sum())} NaN or +inf"
            )
            raise ConfigurationError(message)
        return values

    def gradient(self, theta: Array) -> Array:
        """Return the gradient of log p, (M, p) -> (M, p); zero where the density vanishes."""
        points = as_points(theta, len(self.parameter_names))
        slopes = self._differences(points) if self.slope is None else self.slope(points)
        slopes = np.asarray(slopes, dtype=np.float64)
        if slopes.shape != points.shape:
            message = (
                f"user-defined prior: expected slopes of shape {points.shape}, got {slopes.shape}"
            )
            raise ConfigurationError(message)
        return np.where(np.isneginf(self.log_prob(points))[:, None], 0.0, slopes)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        draws = np.asarray(self.draw(n, rng), dtype=np.float64)
        if draws.shape != (n, len(self.parameter_names)) or not np.isfinite(draws).all():
            message = (
                f"user-defined prior: expected finite draws of shape "
                f"({n}, {len(self.parameter_names)}), got shape {draws.shape}"
            )
            raise ConfigurationError(message)
        return draws

    def box(self) -> Array:
        """Return the limits, (p, 2)."""
        return np.array(self.limits)

    def support(self) -> Array:
        """Return where the density is positive, (p, 2)."""
        return np.array(self.ends)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "user", ...}: a record to show, from which no prior can be made."""
        return {
            "kind": "user",
            "parameter_names": list(self.parameter_names),
            "description": self.description,
            "limits": np.asarray(self.limits).tolist(),
        }

    def _differences(self, points: Array) -> Array:
        """Return slopes from values, one-sided beside a place where the density vanishes."""
        here = self.log_prob(points)
        slopes = np.empty_like(points)
        for k, (low, high) in enumerate(np.asarray(self.limits)):
            step = np.zeros(points.shape[1])
            step[k] = _STEP * (high - low)
            ahead, behind = self.log_prob(points + step), self.log_prob(points - step)
            with np.errstate(invalid="ignore"):
                sides = np.stack([ahead - here, here - behind])
            sides[~np.isfinite(sides)] = np.nan
            known = np.isfinite(sides)
            total = np.where(known, sides, 0.0).sum(axis=0)
            slopes[:, k] = total / np.maximum(known.sum(axis=0), 1) / step[k]
        return slopes
