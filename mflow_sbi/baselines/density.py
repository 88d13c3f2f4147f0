"""A flow of sbi as the density of an ambient or manifold flow."""

import warnings
from typing import TYPE_CHECKING

import torch

from mflow_sbi.flows import ConditionalFlow, seeded
from mflow_sbi.interfaces import Latents, LogProbs, Parameters
from mflow_sbi.transforms import Composite

if TYPE_CHECKING:
    from sbi.neural_nets.estimators import ConditionalDensityEstimator

__all__ = ["SbiDensity"]


class SbiDensity(ConditionalFlow):
    """p(u|theta) of a density estimator of sbi, its z-scoring included.

    Args:
        features: d.
        parameter_dim: p.
        network: the estimator, of inputs (d,) and conditions (p,).
    """

    def __init__(
        self, features: int, parameter_dim: int, network: "ConditionalDensityEstimator"
    ) -> None:
        super().__init__(features, parameter_dim, Composite([]))
        self.network = network

    def log_prob(self, u: Latents, theta: Parameters | None = None) -> LogProbs:
        """Return log p(u|theta), leading dimensions broadcast, (..., d), (..., p) -> (...)."""
        assert theta is not None
        shape = torch.broadcast_shapes(u.shape[:-1], theta.shape[:-1])
        inputs = u.expand(*shape, -1).reshape(1, -1, self.features).to(self.whitening.mean)
        condition = theta.expand(*shape, -1).reshape(-1, self.parameter_dim)
        return self.network.log_prob(inputs, condition.to(inputs))[0].reshape(shape)

    def sample(self, theta: Parameters, generator: torch.Generator) -> Latents:
        """Return one draw of p(u|theta) per row of theta, (N, d)."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with seeded(seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"torch\.triangular_solve", UserWarning)  # of nflows
            condition = theta.to(self.whitening.mean)
            return self.network.sample(torch.Size((1,)), condition)[0]
