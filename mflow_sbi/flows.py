r"""Flows assembled from transforms: log p(u|theta) = log N(T(u; theta); 0, 1) + log|det dT/du|.

Leading dimensions of u and theta broadcast: u (N, d) with theta (M, 1, p) gives (M, N), and the
networks of theta alone run on M rows.  `context` is nflows' word for the parameters.

References:
    Normalizing flows for probabilistic modeling and inference (Papamakarios et al., 2019),
    arXiv:1912.02762, eq. 6.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Latents, LogProbs, Parameters
from mflow_sbi.transforms import (
    AffineMap,
    AffineWhitening,
    Composite,
    Coupling,
    ElementwiseMap,
    PermutedLULinear,
    SplineMap,
    VolumePreservingMap,
)

__all__ = ["ConditionalFlow", "FlowOptions", "build_flow", "build_transform", "seeded"]


MAX_BINS = 500
"""Half of a spline's box is then taken by the smallest widths of its bins."""

COUPLINGS = ("spline", "affine", "volume_preserving")


@dataclass(frozen=True)
class FlowOptions:
    """Architecture of a flow: `layers` x (LU linear with permutation, coupling).

    Args:
        layers: number of coupling layers; 0 leaves a linear map.
        hidden: width of the conditioner network.
        blocks: residual blocks of the conditioner network.
        coupling: "spline" (rational-quadratic), "affine", or "volume_preserving" (affine with
            unit determinant).
        bins: bins of each spline.
        bound: splines act on [-bound, bound] (units of the whitened latents), tails are linear.
        embedding: learned functions of theta that condition the layers beside theta itself.
    """

    layers: int = 6
    hidden: int = 64
    blocks: int = 1
    coupling: Literal["spline", "affine", "volume_preserving"] = "spline"
    bins: int = 8
    bound: float = 6.0
    embedding: int = 0

    def __post_init__(self) -> None:
        at_least = {"layers": 0, "hidden": 1, "blocks": 0, "bins": 2, "embedding": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value < least:
                message = f"flow option {name}: expected at least {least}, got {value}"
                raise ConfigurationError(message)
        if self.bins > MAX_BINS or not 0 < self.bound < math.inf:
            message = (
                f"flow options: expected at most {MAX_BINS} bins and a positive bound, "
                f"got bins {self.bins}, bound {self.bound}"
            )
            raise ConfigurationError(message)
        if self.coupling not in COUPLINGS:
            message = (
                f"flow option coupling: expected one of {list(COUPLINGS)}, got {self.coupling!r}"
            )
            raise ConfigurationError(message)

    def elementwise(self) -> ElementwiseMap:
        """Return the elementwise map of the coupling layers."""
        if self.coupling == "affine":
            return AffineMap()
        if self.coupling == "volume_preserving":
            return VolumePreservingMap()
        return SplineMap(self.bins, self.bound, self.hidden)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block of module construction with torch's CPU generator seeded, then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_transform(
    features: int, context_dim: int, options: FlowOptions, *, keep_order: int = 0
) -> Composite:
    """Return layers x (P L U linear, coupling) on `features` numbers.

    Args:
        features: number of numbers transformed.
        context_dim: number of parameters that condition each coupling layer (0: none).
        options: the architecture.
        keep_order: with k > 0 the first layer leaves the order alone and lets the first k
            features set the others, and the last one restores the order: the map starts at the
            identity and can become a graph over those k.
    """
    layers = []
    total = torch.arange(features)
    for index in range(options.layers):
        first = index == 0 and 0 < keep_order < features
        order = torch.arange(features) if first else torch.randperm(features)
        total = total[order]
        layers.append(PermutedLULinear(order))
        layers.append(
            Coupling(
                features,
                keep_order if first else features // 2,
                options.elementwise(),
                context_dim=context_dim,
                hidden=options.hidden,
                blocks=options.blocks,
            )
        )
    layers.append(PermutedLULinear(torch.argsort(total) if keep_order else torch.arange(features)))
    return Composite(layers)


class _Embedding(nn.Module):
    """theta -> (theta, W2 silu(W1 theta)), (..., p) -> (..., p + k)."""

    def __init__(self, parameter_dim: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(parameter_dim, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, theta: Parameters) -> Tensor:
        learned = self.last(nn.functional.silu(self.first(theta.to(self.first.weight))))
        return torch.cat([theta.to(learned), learned], dim=-1)


class ConditionalFlow(nn.Module):
    """A normalised density p(u|theta) on R^d; without parameters when parameter_dim is 0.

    Data are whitened by a fixed affine map before the learned layers (see `fit_whitening`).

    Args:
        features: d.
        parameter_dim: p.
        transform: conditioned on what `embedding` makes of theta.
        embedding: of theta; None: theta itself.
    """

    def __init__(
        self,
        features: int,
        parameter_dim: int,
        transform: Composite,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.features = features
        self.parameter_dim = parameter_dim
        self.whitening = AffineWhitening(features)
        self.transform = transform

    def fit_whitening(self, u: Latents) -> None:
        """Fit the whitening to training latents (N, d)."""
        self.whitening.fit(u)

    def _context(self, theta: Parameters | None) -> Tensor | None:
        if not self.parameter_dim or theta is None:
            return None
        return theta if self.embedding is None else self.embedding(theta)

    def encode_noise(self, u: Latents, theta: Parameters | None = None) -> tuple[Tensor, LogProbs]:
        """Return T(u; theta) and log|det dT/du|, (..., d) -> ((..., d), (...))."""
        white, log_det_white = self.whitening(u)
        noise, log_det = self.transform(white, self._context(theta))
        return noise, log_det + log_det_white

    def log_prob(self, u: Latents, theta: Parameters | None = None) -> LogProbs:
        """Return log p(u|theta), leading dimensions broadcast, (..., d), (..., p) -> (...)."""
        noise, log_det = self.encode_noise(u, theta)
        log_base = -0.5 * (noise.square().sum(dim=-1) + self.features * math.log(2.0 * math.pi))
        return log_base + log_det

    def decode_noise(self, noise: Tensor, theta: Parameters | None = None) -> Latents:
        """Return T^-1(noise; theta), (N, d)."""
        white, _ = self.transform.inverse(noise, self._context(theta))
        return self.whitening.inverse(white)[0]

    def sample(self, theta: Parameters, generator: torch.Generator) -> Latents:
        """Return one draw of p(u|theta) per row of theta, (N, d)."""
        reference = self.whitening.mean
        noise = torch.randn((len(theta), self.features), generator=generator, dtype=torch.float64)
        return self.decode_noise(noise.to(reference), theta.to(reference))


def build_flow(
    features: int, parameter_dim: int, options: FlowOptions, seed: int
) -> ConditionalFlow:
    """Return a flow on R^features conditioned on parameter_dim numbers, initialised from seed."""
    learned = options.embedding if parameter_dim else 0
    with seeded(seed):
        transform = build_transform(features, parameter_dim + learned, options)
        embedding = _Embedding(parameter_dim, learned, options.hidden) if learned else None
        return ConditionalFlow(features, parameter_dim, transform, embedding)
