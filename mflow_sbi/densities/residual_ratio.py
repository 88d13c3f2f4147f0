r"""A ratio for any dependence on theta: an exponential family with learned statistics.

    f(x, theta) = a(x) . b(theta) + b_0(theta),   r(x, theta) = e^f / mean_m e^f(x, theta_m)

a reads features of the event, b reads theta, both networks; theta_m are stored training thetas.
As for every ratio the average over them is 1 at each x, so that r pi is a density of theta given
x and -mean log r(x_i, theta_i) is proper: its minimum is p(x|theta) / p_ref(x), any smooth
function being a . b for enough statistics.  In training the theta_m are those of the batch, the
event's own among them: then the objective is the contrastive one, bounded by the logarithm of the
batch, and f gains nothing from growing between the stored points.

Where thetas have weights, the mean over them is weighted, sum_m w_m e^f / sum_m w_m, and stored
points are chosen in proportion to the weights, so that theirs are equal again.

Nothing makes E_ref r(., theta) = 1 hold exactly; it holds at the minimum and is measured by Monte
Carlo (`mflow_sbi.evaluation.ratio_quality`).  Likelihoods of many events need sum_i a(x_i) only.

Symmetries: r is averaged over the group, each term with its own normalisation.

References:
    | Representation learning with contrastive predictive coding (van den Oord et al., 2018),
      arXiv:1807.03748, eq. 4
    | Contrastive neural ratio estimation (Miller et al., 2022), arXiv:2210.06170
"""

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.densities.base import PairWeights, Ratio
from mflow_sbi.densities.networks import LayeredNetwork
from mflow_sbi.densities.symmetries import SymmetryGroup
from mflow_sbi.events.weights import spread_rows
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Array, LogProbs, Parameters

__all__ = ["ResidualRatio", "ResidualShape"]

SMALLEST_WEIGHT = 1e-12
"""Of a theta where slopes are divided by it: nothing in a sum, but no zero over zero."""


class ResidualShape(NamedTuple):
    """Sizes that rebuild a ratio.

    Args:
        feature_dim: F, inputs of the network of x.
        parameter_dim: p, inputs of the network of theta.
        group: elements of the symmetry group.
        hidden: width of the hidden layers.
        layers: their number.
        statistics: numbers a(x) per event.
        points: stored training thetas, their images among them.
    """

    feature_dim: int
    parameter_dim: int
    group: int
    hidden: int
    layers: int
    statistics: int
    points: int


class _Points(Float64Buffers):
    """Stored thetas (M, p) and the scale of theta, physical units."""

    points: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, shape: ResidualShape) -> None:
        super().__init__()
        sizes = {"points": (shape.points, shape.parameter_dim)}
        sizes |= {"mean": (shape.parameter_dim,), "std": (shape.parameter_dim,)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.ones(size, dtype=torch.float64))

    def images(self, theta: Parameters, group: SymmetryGroup) -> Tensor:
        """Return the standardised images of standardised theta, (..., p) -> (..., G, p)."""
        physical = (theta.double() * self.std + self.mean).unsqueeze(-2) * group.parameter_signs
        return (physical - self.mean) / self.std


class ResidualRatio(Ratio):
    """r = e^(a . b + b_0) over its mean at stored thetas; rebuild with a shape.

    `encode` gives a and the logarithm of the mean for every element of the group, (N, G (k + 1)).
    """

    def __init__(self, shape: ResidualShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_dim = shape.parameter_dim
        self.stored = _Points(shape)
        self.group = SymmetryGroup(shape.group, shape.feature_dim, shape.parameter_dim)
        k, sizes = shape.statistics, (shape.hidden, shape.layers)
        with seeded(seed):
            self.of_event = LayeredNetwork(shape.feature_dim, *sizes, k)
            self.of_theta = LayeredNetwork(shape.parameter_dim, *sizes, k + 1)
        with torch.no_grad():  # a is small at the start, b is not: a learns first
            self.of_theta.last.bias[:k].normal_(generator=torch.Generator().manual_seed(seed))

    def fill(self, theta: Array, group: SymmetryGroup, theta_weight: Array | None = None) -> Self:
        """Take training thetas (N, p), physical units, their weights >= 0, and the symmetries.

        The scale of theta is that of all of them, whatever their weights.
        """
        self.group.load_state_dict(group.state_dict())
        signs = np.unique(group.parameter_signs.numpy(), axis=0)
        n = self.shape.points // len(signs)
        spread = spread_rows(len(theta), n, theta_weight)
        images = np.concatenate([theta[spread] * row for row in signs])
        self.stored.points.copy_(torch.from_numpy(images))
        self.stored.mean.copy_(torch.from_numpy(theta.mean(axis=0)))
        self.stored.std.copy_(torch.from_numpy(theta.std(axis=0)))
        return self

    def _slopes(self, theta: Parameters) -> tuple[Tensor, Tensor]:
        """Return b and b_0 at the images of theta, (..., p) -> (..., G, k) and (..., G)."""
        images = self.stored.images(theta, self.group)
        both = self.of_theta(images)
        return both[..., :-1], both[..., -1]

    def encode(self, features: Tensor) -> Tensor:
        """Return a and the log mean of e^f for every image, (N, F) -> (N, G (k + 1))."""
        turned = features[:, None] * self.group.feature_signs.to(features)
        statistics = self.of_event(turned)
        points = (self.stored.points - self.stored.mean) / self.stored.std
        slopes, offset = self._slopes(points)
        exponents = torch.einsum("ngk,mgk->nmg", statistics, slopes) + offset
        log_mean = exponents.logsumexp(dim=1) - math.log(len(points))
        return torch.cat([statistics, log_mean[..., None]], dim=-1).flatten(1)

    def log_ratio(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., G (k + 1)), (..., p) -> (...)."""
        parts = encoded.unflatten(-1, (self.group.order, -1))
        slopes, offset = self._slopes(theta)
        slopes, offset = slopes.to(encoded.dtype), offset.to(encoded.dtype)
        exponents = (parts[..., :-1] * slopes).sum(dim=-1) + offset - parts[..., -1]
        return exponents.logsumexp(dim=-1) - math.log(self.group.order)

    def log_ratio_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> LogProbs:
        """Return log r of events turned by element i mod G, normalised over the batch, (N,)."""
        own, log_sum = self._terms_in_turn(features, theta, weights)
        total = math.log(len(theta)) if weights is None else weights.of_theta.sum().log()
        return own - log_sum + total

    def score_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> tuple[LogProbs, Tensor]:
        """Return the same and its gradient in standardised theta, (N,) and (N, p).

        Every theta is a point of the mean too, where all events meet it.  With S_j the weighted
        sum of e^f(x_j, .), the gradient is that of f_i - sum_j w_j (log S_j) / v_i.
        """
        if weights is None:
            return super().score_in_turn(features, theta)
        keeps, chance = torch.is_grad_enabled(), weights.of_theta.clamp_min(SMALLEST_WEIGHT)
        with torch.enable_grad():
            at = theta.detach().requires_grad_()
            own, log_sum = self._terms_in_turn(features, at, weights._replace(of_theta=chance))
            total = (chance * own).sum() - (weights.of_events * log_sum).sum()
            (slope,) = torch.autograd.grad(total, at, create_graph=keeps)
        values = own - log_sum + chance.sum().log()
        return values if keeps else values.detach(), slope / chance[:, None]

    def _terms_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None
    ) -> tuple[Tensor, Tensor]:
        """Return f of events turned in turn at their thetas, log sum e^f over all, (N,), (N,)."""
        element = self.group.in_turn(len(features))
        statistics = self.of_event(features * self.group.feature_signs.to(features)[element])
        slopes, offset = self._slopes(theta)
        values, log_sums = (torch.empty_like(statistics[:, 0]) for _ in range(2))
        for g in range(min(self.group.order, len(features))):
            rows = slice(g, None, self.group.order)
            exponents = statistics[rows] @ slopes[:, g].T + offset[:, g]  # (rows, N)
            own = exponents.gather(1, torch.arange(len(theta), device=theta.device)[rows, None])
            if weights is not None:
                exponents = exponents + weights.of_theta.log()
            values[rows], log_sums[rows] = own[:, 0], exponents.logsumexp(dim=1)
        return values, log_sums

    def log_bound(self, theta: Parameters) -> Tensor:
        """Return inf: no bound is known, (N, p) -> (N,)."""
        return torch.full_like(theta[:, 0], torch.inf, dtype=torch.float64)
