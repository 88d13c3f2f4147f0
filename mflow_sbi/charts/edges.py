r"""Inequalities that all events of a sample obey: y_i >= y_j, and y_i >= 0.

They tell apart roots of the constraints that are equally good as numbers: lengths are positive,
the harder of two photons is the first one.  A difference that merely stayed positive so far is no
edge: events must pile up at it, with the lowest quantiles close to zero beside the next ones.
"""

import torch
from torch import Tensor

from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array, Events

__all__ = ["Edges", "find_edges"]

QUANTILES = (1e-4, 1e-3, 1e-2, 1e-1)
HARD = 0.15
"""A hard edge has quantile(p) < HARD quantile(100 p): 0.01 where events are dense at the edge,
0.1 where their density starts from zero; a tail that ends near it by chance has more."""

ROOM = 1e-6
"""Rounding: points this far beyond an edge, in standard deviations, are still accepted."""

FEWEST_EVENTS = 1000
"""Events that an edge has to hold for; fewer say little about where a sample ends."""


class Edges(Float64Buffers):
    """E inequalities s_i x_i - s_j x_j + b >= 0 on standardised events.

    Args:
        n_edges: E; rows are filled by `find_edges` or `load_state_dict`.
    """

    pairs: Tensor
    scales: Tensor
    offsets: Tensor

    def __init__(self, n_edges: int) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.zeros(n_edges, 2, dtype=torch.int64))
        self.register_buffer("scales", torch.zeros(n_edges, 2, dtype=torch.float64))
        self.register_buffer("offsets", torch.zeros(n_edges, dtype=torch.float64))

    def __len__(self) -> int:
        """Return E."""
        return len(self.offsets)

    def forward(self, x: Events) -> Tensor:
        """Return whether events obey every edge, (N, n) -> (N,) bool."""
        first, second = self.pairs.T
        distance = self.scales[:, 0] * x[:, first] - self.scales[:, 1] * x[:, second]
        return (distance + self.offsets >= -ROOM).all(dim=-1)


@torch.no_grad()
def find_edges(x: Events, mean: Array | Tensor, std: Array | Tensor) -> Edges:
    """Return the edges y_i >= y_j and y_i >= 0, y = mean + std x, that all events obey.

    Args:
        x: standardised events, (N, n).
        mean: of the n observables, physical units.
        std: likewise.
    """
    mean, std = (torch.as_tensor(v, dtype=torch.float64, device=x.device) for v in (mean, std))
    y = mean + std * x.double()
    n = y.shape[1]
    if len(y) < FEWEST_EVENTS:
        return Edges(0)
    rows: list[tuple[int, int]] = []
    for i in range(n):
        distance = y[:, i, None] - y
        hard = (distance > 0).all(dim=0)
        hard[hard.clone()] = _is_hard(distance[:, hard])
        rows += [(i, j) for j in torch.nonzero(hard)[:, 0].tolist()]
    positive = torch.nonzero((y > 0).all(dim=0))[:, 0].tolist()
    return _edges_of(rows, positive, mean, std)


def _is_hard(distance: Tensor) -> Tensor:
    """Return whether events pile up at zero distance, (N, E) -> (E,) bool."""
    if not distance.shape[1]:
        return distance.new_zeros(0, dtype=torch.bool)
    ranks = [max(1, round(share * len(distance))) for share in QUANTILES]
    low = [distance.kthvalue(rank, dim=0).values for rank in ranks]
    return (low[0] < HARD * low[2]) & (low[1] < HARD * low[3])


def _edges_of(
    pairs: list[tuple[int, int]], positive: list[int], mean: Tensor, std: Tensor
) -> Edges:
    """Return the edges y_i >= y_j and y_i >= 0, in units of std_i."""
    edges = Edges(len(pairs) + len(positive)).to(mean.device)
    for row, (i, j) in enumerate(pairs):
        edges.pairs[row] = torch.tensor([i, j])
        edges.scales[row] = torch.stack([torch.ones_like(std[i]), std[j] / std[i]])
        edges.offsets[row] = (mean[i] - mean[j]) / std[i]
    for row, i in enumerate(positive, start=len(pairs)):
        edges.pairs[row] = i
        edges.scales[row, 0] = 1.0
        edges.offsets[row] = mean[i] / std[i]
    return edges
