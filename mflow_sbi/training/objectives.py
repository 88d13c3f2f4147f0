r"""Objectives: what a training phase minimises, one scalar each, averaged over a batch.

Configuration in the fields, tensors in the call.  An objective may be an approximation of a
likelihood; a surrogate's `log_prob` never is.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = [
    "CoordinateNorm",
    "LatentNegativeLogProb",
    "Objective",
    "Reconstruction",
    "TrainingBatch",
]


class TrainingBatch(NamedTuple):
    """Standardised events (N, n), parameters (N, p) and, where the chart rests, latents (N, d)."""

    x: Tensor
    theta: Tensor
    latents: Tensor | None = None


class Objective(Protocol):
    """A scalar to minimise."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the batch average of the objective, a scalar."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """mean |x - decode(encode(x))|^2 in standardised units: the manifold phase of the M-flow."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean squared reconstruction error."""
        return (batch.x - surrogate.project(batch.x)).square().sum(dim=-1).mean()


@dataclass(frozen=True)
class CoordinateNorm:
    """mean |(u, v)|^2: keeps the chart's coordinates near the origin, where splines act."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean squared norm of latents and off-manifold coordinates."""
        u, v = surrogate.chart.coordinates(batch.x)
        return u.square().sum(dim=-1).mean() + v.square().sum(dim=-1).mean()


@dataclass(frozen=True)
class LatentNegativeLogProb:
    """-mean log p(u|theta): maximum likelihood of the latent density at fixed chart."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log density of the latents."""
        latents = batch.latents
        if latents is None:
            latents = surrogate.encode(batch.x).detach()
        return -surrogate.latent_log_prob(latents, batch.theta).mean()
