r"""The ambient flow: an ordinary conditional flow on all directions in which the data vary.

    log p(x|theta) = log p_z(z|theta) + log|dz/dx|,   z = head(x) in R^r

The exactly linear constraints are built in by the head, so that the measure is the Lebesgue
measure of the r-dimensional span; nothing is known of the curved ones.

References:
    The baseline "AF" of arXiv:2003.13913, section 4.B.
"""

from collections.abc import Mapping

import torch
from torch import nn

from mflow_sbi.charts import LinearHead
from mflow_sbi.flows import ConditionalFlow
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters

__all__ = ["AmbientFlow"]


class AmbientFlow(nn.Module):
    """Linear head times a conditional flow of its r coordinates, on standardised observables."""

    measure: Measure = "ambient"

    def __init__(self, head: LinearHead, density: ConditionalFlow) -> None:
        super().__init__()
        self.head = head
        self.density = density
        self.ambient_dim = head.ambient_dim
        self.latent_dim = head.rank
        self.parameter_dim = density.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"density": self.density}

    def prepare(self, part: str, x: Events) -> None:
        """Do nothing: the head whitens already."""

    def encode(self, x: Events) -> Latents:
        """Return the coordinates in the linear span of the data, (N, n) -> (N, r)."""
        return self.head(x).to(self.density.whitening.mean.dtype)

    def decode(self, u: Latents) -> Events:
        """Return the events with these coordinates, (N, r) -> (N, n)."""
        return self.head.inverse(u)

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p_z(u|theta), rows paired, (N,)."""
        return self.density.log_prob(u, theta)

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) with respect to the Lebesgue measure of the span, (N,)."""
        return self.latent_log_prob(self.encode(x), theta) + self.head.log_det()

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        return self.latent_log_prob(self.encode(x), theta)

    @torch.no_grad()
    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, (N, n)."""
        generator = torch.Generator().manual_seed(seed)
        return self.decode(self.density.sample(theta, generator))
