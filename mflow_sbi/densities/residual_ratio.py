r"""A ratio for any dependence on theta: a network of pairs, normalised over training thetas.

    r(x, theta) = e^f(x, theta) / mean_m e^f(x, theta_m)

f is a `PairNetwork`; theta_m are stored training thetas.  As for every ratio the average over them
is 1 at each x, so that r pi is a density of theta given x and -mean log r(x_i, theta_i) is proper:
its minimum is p(x|theta) / p_ref(x).  In training the theta_m are the event's own and those of the
next events of the batch: then the objective is the contrastive one, and f gains nothing from
growing between the stored points.

Where thetas have weights, stored points are chosen in proportion to them, so that theirs are
equal again.  So are the other thetas that an event meets in training: among a few thetas of
unequal weights the event's own would come with the weight that this very event happens to have,
and f would learn that too.  Only where all thetas of a batch are met are they weighted,
sum_m w_m e^f / sum_m w_m.

Nothing makes E_ref r(., theta) = 1 hold exactly; it holds at the minimum and is measured by Monte
Carlo (`mflow_sbi.evaluation.ratio_quality`).

Symmetries: f is averaged over the group, and the stored points are closed under it.

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
from mflow_sbi.densities.pairs import PairNetwork, PairShape
from mflow_sbi.densities.symmetries import SymmetryGroup
from mflow_sbi.events.weights import spread_rows
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array, LogProbs, Parameters

__all__ = ["ResidualRatio", "ResidualShape"]

SMALLEST_WEIGHT = 1e-12
"""Of a theta: nothing in a sum, but no zero over zero where all thetas have none."""

_CHUNK_NUMBERS = 1 << 23
"""Numbers of a hidden layer held at once while the mean over stored thetas is taken."""


class ResidualShape(NamedTuple):
    """Sizes that rebuild a ratio.

    Args:
        feature_dim: F, inputs of the network of x.
        parameter_dim: p, inputs of the network of theta.
        group: elements of the symmetry group.
        hidden: width of the hidden layers.
        layers: hidden layers that read the event.
        head_layers: hidden layers that read event and theta.
        candidates: thetas of the batch over which an event is normalised in training.
        points: stored training thetas, their images among them.
    """

    feature_dim: int
    parameter_dim: int
    group: int
    hidden: int
    layers: int
    head_layers: int
    candidates: int
    points: int

    @property
    def pairs(self) -> PairShape:
        """Sizes of the network of pairs."""
        return PairShape(*self[:6])


class _Points(Float64Buffers):
    """Stored thetas (M, p), physical units."""

    points: Tensor

    def __init__(self, shape: ResidualShape) -> None:
        super().__init__()
        size = (shape.points, shape.parameter_dim)
        self.register_buffer("points", torch.ones(size, dtype=torch.float64))


class ResidualRatio(Ratio):
    """r = e^f over its mean at stored thetas; rebuild with a shape.

    `encode` gives what f needs of every image, and the logarithm of the mean, (N, G E + 1).
    """

    def __init__(self, shape: ResidualShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_dim = shape.parameter_dim
        self.pairs = PairNetwork(shape.pairs, seed)
        self.stored = _Points(shape)

    def fill(self, theta: Array, group: SymmetryGroup, theta_weight: Array | None = None) -> Self:
        """Take training thetas (N, p), physical units, their weights >= 0, and the symmetries.

        The scale of theta is that of all of them, whatever their weights.
        """
        self.pairs.fill(theta, group)
        signs = np.unique(group.parameter_signs.numpy(), axis=0)
        n = self.shape.points // len(signs)
        spread = spread_rows(len(theta), n, theta_weight)
        images = np.concatenate([theta[spread] * row for row in signs])
        self.stored.points.copy_(torch.from_numpy(images))
        return self

    def stored_thetas(self) -> Parameters:
        """Return the stored thetas in standardised units, (M, p) float64."""
        return (self.stored.points - self.pairs.images.mean) / self.pairs.images.std

    def encode(self, features: Tensor) -> Tensor:
        """Return what f needs of every image and the log mean of e^f, (N, F) -> (N, G E + 1)."""
        encoded, thetas = self.pairs.encode(features), self.stored_thetas()
        rows = max(1, _CHUNK_NUMBERS // (len(thetas) * encoded.shape[1]))
        parts = [
            self.pairs.log_ratio(some[:, None], thetas).logsumexp(dim=1)
            for some in encoded.split(rows)
        ]
        log_mean = torch.cat(parts) - math.log(len(thetas))
        return torch.cat([encoded, log_mean[:, None]], dim=-1)

    def log_ratio(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., G E + 1), (..., p) -> (...)."""
        return self.pairs.log_ratio(encoded[..., :-1], theta) - encoded[..., -1]

    def log_ratio_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> LogProbs:
        """Return log r of events turned by element i mod G, normalised over the batch, (N,)."""
        encoded = self.pairs.encode_in_turn(features)
        own = self.pairs.log_ratio_in_turn(encoded, theta[:, None])
        return own[:, 0] - self._log_mean_in_turn(encoded, own, theta, weights)

    def score_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> tuple[LogProbs, Tensor]:
        """Return the same and its gradient in standardised theta, (N,) and (N, p).

        The mean over thetas does not depend on the event's own.
        """
        keeps = torch.is_grad_enabled()
        with torch.enable_grad():
            encoded = self.pairs.encode_in_turn(features)
            at = theta[:, None].detach().requires_grad_()
            own = self.pairs.log_ratio_in_turn(encoded, at)
            (score,) = torch.autograd.grad(own.sum(), at, create_graph=keeps)
            values = own[:, 0] - self._log_mean_in_turn(encoded, own, theta, weights)
        return values if keeps else values.detach(), score[:, 0]

    def _log_mean_in_turn(
        self, encoded: Tensor, own: Tensor, theta: Parameters, weights: PairWeights | None
    ) -> Tensor:
        """Return the log mean of e^f over each event's own theta and those of the next ones."""
        count = max(1, min(self.shape.candidates, len(theta)))
        if count == 1:
            return own[:, 0]
        rows, chances = _met_in_turn(len(theta), count, weights, theta.device)
        values = self.pairs.log_ratio_in_turn(encoded, theta[rows[:, 1:]])
        exponents = torch.cat([own, values], dim=1)
        if chances is None:
            return exponents.logsumexp(dim=1) - math.log(count)
        chances = chances.to(exponents)
        return (exponents + chances.log()).logsumexp(dim=1) - chances.sum(dim=1).log()

    def log_bound(self, theta: Parameters) -> Tensor:
        """Return inf: no bound is known, (N, p) -> (N,)."""
        return torch.full_like(theta[:, 0], torch.inf, dtype=torch.float64)


def _met_in_turn(
    n: int, count: int, weights: PairWeights | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return rows of the thetas that each event meets, its own first, and their weights, (n, K).

    Without weights the next ones.  Otherwise rows of a list in which row i comes n v_i / sum v
    times, far from each other in it, so that copies of one theta do not meet the same event; a
    copy of its own counts as none.
    """
    own, k = torch.arange(n, device=device)[:, None], torch.arange(count, device=device)
    rows = (own + k) % n
    if weights is None:
        return rows, None
    chance = weights.of_theta.clamp_min(SMALLEST_WEIGHT)
    if count == n:
        return rows, chance[rows]
    at = (own[:, 0] + 0.5) / n * chance.sum()
    drawn = torch.searchsorted(chance.cumsum(0), at, right=True).clamp_max(n - 1)
    others = drawn[(own + k[1:] * (n // count)) % n]
    counts = torch.cat([torch.ones_like(own), others != own], dim=1)
    return torch.cat([own, others], dim=1), counts.to(chance)
