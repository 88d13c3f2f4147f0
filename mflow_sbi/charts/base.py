"""What every chart promises: two maps and two integers; the rest follows."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mflow_sbi.charts.volume import exact_log_volume
from mflow_sbi.interfaces import Events, Latents

__all__ = ["Chart"]


class Chart(nn.Module, ABC):
    """A parametrised d-dimensional surface in R^n, independent of theta.

    Events are float64; latents have the dtype of the chart's parameters.
    """

    ambient_dim: int
    latent_dim: int

    @abstractmethod
    def encode(self, x: Events) -> Latents:
        """Return the latents of the surface point that stands for x, (N, n) -> (N, d)."""

    @abstractmethod
    def decode(self, u: Latents) -> Events:
        """Return the surface point with latents u, (N, d) -> (N, n)."""

    def coordinates(self, x: Events) -> tuple[Latents, Tensor]:
        """Return latents (N, d) and off-manifold coordinates (N, k), none by default."""
        u = self.encode(x)
        return u, u[..., :0]

    def project(self, x: Events) -> Events:
        """Return decode(encode(x)), (N, n) -> (N, n)."""
        return self.decode(self.encode(x))

    def log_volume(self, u: Latents) -> Tensor:
        """Return log sqrt(det J^T J), J = d decode / d u, exact, (N, d) -> (N,)."""
        return exact_log_volume(self.decode, u)
