"""Likelihoods in closed form, with gradients, on which samplers are tried."""

from collections.abc import Sequence

import numpy as np

from mflow_sbi.inference.grid import Grid, grid_posterior
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood

from .toys import NAMES


class Normal:
    """log L = -1/2 (theta - m)^T C^-1 (theta - m)."""

    n_events = 1

    def __init__(self, mean: Sequence[float] | Array, covariance: Array) -> None:
        self.parameter_names = tuple(f"theta_{k}" for k in range(len(mean)))
        self.mean = np.asarray(mean, dtype=np.float64)
        self.covariance = np.asarray(covariance, dtype=np.float64)
        self.precision = np.linalg.inv(self.covariance)

    def __call__(self, theta: Array) -> Array:
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        away = theta - self.mean
        slopes = -away @ self.precision
        return 0.5 * (away * slopes).sum(axis=1), slopes

    def posterior(self, prior_std: Sequence[float]) -> tuple[Array, Array, float]:
        """Return mean, covariance and log evidence under N(0, prior_std^2)."""
        prior = np.diag(np.square(prior_std))
        covariance = np.linalg.inv(self.precision + np.linalg.inv(prior))
        total = self.covariance + prior
        log_evidence = 0.5 * (
            np.linalg.slogdet(self.covariance)[1]
            - np.linalg.slogdet(total)[1]
            - self.mean @ np.linalg.solve(total, self.mean)
        )
        mean = covariance @ self.precision @ self.mean
        return np.asarray(mean), np.asarray(covariance, dtype=np.float64), float(log_evidence)


class TwoModes:
    """Normals of width 0.25 at (1.2, 0.8), weight 2/3, and (-1.3, -0.4), weight 1/3."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        away = [theta - [1.2, 0.8], theta - [-1.3, -0.4]]
        first, second = (-0.5 * np.square(x / 0.25).sum(axis=1) for x in away)
        total = np.logaddexp(first, second - np.log(2))
        share = np.exp(first - total)[:, None]
        return total, -(share * away[0] + (1 - share) * away[1]) / 0.25**2


class Ring:
    """|theta| ~ N(1.4, 0.15^2), with two modes of unequal weight on the ring.

    The posterior where the quadratic terms dominate: two amplitudes that differ by a sign.
    """

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        radius = np.hypot(*theta.T)
        x, y = theta.T / radius
        off = (radius - 1.4) / 0.15
        values = -0.5 * np.square(off) + 4 * (x**2 - y**2) + 0.5 * x
        along, around = -off / 0.15, (-16 * x * y - 0.5 * y) / radius
        return values, np.stack([along * x - around * y, along * y + around * x], axis=1)


class Spurious:
    """A normal of width 0.03 at (0.5, 0), and one of no weight, 30 nats lower, at (-1, 0)."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        first, second = (
            -0.5 * np.square((theta - [x, 0]) / 0.03).sum(axis=1) for x in (0.5, -1.0)
        )
        return np.logaddexp(first, second - 30)


class Walled:
    """A normal of width 0.3 at (0.2, 0.1)."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        away = (theta - [0.2, 0.1]) / 0.3
        return -0.5 * np.square(away).sum(axis=1), -away / 0.3


def total_variation(likelihood: Likelihood, prior: RecordedPrior, draws: Array) -> float:
    """Return 1/2 sum |share of draws - mass| over cells of half a unit in [-4, 4]^2."""
    fine = grid_posterior(likelihood, prior, Grid.regular([[-4, 4]] * 2, (320, 320)))
    mass = fine.mass.reshape(16, 20, 16, 20).sum(axis=(1, 3))
    edges = np.linspace(-4, 4, 17)
    share = np.histogram2d(draws[:, 0], draws[:, 1], [edges, edges])[0] / len(draws)
    return float(0.5 * np.abs(share - mass).sum())
