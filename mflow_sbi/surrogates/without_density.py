"""What surrogates without a density have in common: they refuse what only a density gives."""

from collections.abc import Callable, Collection, Mapping
from typing import NoReturn

from torch import nn

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters

__all__ = ["WithoutDensity"]


class WithoutDensity(nn.Module):
    """A likelihood in theta and nothing else: no density, no sample and no surface.

    Subclasses say what they `lack` and why, in one sentence without a full stop, and define
    `log_likelihood`.
    """

    measure: Measure = "none"
    lacks: str = "there is no density, no sample and no surface"
    ambient_dim: int
    latent_dim: int
    parameter_dim: int

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name, none by default."""
        return {}

    def prepare(self, part: str, x: Events) -> None:
        """Fit nothing before gradients."""

    def resting_encoder(
        self,
        trains: Collection[str],  # noqa: ARG002
    ) -> Callable[[Events], Latents] | None:
        """Return the part of the encoding that rests while parts train, none by default."""
        return None

    def encode(self, x: Events) -> Latents:  # noqa: ARG002
        """Refuse: there is no surface.

        Raises:
            ConfigurationError: always.
        """
        return self._refuse("latents")

    def decode(self, u: Latents) -> Events:  # noqa: ARG002
        """Refuse: there is no surface.

        Raises:
            ConfigurationError: always.
        """
        return self._refuse("events of latents, projections and reconstruction errors")

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:  # noqa: ARG002
        """Refuse: there is no density.

        Raises:
            ConfigurationError: always.
        """
        return self._refuse("log_prob")

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:  # noqa: ARG002
        """Refuse: there is no density.

        Raises:
            ConfigurationError: always.
        """
        return self._refuse("log_prob")

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        raise NotImplementedError

    def sample(self, theta: Parameters, seed: int) -> Events:  # noqa: ARG002
        """Refuse: there is no density to draw from.

        Raises:
            ConfigurationError: always.
        """
        return self._refuse("samples")

    def _refuse(self, what: str) -> NoReturn:
        message = (
            f"{what}: {self.lacks}; ask for log_likelihood, or train a recipe with a density "
            "(mflow, fom, af)"
        )
        raise ConfigurationError(message)
