r"""The chart of the M-flow: an invertible map of which only the first d outputs are kept.

    (u, v) = f(head(x)),   encode(x) = u,   decode(u) = head^-1(f^-1(u, 0))

References:
    Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
    arXiv:2003.13913, section 2.C.
"""

import torch
from torch import Tensor

from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.linear_head import LinearHead
from mflow_sbi.charts.volume import gram_matrix
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import FlowOptions, build_transform, seeded
from mflow_sbi.interfaces import Events, Latents
from mflow_sbi.transforms import Composite

__all__ = ["InvertibleChart", "build_invertible_chart", "require_latent_dim"]


class InvertibleChart(Chart):
    """A surface {f^-1(u, 0)} inside the linear span of the data."""

    learns_by_reconstruction = True

    def __init__(self, head: LinearHead, transform: Composite, latent_dim: int) -> None:
        super().__init__()
        self.ambient_dim = head.ambient_dim
        self.latent_dim = latent_dim
        self.head = head
        self.transform = transform

    def coordinates(self, x: Events) -> tuple[Latents, Tensor]:
        """Return latents u (N, d) and off-manifold coordinates v (N, r - d)."""
        reference = next(self.transform.parameters())
        image, _ = self.transform(self.head(x).to(reference.dtype))
        u, v = image.tensor_split([self.latent_dim], dim=-1)
        return u, v

    def encode(self, x: Events) -> Latents:
        """Return the first d outputs of f, (N, n) -> (N, d)."""
        return self.coordinates(x)[0]

    def decode(self, u: Latents) -> Events:
        """Return head^-1(f^-1(u, 0)), (N, d) -> (N, n)."""
        z, _ = self.transform.inverse(self._on_surface(u))
        return self.head.inverse(z)

    def _on_surface(self, u: Latents) -> Tensor:
        """Return (u, 0), (N, d) -> (N, r)."""
        v = u.new_zeros((*u.shape[:-1], self.head.rank - self.latent_dim))
        return torch.cat([u, v], dim=-1)

    def _tangents(self, u: Latents) -> tuple[Tensor, Tensor]:
        """Return z = f^-1(u, 0) (N, r) and dz/du (N, r, d), tangents propagated by hand."""
        start = torch.eye(self.head.rank, self.latent_dim, dtype=u.dtype, device=u.device)
        return self.transform.inverse_with_tangents(self._on_surface(u), start[None])

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = B S df^-1/du, (N, d) -> ((N, n), (N, n, d))."""
        z, along = self._tangents(u)
        return self.head.inverse(z), self.head.basis @ (self.head.spread[:, None] * along)

    def gram(self, u: Latents) -> Tensor:
        """Return J^T J (N, d, d) float64; the orthonormal columns of B drop out."""
        _, along = self._tangents(u)
        return gram_matrix(self.head.spread[:, None] * along)


def build_invertible_chart(
    head: LinearHead, latent_dim: int, options: FlowOptions, seed: int
) -> InvertibleChart:
    """Return an invertible chart that starts at the d leading principal directions.

    Raises:
        ConfigurationError: latent_dim exceeds the linear rank of the data.
    """
    require_latent_dim(head, latent_dim)
    with seeded(seed):
        transform = build_transform(head.rank, 0, options, keep_order=latent_dim)
    return InvertibleChart(head, transform, latent_dim)


def require_latent_dim(head: LinearHead, latent_dim: int) -> None:
    """Raise ConfigurationError where latent_dim exceeds the linear rank of the data."""
    if not 0 < latent_dim <= head.rank:
        message = (
            f"latent_dim: expected 1 to {head.rank} (the linear rank of the data), "
            f"got {latent_dim}"
        )
        raise ConfigurationError(message)
