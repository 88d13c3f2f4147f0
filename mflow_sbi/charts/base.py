"""What every chart promises: two maps and two integers; the rest follows."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mflow_sbi.charts.volume import decoder_jacobian, exact_log_volume, gram_matrix
from mflow_sbi.interfaces import Events, Latents

__all__ = ["Chart"]


class Chart(nn.Module, ABC):
    """A parametrised d-dimensional surface in R^n, independent of theta.

    Events are float64; latents have the dtype of the chart's parameters.
    """

    ambient_dim: int
    latent_dim: int
    learns_by_reconstruction: bool = False
    """Whether a training phase may move it; other charts are fitted or given."""

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

    def project_with_flags(self, x: Events) -> tuple[Events, Tensor]:
        """Return project(x) and whether there is such a point, (N, n) and (N,) bool."""
        u, found = self.encode_with_flags(x)
        points = x.double().clone()
        points[found], arrived = self.decode_with_flags(u[found])
        return points, found.index_put((torch.nonzero(found)[:, 0],), arrived)

    def encode_with_flags(self, x: Events) -> tuple[Latents, Tensor]:
        """Return encode(x) and whether the surface has a point for x, (N, d) and (N,) bool."""
        return self.encode(x), torch.ones(len(x), dtype=torch.bool, device=x.device)

    def decode_with_flags(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and whether the surface has a point there, (N, n) and (N,) bool."""
        return self.decode(u), torch.ones(len(u), dtype=torch.bool, device=u.device)

    def decode_drawn(self, u: Latents) -> tuple[Events, Tensor]:
        """Return points and flags as `decode_with_flags`, for latents that are drawn at will."""
        return self.decode_with_flags(u)

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = d decode / d u, (N, d) -> ((N, n), (N, n, d))."""
        return self.decode(u), decoder_jacobian(self.decode, u)

    def gram(self, u: Latents) -> Tensor:
        """Return J^T J in float64: the metric that the surface inherits, (N, d) -> (N, d, d)."""
        return gram_matrix(self.decode_with_jacobian(u)[1])

    def log_volume(self, u: Latents) -> Tensor:
        """Return log sqrt(det J^T J), exact, (N, d) -> (N,)."""
        return exact_log_volume(self.gram, u)

    def encode_with_volume(self, x: Events) -> tuple[Latents, Tensor]:
        """Return encode(x) and the log volume there, (N, n) -> (N, d) and (N,)."""
        u = self.encode(x)
        return u, self.log_volume(u)
