r"""Surfaces in R^n with a density p(x|theta) on them, exact with respect to the surface's volume.

    p(x|theta) = p(u|theta) / sqrt(det J^T J),   x = X(u),   J = dX/du

Rows pair: points (N, n), theta (N,); theta is one number per event.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from simulators.errors import InvalidRequest

__all__ = ["PolynomialSurface", "RingTorus", "Sphere", "Surface", "Torus"]

Array = NDArray[np.float64]

FROZEN = Path(__file__).parent / "polynomial_surface.json"
MOST_DIMENSIONS = 1000


class Surface(Protocol):
    """A surface and the density on it.

    Attributes:
        name: Its name on the command line.
        latent_dim: d, its dimension.
        ambient_dim: n, the number of observables.
        settings: What determines the density; JSON-able.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def latent_dim(self) -> int: ...  # noqa: D102
    @property
    def ambient_dim(self) -> int: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102

    def draw(self, theta: Array, rng: np.random.Generator) -> Array:
        """Return one point per theta, (N,) -> (N, n)."""
        ...

    def log_density(self, x: Array, theta: Array) -> Array:
        """Return log p(x|theta) with respect to the surface's volume, (N, n), (N,) -> (N,)."""
        ...

    def score(self, x: Array, theta: Array) -> Array:
        """Return d log p(x|theta) / d theta, (N, n), (N,) -> (N,)."""
        ...


class Sphere:
    r"""von Mises-Fisher on the unit d-sphere in R^{d+1}: p = C exp(kappa mu(theta) . x).

    mu = (cos theta, sin theta, 0, ...); d = 1 is the von Mises density on the circle.

    References:
        Simulation of the von Mises Fisher distribution (Wood, 1994),
        doi:10.1080/03610919408813161.
    """

    def __init__(self, latent_dim: int = 2, concentration: float = 1.0) -> None:
        _require_dimension(latent_dim)
        _require_concentration(concentration)
        self.latent_dim = latent_dim
        self.ambient_dim = latent_dim + 1
        self.concentration = concentration
        self.name = "circle" if latent_dim == 1 else "sphere"
        self.settings = {"latent_dim": latent_dim, "concentration": concentration}

    def _centre(self, theta: Array) -> Array:
        """Return mu(theta), (N,) -> (N, d + 1)."""
        mu = np.zeros((len(theta), self.ambient_dim))
        mu[:, 0], mu[:, 1] = np.cos(theta), np.sin(theta)
        return mu

    def draw(self, theta: Array, rng: np.random.Generator) -> Array:
        """Return w mu + sqrt(1 - w^2) t, t uniform among the directions orthogonal to mu."""
        mu = self._centre(theta)
        w = self._cosines(len(theta), rng)[:, None]
        t = rng.standard_normal(mu.shape)
        t -= (t * mu).sum(axis=1, keepdims=True) * mu
        t /= np.linalg.norm(t, axis=1, keepdims=True)
        x = w * mu + np.sqrt(1 - w * w) * t
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def _cosines(self, n: int, rng: np.random.Generator) -> Array:
        """Return n draws of w = mu . x by rejection from an envelope (Wood, 1994)."""
        d, kappa = self.latent_dim, self.concentration
        b = d / (2 * kappa + math.hypot(2 * kappa, d))
        x0 = (1 - b) / (1 + b)
        c = kappa * x0 + d * math.log1p(-x0 * x0)
        kept: list[Array] = []
        n_kept = 0
        while n_kept < n:
            z = rng.beta(0.5 * d, 0.5 * d, n)
            w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
            accepted = kappa * w + d * np.log1p(-x0 * w) - c >= np.log1p(-rng.random(n))
            kept.append(w[accepted])
            n_kept += len(kept[-1])
        return np.clip(np.concatenate(kept)[:n], -1, 1)

    def log_density(self, x: Array, theta: Array) -> Array:
        r"""Return log C + kappa mu . x, C = kappa^{s} / ((2 pi)^{s+1} I_s(kappa)), s = (d-1)/2."""
        s, kappa = 0.5 * (self.latent_dim - 1), self.concentration
        log_bessel = math.log(ive(s, kappa)) + kappa
        log_c = s * math.log(kappa) - (s + 1) * math.log(2 * math.pi) - log_bessel
        return log_c + kappa * (x * self._centre(theta)).sum(axis=1)

    def score(self, x: Array, theta: Array) -> Array:
        """Return kappa (x_1 cos theta - x_0 sin theta)."""
        return self.concentration * (x[:, 1] * np.cos(theta) - x[:, 0] * np.sin(theta))


class Torus:
    r"""d angles in R^{2d}, x = (cos a_1, sin a_1, ...), in a chain of von Mises densities.

    p(a|theta) = prod_i exp(kappa cos(a_i - a_{i-1})) / (2 pi I_0(kappa)), a_0 = theta; volume 1.
    """

    name = "torus"

    def __init__(self, latent_dim: int = 2, concentration: float = 1.0) -> None:
        _require_dimension(latent_dim)
        _require_concentration(concentration)
        self.latent_dim = latent_dim
        self.ambient_dim = 2 * latent_dim
        self.concentration = concentration
        self.settings: dict[str, Any] = {
            "latent_dim": latent_dim,
            "concentration": concentration,
        }

    def draw(self, theta: Array, rng: np.random.Generator) -> Array:
        """Return points with a_i ~ von Mises(a_{i-1}, kappa)."""
        return self._embed(self._draw_angles(theta, rng))

    def _draw_angles(self, theta: Array, rng: np.random.Generator) -> Array:
        angles = np.empty((len(theta), self.latent_dim))
        centre = theta
        for i in range(self.latent_dim):
            angles[:, i] = centre = rng.vonmises(centre, self.concentration)
        return angles

    def _embed(self, angles: Array) -> Array:
        pairs = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        return pairs.reshape(len(angles), -1)

    def _angles(self, x: Array) -> Array:
        pairs = x.reshape(len(x), -1, 2)
        return np.arctan2(pairs[..., 1], pairs[..., 0])

    def _log_volume(self, angles: Array) -> Array:
        return np.zeros(len(angles))

    def log_density(self, x: Array, theta: Array) -> Array:
        """Return log p of the angles less the log volume."""
        angles, kappa = self._angles(x), self.concentration
        steps = np.diff(angles, axis=1, prepend=theta[:, None])
        log_norm = math.log(2 * math.pi * ive(0, kappa)) + kappa
        return (
            kappa * np.cos(steps).sum(axis=1)
            - self.latent_dim * log_norm
            - self._log_volume(angles)
        )

    def score(self, x: Array, theta: Array) -> Array:
        """Return kappa sin(a_1 - theta)."""
        return self.concentration * np.sin(self._angles(x)[:, 0] - theta)


class RingTorus(Torus):
    r"""The torus as a ring in R^3: x = (w cos a_1, w sin a_1, r sin a_2), w = R + r cos a_2.

    The angles are those of `Torus(2)`; volume r w.
    """

    name = "ring-torus"
    major, minor = 2.0, 1.0

    def __init__(self, concentration: float = 1.0) -> None:
        super().__init__(2, concentration)
        self.ambient_dim = 3
        self.settings |= {"major": self.major, "minor": self.minor}

    def _embed(self, angles: Array) -> Array:
        along, around = angles.T
        w = self.major + self.minor * np.cos(around)
        columns = [w * np.cos(along), w * np.sin(along), self.minor * np.sin(around)]
        return np.stack(columns, axis=1)

    def _angles(self, x: Array) -> Array:
        w = np.hypot(x[:, 0], x[:, 1])
        return np.stack(
            [np.arctan2(x[:, 1], x[:, 0]), np.arctan2(x[:, 2], w - self.major)], axis=1
        )

    def _log_volume(self, angles: Array) -> Array:
        return np.log(self.minor * (self.major + self.minor * np.cos(angles[:, 1])))


class PolynomialSurface:
    r"""x = R (z, f(z)), f(z) = exp(-|z|^2 / 10) sum_k c_k z^{m_k}, z in R^2, total degree 5.

        p(z|theta) = 0.6 N(z; (1, -1), 2^2) + 0.4 N(z; (-1, 1), sigma^2),   sigma = 0.6 + 0.4 theta

    The 21 coefficients (graded order 1, z_1, z_2, z_1^2, z_1 z_2, ...) and the rotation R were
    drawn once, c_k ~ N(0, 1) / 2^{|m_k|}, and are frozen in `polynomial_surface.json`; they travel
    in the settings of every file.

    References:
        Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer,
        2020), arXiv:2003.13913, section 4.B, with constants of our own.
    """

    name = "polynomial"
    latent_dim, ambient_dim, degree = 2, 3, 5
    fractions = (0.6, 0.4)
    centres = np.array([[1.0, -1.0], [-1.0, 1.0]])

    def __init__(self) -> None:
        frozen = json.loads(FROZEN.read_text())
        self.coefficients = np.array(frozen["coefficients"])
        self.rotation = np.array(frozen["rotation"])
        self.settings = {"degree": self.degree, "decay": 0.1, **frozen}

    @cached_property
    def powers(self) -> NDArray[np.intp]:
        """Exponents m_k in graded order, (21, 2)."""
        rows = [
            (factors.count(0), factors.count(1))
            for total in range(self.degree + 1)
            for factors in combinations_with_replacement((0, 1), total)
        ]
        return np.array(rows)

    def _graph(self, z: Array) -> Array:
        decay = np.exp(-0.1 * (z * z).sum(axis=1))
        return decay * (_monomials(z, self.powers) @ self.coefficients)

    def _slope(self, z: Array) -> Array:
        """Return grad f = exp(-|z|^2 / 10) grad P - (z / 5) f, (N, 2)."""
        decay = np.exp(-0.1 * (z * z).sum(axis=1))
        columns = []
        for i in range(2):
            lowered = np.maximum(self.powers - np.eye(2, dtype=int)[i], 0)
            weights = self.coefficients * self.powers[:, i]
            columns.append(decay * (_monomials(z, lowered) @ weights))
        return np.stack(columns, axis=1) - 0.2 * z * self._graph(z)[:, None]

    def _widths(self, theta: Array) -> Array:
        """Return the standard deviations of both components, (N, 2)."""
        sigma = 0.6 + 0.4 * theta
        if not (sigma > 0).all():
            msg = f"polynomial: expected theta > -1.5 (a positive width), got {theta.min():g}"
            raise InvalidRequest(msg)
        return np.stack([np.full_like(sigma, 2.0), sigma], axis=1)

    def draw(self, theta: Array, rng: np.random.Generator) -> Array:
        """Return points with z from the mixture."""
        widths = self._widths(theta)
        which = (rng.random(len(theta)) >= self.fractions[0]).astype(int)
        width = np.take_along_axis(widths, which[:, None], axis=1)
        return self.embed(self.centres[which] + width * rng.standard_normal((len(theta), 2)))

    def embed(self, z: Array) -> Array:
        """Return R (z, f(z)), (N, 2) -> (N, 3)."""
        return np.column_stack([z, self._graph(z)]) @ self.rotation.T

    def _log_components(self, x: Array, theta: Array) -> tuple[Array, Array, Array]:
        """Return z, |z - centre|^2 and log of fraction times density of both components."""
        z = (x @ self.rotation)[:, :2]
        square = ((z[:, None, :] - self.centres) ** 2).sum(axis=-1)
        widths = self._widths(theta)
        log_p = -0.5 * square / widths**2 - 2 * np.log(widths) - math.log(2 * math.pi)
        return z, square, log_p + np.log(self.fractions)

    def log_density(self, x: Array, theta: Array) -> Array:
        """Return log p(z|theta) - 1/2 log(1 + |grad f|^2)."""
        z, _, parts = self._log_components(x, theta)
        return np.logaddexp(parts[:, 0], parts[:, 1]) - 0.5 * np.log1p(
            (self._slope(z) ** 2).sum(axis=1)
        )

    def score(self, x: Array, theta: Array) -> Array:
        """Return the share of the second component times 0.4 (|z - c|^2 / sigma^3 - 2 / sigma)."""
        _, square, parts = self._log_components(x, theta)
        sigma = self._widths(theta)[:, 1]
        share = np.exp(parts[:, 1] - np.logaddexp(parts[:, 0], parts[:, 1]))
        return share * 0.4 * (square[:, 1] / sigma**3 - 2 / sigma)


def _monomials(z: Array, powers: NDArray[np.intp]) -> Array:
    """Return z_1^{m_k1} z_2^{m_k2}, (N, 2) -> (N, K)."""
    first, second = (np.vander(column, powers.max() + 1, increasing=True) for column in z.T)
    return first[:, powers[:, 0]] * second[:, powers[:, 1]]


def _require_dimension(latent_dim: int) -> None:
    if not 1 <= latent_dim <= MOST_DIMENSIONS:
        msg = f"--dim: expected 1 to {MOST_DIMENSIONS}, got {latent_dim}"
        raise InvalidRequest(msg)


def _require_concentration(concentration: float) -> None:
    if not 1e-3 <= concentration <= 1e4:
        msg = f"--concentration: expected 0.001 to 10000, got {concentration:g}"
        raise InvalidRequest(msg)
