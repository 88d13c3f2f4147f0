r"""The probabilistic autoencoder: the M-flow's parts, without a claim to a density of events.

    log p(u|theta),   u = encode(x),   x' = decode(u)

The chart is a pair of free networks, learned by reconstruction; the density is that of its
latents.  The published method computes no volume, so there is no density of events; posteriors
need none, as the volume knows no theta.  The same chart with its exact volume, and so with a
density, is the M-flow's `chart: autoencoder`.

References:
    Probabilistic auto-encoder (Boehm and Seljak, 2020), arXiv:2006.05479.
"""

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Events, LogProbs, Measure, Parameters
from mflow_sbi.surrogates.manifold import ManifoldFlow

__all__ = ["ProbabilisticAutoencoder"]


class ProbabilisticAutoencoder(ManifoldFlow):
    """A free chart times a conditional latent density: samples, projections, posteriors."""

    measure: Measure = "none"

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:  # noqa: ARG002
        """Refuse: the probabilistic autoencoder claims no density of events.

        Raises:
            ConfigurationError: always.
        """
        message = (
            "log_prob: a probabilistic autoencoder knows the density of its latents only; ask for "
            "log_likelihood, or train the M-flow with `chart: autoencoder`, which knows the volume"
        )
        raise ConfigurationError(message)
