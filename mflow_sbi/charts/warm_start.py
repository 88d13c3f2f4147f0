r"""Where Newton begins: w ~ clip(A q(f(u)) + network(q(f(u)))), q(f) = (1, f, f_i f_j).

The features f(u) are u itself, and cosine and sine of those u that are angles.

The quadratic part comes in closed form (least squares), the network refines it.  Results are
clipped to the range of the training events: outside it Newton finds wrong branches.
"""

import torch
from torch import Tensor, nn

from mflow_sbi.transforms.conditioners import ResidualConditioner
from mflow_sbi.transforms.elementwise import linear_columns

__all__ = ["WarmStart"]

ROOM = 5.0
"""Roots may lie this many training ranges outside the training range."""

RIDGE = 1e-6
BATCH = 1000
LEARNING_RATE = 3e-3


class WarmStart(nn.Module):
    """Network u -> w, (N, d) -> (N, k) float64, with the ranges of w as buffers.

    Args:
        latent_dim: d.
        n_unknowns: k.
        hidden: width of the network.
        blocks: residual blocks.
        n_angles: how many of u are periodic.
    """

    pairs: Tensor
    angles: Tensor
    periods: Tensor
    feature_centre: Tensor
    feature_scale: Tensor
    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, latent_dim: int, n_unknowns: int, hidden: int, blocks: int, n_angles: int = 0
    ) -> None:
        super().__init__()
        n_first = latent_dim + 2 * n_angles
        n_features = n_first + n_first * (n_first + 1) // 2
        self.register_buffer("pairs", torch.triu_indices(n_first, n_first))
        self.register_buffer("angles", torch.zeros(n_angles, dtype=torch.int64))
        self.register_buffer("periods", torch.ones(n_angles))
        self.register_buffer("feature_centre", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.register_buffer("centre", torch.zeros(n_unknowns))
        self.register_buffer("scale", torch.ones(n_unknowns))
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(n_unknowns))
        self.quadratic = nn.Linear(n_features, n_unknowns)
        self.network = ResidualConditioner(
            n_features, n_unknowns, context_dim=0, hidden=hidden, blocks=blocks
        )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network, and of the latents."""
        return self.quadratic.weight.dtype

    def set_periods(self, periods: Tensor) -> None:
        """Tell which of u are angles: periods (d,), 0 for none."""
        self.angles.copy_(torch.nonzero(periods)[:, 0])
        self.periods.copy_(periods[self.angles])

    def box(self) -> tuple[Tensor, Tensor]:
        """Return the range in which roots are accepted, two of (k,) float64."""
        room = ROOM * self.reach()
        return self.low.double() - room, self.high.double() + room

    def reach(self) -> Tensor:
        """Return the longest step that Newton may make, the training range, (k,) float64."""
        return (self.high - self.low).double()

    def forward(self, u: Tensor) -> Tensor:
        """Return the warm start inside the training range, (N, d) -> (N, k) float64."""
        w = self.centre + self.scale * self._standardised(self._features(u.to(self.dtype)))
        return torch.minimum(torch.maximum(w, self.low), self.high).double()

    def _features(self, u: Tensor) -> Tensor:
        """Return f(u) and its products of pairs, standardised, (N, d) -> (N, q)."""
        turned = 2 * torch.pi * u[:, self.angles] / self.periods
        u = torch.cat([u, turned.cos(), turned.sin()], dim=-1)
        first, second = self.pairs
        features = torch.cat([u, u[:, first] * u[:, second]], dim=-1)
        return (features - self.feature_centre) / self.feature_scale

    def _standardised(self, features: Tensor) -> Tensor:
        """Return (w - centre) / scale from features, (N, q) -> (N, k)."""
        hidden = self.network(features.T)
        last = self.network.last
        return self.quadratic(features) + linear_columns(last.weight, hidden, last.bias).T

    @torch.no_grad()
    def fit_regression(self, u: Tensor, w: Tensor) -> None:
        """Set ranges and scales from pairs (N, d), (N, k), and the quadratic part."""
        features = self._features(u.to(self.dtype))
        self.feature_centre += features.mean(dim=0) * self.feature_scale
        self.feature_scale *= features.std(dim=0).clamp_min(1e-12)
        self.centre.copy_(w.mean(dim=0))
        self.scale.copy_(w.std(dim=0).clamp_min(1e-12))
        self.low.copy_(w.amin(dim=0))
        self.high.copy_(w.amax(dim=0))
        features = self._features(u.to(self.dtype)).double()
        target = ((w - self.centre) / self.scale).double()
        normal = features.mT @ features / len(features)
        normal += RIDGE * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        weight = torch.linalg.solve(normal, features.mT @ target / len(features))
        self.quadratic.weight.copy_(weight.T)
        self.quadratic.bias.zero_()

    def fit_network(self, u: Tensor, w: Tensor, epochs: int, seed: int) -> list[float]:
        """Train by least squares on pairs (N, d), (N, k); return the mean loss per epoch."""
        features = self._features(u.to(self.dtype))
        target = (w.to(self.dtype) - self.centre) / self.scale
        generator = torch.Generator().manual_seed(seed)
        steps = max(1, len(u) // BATCH) * epochs
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, weight_decay=1e-5)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps + 1)
        losses = []
        for _ in range(epochs):
            order = torch.randperm(len(u), generator=generator).to(u.device)
            total = 0.0
            batches = order[: max(1, len(u) // BATCH) * BATCH].split(BATCH)
            for index in batches:
                error = self._standardised(features[index]) - target[index]
                loss = error.square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            losses.append(total / len(batches))
        return losses
