r"""The exactly linear constraints of a sample, found by data and built in.

    z = S^-1 B^T (x - m),   x = m + B S z

B (n, r) are the principal directions whose spread does not vanish, S their spreads.  Directions
of vanishing spread are linear constraints: every x = m + B S z obeys them to machine precision.
"""

import torch
from torch import Tensor

from mflow_sbi.errors import ChartError
from mflow_sbi.float64_buffers import Float64Buffers

__all__ = ["LinearHead"]

NULL_SPREAD = 1e-6
"""Directions with less than this share of the largest spread count as constraints: above the
rounding of float32 files (6e-8), far below any physical resolution."""


class LinearHead(Float64Buffers):
    """Whitening that drops the null space, R^n <-> R^r, in float64 whatever the network's dtype.

    Args:
        ambient_dim: n.
        rank: r, the number of directions kept.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor

    def __init__(self, ambient_dim: int, rank: int) -> None:
        super().__init__()
        self.ambient_dim = ambient_dim
        self.rank = rank
        self.register_buffer("mean", torch.zeros(ambient_dim, dtype=torch.float64))
        self.register_buffer("basis", torch.eye(ambient_dim, rank, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(rank, dtype=torch.float64))

    @classmethod
    def fit(cls, x: Tensor) -> "LinearHead":
        """Return the head of standardised events x, (N, n).

        Raises:
            ChartError: fewer events than observables, or no spread at all.
        """
        x = x.double()
        n_events, ambient_dim = x.shape
        if n_events <= ambient_dim:
            message = (
                f"finding linear constraints among {ambient_dim} observables needs more than "
                f"{ambient_dim} events, got {n_events}"
            )
            raise ChartError(message)
        mean = x.mean(dim=0)
        triangle = torch.linalg.qr(x - mean, mode="r").R
        _, singular, directions = torch.linalg.svd(triangle)
        kept = singular > NULL_SPREAD * singular[0]
        if not bool(kept.any()) or not bool(torch.isfinite(singular).all()):
            message = "the events have no spread: expected at least one varying observable"
            raise ChartError(message)
        head = cls(ambient_dim, int(kept.sum()))
        head.mean.copy_(mean)
        head.basis.copy_(directions[kept].T)
        head.spread.copy_(singular[kept] / n_events**0.5)
        return head

    @property
    def n_constraints(self) -> int:
        """Number of exactly linear constraints found, n - r."""
        return self.ambient_dim - self.rank

    def forward(self, x: Tensor) -> Tensor:
        """Return z = S^-1 B^T (x - m), (N, n) -> (N, r) float64."""
        return ((x.double() - self.mean) @ self.basis) / self.spread

    def inverse(self, z: Tensor) -> Tensor:
        """Return x = m + B S z, (N, r) -> (N, n) float64."""
        return (z.double() * self.spread) @ self.basis.T + self.mean

    def log_det(self) -> Tensor:
        """Return log sqrt(det of dz/dx on the kept directions) = -sum log S, a scalar."""
        return -torch.log(self.spread).sum()
