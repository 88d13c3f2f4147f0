r"""Phi(x): what a ratio's network reads of an event, standardised numbers of order one.

Events come in as standardised observables in float64, because differences of large numbers make
features; features leave in float32.  A feature that is odd under a symmetry is scaled but not
shifted, so that it stays odd.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events

__all__ = ["Features", "ObservableFeatures"]

SMALLEST_SPREAD = 1e-9
"""Features that spread less over the training events are constants: they are left at zero."""
ROWS_FOR_FITTING = 200_000


class Features(Float64Buffers, ABC):
    """(raw(x) - centre) / scale, centre and scale fitted to training events.

    Args:
        feature_dim: F.
    """

    centre: Tensor
    inverse_scale: Tensor

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.register_buffer("centre", torch.zeros(feature_dim, dtype=torch.float64))
        self.register_buffer("inverse_scale", torch.ones(feature_dim, dtype=torch.float64))

    @abstractmethod
    def raw(self, x: Events) -> Tensor:
        """Return the features before standardisation, (N, n) -> (N, F) float64."""

    @torch.no_grad()
    def fit(self, x: Events, odd: Tensor) -> Self:
        """Fit centre and scale to standardised events (N, n); `odd` ones (F,) are not shifted."""
        raw = self.raw(x[:ROWS_FOR_FITTING].double())
        self.centre.copy_(torch.where(odd, 0.0, raw.mean(dim=0)))
        spread = (raw - self.centre).square().mean(dim=0).sqrt()
        constant = spread < SMALLEST_SPREAD * raw.abs().amax(dim=0).clamp_min(1.0)
        self.inverse_scale.copy_(torch.where(constant, 0.0, 1.0 / spread))
        return self

    def forward(self, x: Events) -> Tensor:
        """Return Phi(x), (N, n) -> (N, F) float32."""
        return ((self.raw(x.double()) - self.centre) * self.inverse_scale).float()


class ObservableFeatures(Features):
    r"""asinh(x / 3 s) and log x (asinh(5 x / s) for x of both signs), s the spread of x.

    For any events: two features per observable, one that resolves its bulk and one its orders of
    magnitude.  Both are odd in x where x has both signs.

    Args:
        ambient_dim: n.
    """

    mean: Tensor
    std: Tensor
    positive: Tensor

    def __init__(self, ambient_dim: int) -> None:
        super().__init__(2 * ambient_dim)
        self.register_buffer("mean", torch.zeros(ambient_dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(ambient_dim, dtype=torch.float64))
        self.register_buffer("positive", torch.zeros(ambient_dim, dtype=torch.bool))

    @classmethod
    def for_observables(cls, x: Events, mean: ArrayLike, std: ArrayLike) -> Self:
        """Return the features of events standardised by mean and std (n,), signs seen in x."""
        features = cls(x.shape[1])
        features.mean.copy_(torch.as_tensor(mean))
        features.std.copy_(torch.as_tensor(std))
        features.positive.copy_((x.double() * features.std + features.mean > 0).all(dim=0))
        return features

    def signs(self, odd_observables: Sequence[int]) -> list[float]:
        """Return the signs of the features (F,) where these observables change sign."""
        one = [-1.0 if k in set(odd_observables) else 1.0 for k in range(len(self.mean))]
        return [*one, *one]

    def raw(self, x: Events) -> Tensor:
        """Return both features of every observable, (N, n) -> (N, 2 n)."""
        units = (x * self.std + self.mean) / self.std
        magnitude = torch.where(
            self.positive, torch.log(units.clamp_min(1e-12)), torch.asinh(5.0 * units)
        )
        return torch.cat([torch.asinh(units / 3.0), magnitude], dim=-1)
