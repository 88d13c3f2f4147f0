r"""The manifold-learning flow: log p(x|theta) = log p(u|theta) - 1/2 log det J^T J, u = encode(x).

The chart's own coordinates s are straightened by a reference flow R that knows no theta, trained
by maximum likelihood on all events: u = R(s) is close to a standard normal, whatever thin
directions s has.  The conditional density then has only to learn what theta changes:

    encode(x) = R(chart.encode(x)),   decode(u) = chart.decode(R^-1(u)),   J = d decode / d u,
    1/2 log det J^T J = chart.log_volume(s) - log|det dR/ds|

This is the latent flow of the M-flow with its first layers unconditional; densities stay exact.

References:
    Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
    arXiv:2003.13913, eq. 6.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from mflow_sbi.charts import CHUNK_ROWS, Chart
from mflow_sbi.errors import ChartError
from mflow_sbi.flows import ConditionalFlow
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters

__all__ = ["ManifoldFlow"]

MAX_DRAWS = 100


class ManifoldFlow(nn.Module):
    """A chart times a conditional latent density, on standardised observables.

    `log_prob` is the exact density of the projected event with respect to the volume of the
    learned surface; read it beside `reconstruction_error`.
    """

    measure: Measure = "manifold"

    def __init__(self, chart: Chart, reference: ConditionalFlow, density: ConditionalFlow) -> None:
        super().__init__()
        self.chart = chart
        self.reference = reference
        self.density = density
        self.ambient_dim = chart.ambient_dim
        self.latent_dim = chart.latent_dim
        self.parameter_dim = density.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        parts = {"reference": self.reference, "density": self.density}
        return {"chart": self.chart, **parts} if self.chart.learns_by_reconstruction else parts

    @torch.no_grad()
    def prepare(self, part: str, x: Events) -> None:
        """Fit what the named part takes from data before gradients: the reference's whitening."""
        if part == "reference":
            self.reference.fit_whitening(self.coordinates(x))

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Latents] | None:
        """Return the part of the encoding that rests while the named parts train, if any."""
        if "chart" in trains:
            return None
        return self.coordinates if "reference" in trains else self.encode

    def reference_log_prob(self, resting: Latents) -> LogProbs:
        """Return log of the reference density of the chart's coordinates, (N,)."""
        return self.reference.log_prob(resting)

    def coordinates(self, x: Events) -> Latents:
        """Return the chart's coordinates in the precision of the flows, (N, n) -> (N, d)."""
        return self.chart.encode(x).to(self.reference.whitening.mean.dtype)

    def encode(self, x: Events) -> Latents:
        """Return the straightened latents, (N, n) -> (N, d)."""
        return self.reference.encode_noise(self.coordinates(x))[0]

    def decode(self, u: Latents) -> Events:
        """Return the events on the surface, (N, d) -> (N, n)."""
        return self.chart.decode(self.reference.decode_noise(u))

    def project(self, x: Events) -> Events:
        """Return decode(encode(x)), (N, n) -> (N, n)."""
        return self.chart.project(x)

    def project_with_flags(self, x: Events) -> tuple[Events, Tensor]:
        """Return project(x), NaN where there is no point for x, and whether there is one, (N,)."""
        points, found = self.chart.project_with_flags(x)
        return torch.where(found[:, None], points.double(), torch.nan), found

    def reconstruction_error(self, x: Events) -> Tensor:
        """Return |x - project(x)|_2 in standardised units, (N,)."""
        return torch.linalg.vector_norm(x - self.project(x), dim=-1)

    def log_volume(self, u: Latents) -> Tensor:
        """Return 1/2 log det J^T J at u, exact, (N,): the chart's volume and R's determinant."""
        s = self.reference.decode_noise(u)
        return self.chart.log_volume(s) - self.reference.encode_noise(s)[1]

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p(u|theta), rows paired, (N,)."""
        return self.density.log_prob(u, theta)

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(project(x)|theta) with respect to the surface volume, (N,).

        Without gradients, events are taken in chunks: memory does not grow with their number.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(x) <= CHUNK_ROWS:
            return self._log_prob(x, theta)
        parts = zip(x.split(CHUNK_ROWS), theta.split(CHUNK_ROWS), strict=True)
        return torch.cat([self._log_prob(*part) for part in parts])

    def _log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        s, log_volume = self.chart.encode_with_volume(x)
        u, log_det = self.reference.encode_noise(s.to(self.reference.whitening.mean.dtype))
        return self.latent_log_prob(u, theta) + log_det - log_volume

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(u|theta): log p(x|theta) without the volume, constant in theta, (N,)."""
        return self.latent_log_prob(self.encode(x), theta)

    @torch.no_grad()
    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, on the surface, (N, n); see `sample_counted`."""
        return self.sample_counted(theta, seed)[0]

    @torch.no_grad()
    def sample_counted(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        """Return one event per row of theta, and how many latents had to be drawn again.

        Latents over which the surface has no point are drawn again; a share of more than a few
        per cent says that the density has not learned where the surface ends.

        Raises:
            ChartError: rows without a point on the surface after many draws.
        """
        generator = torch.Generator().manual_seed(seed)
        x = torch.empty(len(theta), self.ambient_dim, dtype=torch.float64, device=theta.device)
        open_rows = torch.arange(len(theta), device=theta.device)
        drawn = 0
        for _ in range(MAX_DRAWS):
            drawn += len(open_rows)
            latents = self.density.sample(theta[open_rows], generator)
            events, found = self.chart.decode_drawn(self.reference.decode_noise(latents))
            x[open_rows[found]] = events[found].double()
            open_rows = open_rows[~found]
            if not len(open_rows):
                return x, drawn - len(theta)
        message = (
            f"{len(open_rows)} of {len(theta)} events: no point of the surface found after "
            f"{MAX_DRAWS} draws; train the density longer"
        )
        raise ChartError(message)
