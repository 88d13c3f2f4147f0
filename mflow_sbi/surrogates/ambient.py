r"""The ambient flow: an ordinary conditional flow on all directions in which the data vary.

    log p(x|theta) = log p_u(u|theta) + log|du/dz| + log|dz/dx|,   u = R(z), z = head(x) in R^r

R is a reference flow that knows no theta (see `surrogates.manifold`): the first, unconditional
layers of the flow, trained first.  The exactly linear constraints are built in by the head, so
that the measure is the Lebesgue measure of the r-dimensional span; nothing is known of the
curved ones.

References:
    The baseline "AF" of arXiv:2003.13913, section 4.B.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from mflow_sbi.charts import LinearHead
from mflow_sbi.flows import ConditionalFlow
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters

__all__ = ["AmbientFlow"]


class AmbientFlow(nn.Module):
    """Linear head times a conditional flow of its r coordinates, on standardised observables."""

    measure: Measure = "ambient"

    def __init__(
        self, head: LinearHead, reference: ConditionalFlow, density: ConditionalFlow
    ) -> None:
        super().__init__()
        self.head = head
        self.reference = reference
        self.density = density
        self.ambient_dim = head.ambient_dim
        self.latent_dim = head.rank
        self.parameter_dim = density.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"reference": self.reference, "density": self.density}

    @torch.no_grad()
    def prepare(self, part: str, x: Events) -> None:
        """Fit what the named part takes from data before gradients: the reference's whitening."""
        if part == "reference":
            self.reference.fit_whitening(self._span(x))

    def _span(self, x: Events) -> Latents:
        """Return coordinates in the linear span of the data, (N, n) -> (N, r)."""
        return self.head(x).to(self.reference.whitening.mean.dtype)

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Latents] | None:
        """Return the part of the encoding that rests while the named parts train."""
        return self._span if "reference" in trains else self.encode

    def reference_log_prob(self, resting: Latents) -> LogProbs:
        """Return log of the reference density of the span's coordinates, (N,)."""
        return self.reference.log_prob(resting)

    def encode(self, x: Events) -> Latents:
        """Return the straightened coordinates, (N, n) -> (N, r)."""
        return self.reference.encode_noise(self._span(x))[0]

    def decode(self, u: Latents) -> Events:
        """Return the events with these coordinates, (N, r) -> (N, n)."""
        return self.head.inverse(self.reference.decode_noise(u))

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p_u(u|theta), rows paired, (N,)."""
        return self.density.log_prob(u, theta)

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) with respect to the Lebesgue measure of the span, (N,)."""
        u, log_det = self.reference.encode_noise(self._span(x))
        return self.latent_log_prob(u, theta) + log_det + self.head.log_det()

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        return self.latent_log_prob(self.encode(x), theta)

    @torch.no_grad()
    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, (N, n)."""
        generator = torch.Generator().manual_seed(seed)
        return self.decode(self.density.sample(theta, generator))
