r"""The chart of the probabilistic autoencoder: free networks either way.

    encode(x) = e(head(x)),   decode(u) = head^-1(g(u))

e and g are residual networks, learned by reconstruction only.  Nothing makes e undo g off the
data, so encode(decode(u)) = u is learned, not built in; the surface {g(u)} and its volume are
exact all the same: the tangents dg/du are carried through the network.

References:
    Probabilistic auto-encoder (Boehm and Seljak, 2020), arXiv:2006.05479, section 2.
"""

from dataclasses import dataclass

from torch import Tensor

from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.invertible import require_latent_dim
from mflow_sbi.charts.linear_head import LinearHead
from mflow_sbi.charts.volume import gram_matrix
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Events, Latents
from mflow_sbi.transforms.conditioners import ResidualNetwork

__all__ = ["AutoencoderChart", "NetworkOptions", "build_autoencoder_chart"]


@dataclass(frozen=True)
class NetworkOptions:
    """Architecture of a free network.

    Args:
        hidden: its width.
        blocks: residual blocks of two layers each.
    """

    hidden: int = 128
    blocks: int = 4

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.blocks < 0:
            message = (
                "network options: expected a hidden width of at least 1 and blocks of at least "
                f"0, got hidden {self.hidden}, blocks {self.blocks}"
            )
            raise ConfigurationError(message)

    def network(self, in_features: int, out_features: int) -> ResidualNetwork:
        """Return a network R^in -> R^out, initialised by torch's generator."""
        return ResidualNetwork(in_features, out_features, hidden=self.hidden, blocks=self.blocks)


class AutoencoderChart(Chart):
    """A surface {g(u)} inside the linear span of the data."""

    learns_by_reconstruction = True

    def __init__(
        self, head: LinearHead, encoder: ResidualNetwork, decoder: ResidualNetwork, latent_dim: int
    ) -> None:
        super().__init__()
        self.ambient_dim = head.ambient_dim
        self.latent_dim = latent_dim
        self.head = head
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, x: Events) -> Latents:
        """Return e(head(x)), (N, n) -> (N, d)."""
        reference = next(self.encoder.parameters())
        return self.encoder(self.head(x).to(reference.dtype))

    def decode(self, u: Latents) -> Events:
        """Return head^-1(g(u)), (N, d) -> (N, n)."""
        return self.head.inverse(self.decoder(u))

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = B S dg/du, (N, d) -> ((N, n), (N, n, d))."""
        z, along = self.decoder.with_jacobian(u)
        return self.head.inverse(z), self.head.basis @ (self.head.spread[:, None] * along)

    def gram(self, u: Latents) -> Tensor:
        """Return J^T J (N, d, d) float64; the orthonormal columns of B drop out."""
        _, along = self.decoder.with_jacobian(u)
        return gram_matrix(self.head.spread[:, None] * along)


def build_autoencoder_chart(
    head: LinearHead, latent_dim: int, options: NetworkOptions, seed: int
) -> AutoencoderChart:
    """Return an autoencoder that starts at the d leading principal directions.

    Raises:
        ConfigurationError: latent_dim exceeds the linear rank of the data.
    """
    require_latent_dim(head, latent_dim)
    with seeded(seed):
        encoder = options.network(head.rank, latent_dim)
        decoder = options.network(latent_dim, head.rank)
    return AutoencoderChart(head, encoder, decoder, latent_dim)
