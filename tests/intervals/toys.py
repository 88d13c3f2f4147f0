"""Likelihoods and toy experiments with known maxima, intervals and coverage."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mflow_sbi.interfaces import Array

DATA = Path(__file__).parents[2] / "data"
OBSERVED = [DATA / f"wbf_tuned_observed_theta_{at}.root" for at in ("0_0", "0.5_0", "-1_-1")]
POOL = DATA / "wbf_tuned_train_small.root"


class Closed:
    """A likelihood given by a function of theta (M, p) and its gradient."""

    n_events = 1

    def __init__(
        self,
        names: Sequence[str],
        value: Callable[[Array], Array],
        gradient: Callable[[Array], Array],
    ) -> None:
        self.parameter_names = tuple(names)
        self._value, self._gradient = value, gradient
        self.asked = 0

    def __call__(self, theta: Array) -> Array:
        self.asked += len(theta)
        return self._value(theta)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        values = self(theta)
        return values, np.where(np.isfinite(values)[:, None], self._gradient(theta), 0.0)


class ValuesOnly:
    """A likelihood that does not know its slope."""

    def __init__(self, likelihood: Closed) -> None:
        self.parameter_names, self.n_events = likelihood.parameter_names, likelihood.n_events
        self._likelihood = likelihood

    def __call__(self, theta: Array) -> Array:
        return self._likelihood(theta)


def normal(mean: Sequence[float] | Array, covariance: Array, names: str = "abcdef") -> Closed:
    """log L = -1/2 (theta - m)^T V^-1 (theta - m)."""
    m, precision = np.asarray(mean), np.linalg.inv(covariance)
    return Closed(
        names[: len(m)],
        lambda theta: -0.5 * np.einsum("mi,ij,mj->m", theta - m, precision, theta - m),
        lambda theta: -(theta - m) @ precision,
    )


def covariance(p: int, seed: int = 3) -> Array:
    a = np.random.default_rng(seed).normal(size=(p, p + 2))
    return 0.04 * a @ a.T


def two_wells(place: float = 1.0, height: float = 8.0, tilt: float = 0.0) -> Closed:
    """log L = -height (a^2 / place^2 - 1)^2 + tilt a: two maxima, near -place and place."""
    return Closed(
        "a",
        lambda t: -height * (t[:, 0] ** 2 / place**2 - 1) ** 2 + tilt * t[:, 0],
        lambda t: -4 * height * (t**2 / place**2 - 1) * t / place**2 + tilt,
    )


class NormalSets:
    """S sets of n events x ~ N(f(theta), 1)^p, of which only the mean x counts.

    log L_s = -n/2 |mean_s - f(theta)|^2; f is the identity or the square.
    """

    def __init__(self, means: Array, n: int, power: int = 1) -> None:
        self.means, self.n, self.power = means, n, power
        self.parameter_names = tuple("abcdef"[: means.shape[1]])
        self.n_sets = len(means)

    def __call__(self, theta: Array) -> Array:
        return self.at_own_points(np.broadcast_to(theta[:, None], (len(theta), *self.means.shape)))

    def at_own_points(self, theta: Array) -> Array:
        return -0.5 * self.n * np.square(self.means - theta**self.power).sum(axis=-1)

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        inner = self.power * theta ** (self.power - 1)
        return self.at_own_points(theta), self.n * (self.means - theta**self.power) * inner


def normal_toys(n: int, power: int = 1) -> Callable[..., NormalSets]:
    """A source of toys with means ~ N(theta^power, 1/n)."""

    def simulate(theta: Array, n_toys: int, rng: np.random.Generator) -> NormalSets:
        noise = rng.normal(size=(n_toys, len(theta))) / np.sqrt(n)
        return NormalSets(theta**power + noise, n, power)

    return simulate
