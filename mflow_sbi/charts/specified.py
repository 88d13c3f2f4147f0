r"""Charts given in closed form: circle, spheres, tori, a polynomial surface.

Each is written in the units of its own formula and used in any other:

    x = (X(u) - mean) / std,   J = diag(1 / std) dX/du

with X the surface point, so that observables standardised on data need no other chart.  Nothing
is trained: a chart is its integers (constructor) and its buffers (state_dict), all float64.

References:
    Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
    arXiv:2003.13913, section 2.B (flows on prescribed manifolds).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.volume import decoder_jacobian
from mflow_sbi.errors import ChartError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events, Latents

__all__ = ["Circle", "PolynomialSurface", "RingTorus", "SpecifiedChart", "Sphere", "Torus"]

DECAY = 0.1
"""The polynomial surface flattens as exp(-DECAY |z|^2), as in the published study."""


class SpecifiedChart(Float64Buffers, Chart):
    """A surface known in closed form; float64 whatever the networks around it.

    Subclasses give `point`, `latents` and, where it is known, `tangents`.

    Attributes:
        mean: Where the standardised observables vanish, (n,), in the surface's own units.
        std: The surface's own units per standardised unit, (n,).
        periodic: Which latents are angles, in (-pi, pi] when encoded, (d,).
    """

    mean: Tensor
    std: Tensor
    periodic: tuple[bool, ...]

    def __init__(self, latent_dim: int, ambient_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            message = f"latent_dim: expected at least 1, got {latent_dim}"
            raise ChartError(message)
        self.latent_dim = latent_dim
        self.ambient_dim = ambient_dim
        self.periodic = (False,) * latent_dim
        self.register_buffer("mean", torch.zeros(ambient_dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(ambient_dim, dtype=torch.float64))

    @abstractmethod
    def point(self, u: Latents) -> Tensor:
        """Return the surface point X(u) in its own units, (N, d) -> (N, n)."""

    @abstractmethod
    def latents(self, point: Tensor) -> Latents:
        """Return the latents of the surface point that stands for X, (N, n) -> (N, d)."""

    def tangents(self, u: Latents) -> Tensor:
        """Return dX/du, (N, d) -> (N, n, d); by forward-mode autodiff unless overridden."""
        return decoder_jacobian(self.point, u)

    def standardised(self, mean: ArrayLike, std: ArrayLike) -> Self:
        """Set the units, x = (X - mean) / std, and return the chart.

        Raises:
            ChartError: not n finite means and n positive finite standard deviations.
        """
        numbers = torch.stack([torch.as_tensor(m, dtype=torch.float64) for m in (mean, std)])
        good = numbers.shape == (2, self.ambient_dim) and bool(numbers.isfinite().all())
        if not good or not bool((numbers[1] > 0).all()):
            message = (
                f"expected {self.ambient_dim} finite means and as many positive standard "
                f"deviations, got shape {tuple(numbers.shape[1:])}"
            )
            raise ChartError(message)
        self.mean.copy_(numbers[0])
        self.std.copy_(numbers[1])
        return self

    def encode(self, x: Events) -> Latents:
        """Return the latents of the surface point that stands for x, (N, n) -> (N, d) float64."""
        return self.latents(x.double() * self.std + self.mean)

    def decode(self, u: Latents) -> Events:
        """Return the surface point with latents u, (N, d) -> (N, n) float64."""
        return (self.point(u.double()) - self.mean) / self.std

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = d decode / d u, (N, d) -> ((N, n), (N, n, d)) float64."""
        return self.decode(u), self.tangents(u.double()) / self.std[:, None]

    def _register_positive(self, name: str, values: Sequence[float]) -> None:
        """Keep the named lengths as a float64 buffer, or refuse them."""
        if not all(0 < value < math.inf for value in values):
            message = f"{name}: expected positive finite numbers, got {list(values)}"
            raise ChartError(message)
        self.register_buffer(name, torch.tensor(values, dtype=torch.float64))


class Sphere(SpecifiedChart):
    r"""X = r (2u, |u|^2 - 1) / (|u|^2 + 1): the d-sphere in R^{d+1} without its upper pole.

    Stereographic projection: smooth and one to one from all of R^d, so a density on R^d is a
    normalised density on the sphere.  d = 1 is the circle.  dX/du = (2 r / (|u|^2 + 1)) x
    (orthonormal columns).

    Points off the sphere are projected along the radius.
    """

    radius: Tensor

    def __init__(self, latent_dim: int, radius: float = 1.0) -> None:
        super().__init__(latent_dim, latent_dim + 1)
        self._register_positive("radius", [radius])

    def point(self, u: Latents) -> Tensor:
        """Return r (2u, |u|^2 - 1) / (|u|^2 + 1), (N, d) -> (N, d + 1)."""
        square = u.square().sum(dim=-1, keepdim=True)
        return self.radius * torch.cat([2.0 * u, square - 1.0], dim=-1) / (square + 1.0)

    def latents(self, point: Tensor) -> Latents:
        """Return X_{1..d} / (|X| - X_{d+1}), (N, d + 1) -> (N, d)."""
        length = torch.linalg.vector_norm(point, dim=-1, keepdim=True)
        return point[..., :-1] / (length - point[..., -1:])

    def tangents(self, u: Latents) -> Tensor:
        """Return 2 r (delta_ij - 2 u_i u_j / s) / s and 4 r u_j / s^2, s = |u|^2 + 1."""
        s = (u.square().sum(dim=-1) + 1.0)[..., None, None]
        outer = u[..., :, None] * u[..., None, :]
        unit = torch.eye(self.latent_dim, dtype=u.dtype, device=u.device)
        sides = 2.0 * unit / s - 4.0 * outer / s.square()
        return self.radius * torch.cat([sides, 4.0 * u[..., None, :] / s.square()], dim=-2)


class Torus(SpecifiedChart):
    r"""X = (r_1 cos u_1, r_1 sin u_1, ..., r_d cos u_d, r_d sin u_d): d circles, flat, in R^{2d}.

    Volume prod r_i.  The latents are angles: decode has period 2 pi, encode answers in (-pi, pi].
    """

    radii: Tensor

    def __init__(self, latent_dim: int, radii: Sequence[float] | None = None) -> None:
        super().__init__(latent_dim, 2 * latent_dim)
        self.periodic = (True,) * latent_dim
        radii = [1.0] * latent_dim if radii is None else list(radii)
        if len(radii) != latent_dim:
            message = f"radii: expected {latent_dim}, one for each angle, got {len(radii)}"
            raise ChartError(message)
        self._register_positive("radii", radii)

    def point(self, u: Latents) -> Tensor:
        """Return the pairs r (cos u, sin u), (N, d) -> (N, 2d)."""
        pairs = torch.stack([torch.cos(u), torch.sin(u)], dim=-1)
        return (self.radii[:, None] * pairs).flatten(start_dim=-2)

    def latents(self, point: Tensor) -> Latents:
        """Return the angles of the pairs, (N, 2d) -> (N, d)."""
        pairs = point.unflatten(-1, (-1, 2))
        return torch.atan2(pairs[..., 1], pairs[..., 0])

    def tangents(self, u: Latents) -> Tensor:
        """Return r (-sin u, cos u) of each pair along its own angle, (N, 2d, d)."""
        pairs = self.radii[:, None] * torch.stack([-torch.sin(u), torch.cos(u)], dim=-1)
        unit = torch.eye(self.latent_dim, dtype=u.dtype, device=u.device)
        return (pairs[..., None] * unit[:, None, :]).flatten(start_dim=-3, end_dim=-2)


class Circle(Torus):
    """X = r (cos u, sin u): the circle by its angle.  `Sphere(1)` is its chart on all of R."""

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__(1, [radius])


class RingTorus(SpecifiedChart):
    r"""X = (w cos u_1, w sin u_1, r sin u_2), w = R + r cos u_2: the ring in R^3, 0 < r < R.

    Volume r w.  The latents are angles: decode has period 2 pi, encode answers in (-pi, pi].
    """

    radii: Tensor

    def __init__(self, major: float = 2.0, minor: float = 1.0) -> None:
        super().__init__(2, 3)
        self.periodic = (True, True)
        self._register_positive("radii", [major, minor])
        if not minor < major:
            message = f"expected minor radius < major radius, got {minor} and {major}"
            raise ChartError(message)

    def point(self, u: Latents) -> Tensor:
        """Return the point of the ring, (N, 2) -> (N, 3)."""
        along, around = u.unbind(dim=-1)
        major, minor = self.radii
        w = major + minor * torch.cos(around)
        columns = [w * torch.cos(along), w * torch.sin(along), minor * torch.sin(around)]
        return torch.stack(columns, dim=-1)

    def latents(self, point: Tensor) -> Latents:
        """Return the angle along the ring and the angle around its tube, (N, 3) -> (N, 2)."""
        x, y, z = point.unbind(dim=-1)
        return torch.stack(
            [torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y) - self.radii[0])], dim=-1
        )

    def tangents(self, u: Latents) -> Tensor:
        """Return the two orthogonal tangents, of lengths w and r, (N, 3, 2)."""
        along, around = u.unbind(dim=-1)
        major, minor = self.radii
        w = major + minor * torch.cos(around)
        zero = torch.zeros_like(along)
        first = [-w * torch.sin(along), w * torch.cos(along), zero]
        slope = -minor * torch.sin(around)
        second = [slope * torch.cos(along), slope * torch.sin(along), minor * torch.cos(around)]
        return torch.stack([torch.stack(first, dim=-1), torch.stack(second, dim=-1)], dim=-1)


class PolynomialSurface(SpecifiedChart):
    r"""X = R (z, f(z)),   f(z) = exp(-|z|^2 / 10) sum_k c_k z^{m_k},   u = z in R^d.

    The monomials z^{m_k} of total degree 0, 1, ..., `degree` stand in graded order,
    1, z_1, z_2, z_1^2, z_1 z_2, ...; R is a rotation.  Volume sqrt(1 + |grad f|^2).  Points off
    the surface are projected along R's last column.

    Args:
        latent_dim: d.
        degree: highest total degree; 5 and d = 2 give the 21 coefficients of the published study.
    """

    coefficients: Tensor
    rotation: Tensor
    _powers: Tensor

    def __init__(self, latent_dim: int = 2, degree: int = 5) -> None:
        super().__init__(latent_dim, latent_dim + 1)
        self.degree = degree
        powers = [
            [factors.count(i) for i in range(latent_dim)]
            for total in range(degree + 1)
            for factors in combinations_with_replacement(range(latent_dim), total)
        ]
        self.register_buffer("_powers", torch.tensor(powers), persistent=False)
        flat = torch.zeros(len(powers), dtype=torch.float64)
        self.register_buffer("coefficients", flat)
        self.register_buffer("rotation", torch.eye(latent_dim + 1, dtype=torch.float64))

    @classmethod
    def from_numbers(cls, coefficients: ArrayLike, rotation: ArrayLike) -> Self:
        """Return the surface with these coefficients (K,) and rotation (d + 1, d + 1).

        The simulator of the polynomial surface writes both into the settings of its files.

        Raises:
            ChartError: not a rotation, or no degree has as many monomials.
        """
        c = torch.as_tensor(coefficients, dtype=torch.float64)
        r = torch.as_tensor(rotation, dtype=torch.float64)
        if r.dim() != 2 or r.shape[0] != r.shape[1] or len(r) < 2:
            message = f"rotation: expected (d + 1, d + 1) with d >= 1, got {tuple(r.shape)}"
            raise ChartError(message)
        unit = torch.eye(len(r), dtype=torch.float64)
        if not torch.allclose(r.T @ r, unit, atol=1e-12, rtol=0):
            message = "rotation: expected orthonormal columns to 1e-12"
            raise ChartError(message)
        d, degree = len(r) - 1, 0
        while math.comb(degree + d, d) < c.numel():
            degree += 1
        if c.shape != (math.comb(degree + d, d),) or not bool(c.isfinite().all()):
            message = (
                f"coefficients: expected as many finite numbers as a polynomial in {d} variables "
                f"has monomials, (1, {d + 1}, {math.comb(d + 2, d)}, ...), got shape "
                f"{tuple(c.shape)}"
            )
            raise ChartError(message)
        chart = cls(d, degree)
        chart.coefficients.copy_(c)
        chart.rotation.copy_(r)
        return chart

    def _monomials(self, z: Tensor, powers: Tensor) -> Tensor:
        """Return prod_i z_i^{m_ki}, (N, d) -> (N, K); negative powers count as zero."""
        steps = torch.arange(1, self.degree + 1, device=z.device)
        repeated = torch.cumprod(z[..., None].expand(*z.shape, self.degree), dim=-1)
        one = torch.ones_like(z[..., None])
        table = torch.cat([one, repeated], dim=-1) if len(steps) else one  # (N, d, degree + 1)
        columns = [table[..., i, powers[:, i].clamp_min(0)] for i in range(self.latent_dim)]
        return torch.stack(columns, dim=-1).prod(dim=-1)

    def _graph(self, z: Tensor) -> Tensor:
        """Return f(z), (N, d) -> (N,)."""
        decay = torch.exp(-DECAY * z.square().sum(dim=-1))
        return decay * (self._monomials(z, self._powers) @ self.coefficients)

    def _slope(self, z: Tensor) -> Tensor:
        """Return grad f = exp(-|z|^2 / 10) grad P - (z / 5) f, (N, d) -> (N, d)."""
        decay = torch.exp(-DECAY * z.square().sum(dim=-1))
        columns = []
        for i in range(self.latent_dim):
            lowered = self._powers.clone()
            lowered[:, i] -= 1
            weights = self.coefficients * self._powers[:, i]
            columns.append(decay * (self._monomials(z, lowered) @ weights))
        return torch.stack(columns, dim=-1) - 2.0 * DECAY * z * self._graph(z)[..., None]

    def point(self, u: Latents) -> Tensor:
        """Return R (z, f(z)), (N, d) -> (N, d + 1)."""
        return torch.cat([u, self._graph(u)[..., None]], dim=-1) @ self.rotation.T

    def latents(self, point: Tensor) -> Latents:
        """Return the first d components of R^T X, (N, d + 1) -> (N, d)."""
        return (point @ self.rotation)[..., :-1]

    def tangents(self, u: Latents) -> Tensor:
        """Return R (1; grad f), (N, d) -> (N, d + 1, d)."""
        unit = torch.eye(self.latent_dim, dtype=u.dtype, device=u.device)
        graph = torch.cat(
            [unit.expand(*u.shape[:-1], -1, -1), self._slope(u)[..., None, :]], dim=-2
        )
        return self.rotation @ graph
