r"""Templates: the probability of every bin as an exact polynomial in theta.

    C_b = E_q[1_b c / q],   p(b|theta) = w(theta) . C_b / w(theta) . sum_b C_b

with morphing components c of training events over q = V . c, the density of all of them (see
`event_mixture`).  The denominator is the sum over bins and not the theory's cross section, so
that sum_b p(b|theta) = 1 exactly, selected events or not.  The ratio to q,

    r(b, theta) = p(b|theta) / P_b,   P_b = V . C_b = the share of training events in b,

is what inference asks.  It is >= 0 for components of squared amplitudes; the floor keeps its
logarithm finite where a bin has no events at some theta.

References:
    | Constraining effective field theories with machine learning (Brehmer et al., 2018),
      arXiv:1805.00013
"""

from typing import Self

import torch
from torch import Tensor

from mflow_sbi.errors import EventDataError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array, LogProbs, Parameters

__all__ = ["Templates"]

FLOOR = 1e-6
"""Smallest r: an event in a bin that theta does not fill costs log(1e-6), not infinity."""


class Templates(Float64Buffers):
    """Mean components of every bin, C_b / P_b, and the shares P_b of the training events.

    Rebuild with the sizes and `load_state_dict`.

    Args:
        n_bins: number of bins.
        n_components: K.
        parameter_dim: p.
    """

    table: Tensor
    share: Tensor
    exponents: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, n_bins: int, n_components: int, parameter_dim: int) -> None:
        super().__init__()
        shapes = {
            "table": (n_bins, n_components),
            "share": (n_bins,),
            "exponents": (n_components, parameter_dim),
            "mean": (parameter_dim,),
            "std": (parameter_dim,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))

    def fill_theory(self, exponents: Array, mean: Array, std: Array) -> Self:
        """Take powers of the monomials (K, p), and units of theta (p,)."""
        self.exponents.copy_(torch.from_numpy(exponents))
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(std))
        return self

    @torch.no_grad()
    def count(self, bins: Tensor, components: Tensor, weight: Tensor | None = None) -> Self:
        """Fill the templates.

        Args:
            bins: of the events, (N,).
            components: c over q, (N, K).
            weight: of the events, of mean one, (N,).

        Raises:
            EventDataError: a bin whose weights sum to zero or less.
        """
        ones = torch.ones(len(bins), dtype=torch.float64, device=bins.device)
        each = ones if weight is None else weight.double()
        share = torch.zeros_like(self.share).index_add_(0, bins, each) / each.sum()
        total = torch.zeros_like(self.table).index_add_(0, bins, components * each[:, None])
        filled = torch.zeros_like(self.share).index_add_(0, bins, ones) > 0
        if (share[filled] <= 0).any():
            message = (
                f"the weights of {int((share[filled] <= 0).sum())} of {int(filled.sum())} bins "
                "sum to zero or less; expected positive sums. Take fewer bins, or more events"
            )
            raise EventDataError(message)
        self.share.copy_(share)
        means = total / (share * each.sum()).where(filled, torch.ones_like(share))[:, None]
        self.table.copy_(means)
        return self

    @property
    def cross_section(self) -> Tensor:
        """sum_b C_b, (K,): that of the training events, up to a factor."""
        return self.share @ self.table

    def monomials(self, theta: Parameters) -> Tensor:
        """Return w at standardised theta, (..., p) -> (..., K) float64."""
        points = theta.double() * self.std + self.mean
        return points.unsqueeze(-2).pow(self.exponents).prod(dim=-1)

    def probabilities(self, theta: Parameters) -> Tensor:
        """Return p(b|theta) at standardised theta, (M, p) -> (M, bins), before the floor."""
        w = self.monomials(theta)
        return self.share * (w @ self.table.T) / (w @ self.cross_section)[:, None]

    def log_ratio(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., K), (..., p) -> (...).

        Args:
            condensed: rows of the table, those of the events' bins.
            theta: standardised.
        """
        w = self.monomials(theta)
        rate = w @ self.cross_section
        return torch.log(((w * condensed).sum(dim=-1) / rate).clamp_min(FLOOR))
