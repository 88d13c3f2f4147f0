"""Toy problems with known posteriors, and posteriors that are wrong in known ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mflow_sbi.inference import NormalPrior
from mflow_sbi.interfaces import Array

NAMES = ("CWL2", "CPWL2")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))


@dataclass(frozen=True)
class NormalLikelihood:
    """log L = -1/2 (theta - m)^T P (theta - m), with its gradient."""

    mean: Array
    precision: Array
    parameter_names: Sequence[str] = NAMES
    n_events: int = 1

    def __call__(self, theta: Array) -> Array:
        away = theta - self.mean
        return -0.5 * ((away @ self.precision) * away).sum(axis=1)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        return self(theta), -(theta - self.mean) @ self.precision


@dataclass(frozen=True)
class NormalSets:
    """S sets whose events have normal means m_s: log L_s = -1/2 (theta - m_s)^T P (theta - m_s).

    With theta ~ N(0, 1) the posterior is N(C P m_s, C), C = (1 + P)^-1.
    """

    means: Array
    precision: Array
    parameter_names: Sequence[str] = NAMES

    @property
    def n_sets(self) -> int:
        return len(self.means)

    def likelihood_of(self, index: int) -> NormalLikelihood:
        return NormalLikelihood(self.means[index], self.precision)

    def __call__(self, theta: Array) -> Array:
        return self.at_own_points(np.repeat(theta[:, None], self.n_sets, axis=1))

    def at_own_points(self, theta: Array) -> Array:
        away = theta - self.means
        return -0.5 * ((away @ self.precision) * away).sum(axis=2)

    def posteriors(self) -> tuple[Array, Array]:
        """Return the posterior means (S, p) and their covariance (p, p)."""
        total = np.eye(len(self.precision)) + self.precision
        covariance = np.asarray(np.linalg.inv(total), dtype=np.float64)
        return self.means @ self.precision @ covariance, covariance

    def draws(self, n: int, rng: np.random.Generator) -> Array:
        """Return exact posterior draws, (S, n, p)."""
        means, covariance = self.posteriors()
        noise = rng.normal(size=(n, *means.shape)).transpose(1, 0, 2)
        return means[:, None] + noise @ np.linalg.cholesky(covariance).T


PRECISION = np.array([[6.0, 2.0], [2.0, 4.0]])


def normal_sets(n_sets: int, seed: int) -> tuple[NormalSets, Array]:
    """Return S sets with their truths (S, 2), theta ~ N(0, 1), m ~ N(theta, P^-1)."""
    rng = np.random.default_rng(seed)
    theta = PRIOR.sample(n_sets, rng)
    noise = rng.normal(size=theta.shape) @ np.linalg.cholesky(np.linalg.inv(PRECISION)).T
    return NormalSets(theta + noise, PRECISION), theta


def narrower(sets: NormalSets, factor: float) -> NormalSets:
    """Return likelihoods that are L^factor: too narrow above one, too wide below."""
    return NormalSets(sets.means, factor * sets.precision)


def shifted(sets: NormalSets, by: float) -> NormalSets:
    """Return likelihoods whose maxima are moved in the first parameter."""
    return NormalSets(sets.means + np.array([by, 0.0]), sets.precision)
