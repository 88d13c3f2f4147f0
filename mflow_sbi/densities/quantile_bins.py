r"""Bins of equal counts in a few numbers: quantiles of the first, then of the next in each bin.

The bins of axis a are quantiles of the training events that share the bins of all axes before
it, so that none is empty however the axes are correlated.  Inner edges are values of training
events, the outer bins reach to infinity; where values repeat, neighbouring bins are merged.  Every
event, whatever its values, is in a bin that training events fill.
"""

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array

__all__ = ["QuantileBins"]


class QuantileBins(Float64Buffers):
    """B bins on each of d axes, B^d in all.

    >>> bins = QuantileBins(2, 2).fit(torch.tensor([[0.0, 5], [1, 6], [2, 9], [3, 8]]).double())
    >>> bins(torch.tensor([[-7.0, 5.5], [0.0, 6.0], [2.0, 8.0], [9.0, 9.0]]).double()).tolist()
    [0, 1, 2, 3]
    """

    def __init__(self, n_axes: int, per_axis: int) -> None:
        super().__init__()
        self.n_axes, self.per_axis = n_axes, per_axis
        for axis in range(n_axes):
            edges = torch.full((per_axis**axis, per_axis - 1), torch.inf, dtype=torch.float64)
            self.register_buffer(f"edges_{axis}", edges)

    @property
    def n_bins(self) -> int:
        """B^d."""
        return self.per_axis**self.n_axes

    @property
    def edges(self) -> list[Tensor]:
        """Edges of every axis, (B^a, B - 1); infinite where bins are merged."""
        return [self.get_buffer(f"edges_{axis}") for axis in range(self.n_axes)]

    @torch.no_grad()
    def fit(self, values: Tensor) -> "QuantileBins":
        """Take the edges from numbers of training events, (N, d)."""
        inside = torch.zeros(len(values), dtype=torch.int64)
        for axis, edges in enumerate(self.edges):
            column = values[:, axis].double().cpu()
            order = torch.argsort(inside, stable=True)
            counts = torch.bincount(inside, minlength=len(edges)).tolist()
            for row, part in enumerate(column[order].split(counts)):
                edges[row] = torch.from_numpy(_edges(part.numpy(), self.per_axis))
            inside = self._next(inside, column, edges.cpu())
        return self

    def forward(self, values: Tensor) -> Tensor:
        """Return the bin of every event, (N, d) -> (N,) int64."""
        inside = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        for axis, edges in enumerate(self.edges):
            inside = self._next(inside, values[:, axis].double(), edges)
        return inside

    def _next(self, inside: Tensor, column: Tensor, edges: Tensor) -> Tensor:
        return inside * self.per_axis + (column[:, None] >= edges[inside]).sum(dim=1)


def _edges(values: Array, n_bins: int) -> Array:
    """Return inner edges (B - 1,) of bins of equal counts, merged where values repeat.

    >>> _edges(np.array([3.0, 1.0, 2.0, 4.0]), 2), _edges(np.array([1.0, 1.0, 1.0, 2.0]), 3)
    (array([3.]), array([ 2., inf]))
    """
    result = np.full(n_bins - 1, np.inf)
    if len(values):
        ordered = np.sort(values)
        at = -(-len(values) * np.arange(1, n_bins) // n_bins)
        taken = np.unique(ordered[np.minimum(at, len(values) - 1)])
        taken = taken[taken > ordered[0]]
        result[: len(taken)] = taken
    return result
