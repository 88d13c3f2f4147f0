r"""The chart of the M_e-flow: a free encoder before the surface of an invertible map.

    encode(x) = e(head(x)),   decode(u) = head^-1(f^-1(u, 0))

The surface and its volume are those of the invertible chart; e alone decides which point of it
stands for x.  encode(decode(u)) = u is learned, not built in.

References:
    Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
    arXiv:2003.13913, section 2.C.
"""

from torch import Tensor

from mflow_sbi.charts.autoencoder import NetworkOptions
from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.invertible import InvertibleChart, build_invertible_chart
from mflow_sbi.charts.linear_head import LinearHead
from mflow_sbi.flows import FlowOptions, seeded
from mflow_sbi.interfaces import Events, Latents
from mflow_sbi.transforms.conditioners import ResidualNetwork

__all__ = ["EncodedChart", "build_encoded_chart"]


class EncodedChart(Chart):
    """The surface of an invertible chart, read by a free encoder."""

    learns_by_reconstruction = True

    def __init__(self, encoder: ResidualNetwork, chart: InvertibleChart) -> None:
        super().__init__()
        self.ambient_dim = chart.ambient_dim
        self.latent_dim = chart.latent_dim
        self.encoder = encoder
        self.chart = chart

    @property
    def head(self) -> LinearHead:
        """Linear head of the invertible chart."""
        return self.chart.head

    def encode(self, x: Events) -> Latents:
        """Return e(head(x)), (N, n) -> (N, d)."""
        reference = next(self.encoder.parameters())
        return self.encoder(self.chart.head(x).to(reference.dtype))

    def decode(self, u: Latents) -> Events:
        """Return head^-1(f^-1(u, 0)), (N, d) -> (N, n)."""
        return self.chart.decode(u)

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and its Jacobian, (N, d) -> ((N, n), (N, n, d))."""
        return self.chart.decode_with_jacobian(u)

    def gram(self, u: Latents) -> Tensor:
        """Return J^T J in float64, (N, d) -> (N, d, d)."""
        return self.chart.gram(u)


def build_encoded_chart(
    head: LinearHead, latent_dim: int, encoder: NetworkOptions, decoder: FlowOptions, seed: int
) -> EncodedChart:
    """Return an encoded chart that starts at the d leading principal directions.

    Raises:
        ConfigurationError: latent_dim exceeds the linear rank of the data.
    """
    chart = build_invertible_chart(head, latent_dim, decoder, seed)
    with seeded(seed + 1):
        return EncodedChart(encoder.network(head.rank, latent_dim), chart)
