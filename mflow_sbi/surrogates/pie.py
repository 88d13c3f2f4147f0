r"""The pseudo-invertible encoder: an ambient flow whose last outputs are pressed to zero.

    (u, v) = F(z; theta),   z = head(x) in R^r,   u in R^d
    log p(x|theta) = log p(u|theta) + log N(v; 0, eps^2) + log|det dF/dz| + log|dz/dx|

All of it learns by likelihood, in all directions in which the data vary; events are drawn with
v = 0, on the surface {F^-1(u, 0; theta)}.  What is learned and what is drawn are not the same
density: nothing but the width eps asks v to be the direction off the data.

F knows theta as published, so that every theta has a surface of its own, or not (a flow without
parameters in its place).  Inference needs F at every theta: z is all that is computed once.

References:
    | Pseudo-invertible encoder (Beitler et al., 2018), openreview.net/forum?id=SkgNYs0qtX
    | Baseline "PIE" of arXiv:2003.13913, section 2.B
"""

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from mflow_sbi.charts import LinearHead
from mflow_sbi.flows import ConditionalFlow
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters

__all__ = ["PseudoInvertibleFlow"]


class PseudoInvertibleFlow(nn.Module):
    """Linear head times a flow whose base is p(u|theta) N(v; 0, eps^2), on standardised events.

    Args:
        head: whitening of the linear span, R^n -> R^r.
        split: F, a flow on R^r with theta or without.
        density: p(u|theta) on R^d, d <= r.
        width: eps.
    """

    measure: Measure = "ambient"

    def __init__(
        self, head: LinearHead, split: ConditionalFlow, density: ConditionalFlow, width: float
    ) -> None:
        super().__init__()
        self.head = head
        self.split = split
        self.density = density
        self.width = width
        self.ambient_dim = head.ambient_dim
        self.latent_dim = head.rank
        self.parameter_dim = density.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"split": self.split, "density": self.density}

    def prepare(self, part: str, x: Events) -> None:
        """Fit nothing: the head has whitened the data."""

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Latents]:  # noqa: ARG002
        """Return the coordinates in the span, which rest whatever trains."""
        return self.encode

    def encode(self, x: Events) -> Latents:
        """Return z = head(x), (N, n) -> (N, r)."""
        return self.head(x).to(self.split.whitening.mean.dtype)

    def decode(self, u: Latents) -> Events:
        """Return the events with these z, (N, r) -> (N, n)."""
        return self.head.inverse(u)

    def _split(self, z: Latents, theta: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, v and log|det dF/dz|."""
        image, log_det = self.split.encode_noise(z, theta)
        u, v = image.tensor_split([self.density.features], dim=-1)
        return u, v, log_det

    def _on_surface(self, u: Latents, theta: Parameters) -> Events:
        """Return head^-1 F^-1(u, 0; theta), (N, d) -> (N, n)."""
        v = u.new_zeros((*u.shape[:-1], self.split.features - u.shape[-1]))
        return self.decode(self.split.decode_noise(torch.cat([u, v], dim=-1), theta))

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p(z|theta), leading dimensions broadcast, (..., r), (..., p) -> (...)."""
        on, off, log_det = self._split(u, theta)
        log_norm = off.shape[-1] * (math.log(self.width) + 0.5 * math.log(2.0 * math.pi))
        log_off = -0.5 * (off / self.width).square().sum(dim=-1) - log_norm
        return self.density.log_prob(on, theta) + log_off + log_det

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) with respect to the Lebesgue measure of the span, (N,)."""
        return self.latent_log_prob(self.encode(x), theta) + self.head.log_det()

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        return self.latent_log_prob(self.encode(x), theta)

    def project_at(self, x: Events, theta: Parameters) -> Events:
        """Return the points of the surface of theta with the events' u, rows paired, (N, n)."""
        return self._on_surface(self._split(self.encode(x), theta)[0], theta)

    @torch.no_grad()
    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, with v = 0, (N, n)."""
        generator = torch.Generator().manual_seed(seed)
        latents = self.density.sample(theta, generator)
        return self._on_surface(latents, theta.to(latents))
