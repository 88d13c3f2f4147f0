"""What a ratio promises, and the latent density of the reference it multiplies."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mflow_sbi.flows import ConditionalFlow
from mflow_sbi.interfaces import Latents, LogProbs, Parameters
from mflow_sbi.transforms import Composite

__all__ = ["PairWeights", "Ratio", "StandardNormal"]


class PairWeights(NamedTuple):
    """Weights of pairs (x_i, theta_i), both of mean one over all of them.

    Args:
        of_events: w_i of averages over events, of either sign, (N,).
        of_theta: v_i >= 0 of thetas as draws from the prior, (N,); see `mflow_sbi.events.weights`.
    """

    of_events: Tensor
    of_theta: Tensor


class Ratio(nn.Module, ABC):
    """r(x, theta) = p(x|theta) / p_ref(x), p_ref the density of the training sample.

    The average of r over the training thetas (weighted, where the events are) is exactly 1 at
    every x, whatever the parameters: then r(x, theta) is the posterior over its prior, theta given
    x, and -mean log r(x_i, theta_i) over simulated pairs is a proper objective.  That
    E_ref r(., theta) = 1 at every theta holds for the best ratio and is checked (see
    `mflow_sbi.evaluation.ratio_quality`).

    theta comes standardised, as surrogates have it.
    """

    parameter_dim: int

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Return all that the theta-dependence needs, exactly symmetric, (N, F) -> (N, k)."""

    @abstractmethod
    def log_ratio(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., k), (..., p) -> (...)."""

    @abstractmethod
    def log_ratio_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> LogProbs:
        """Return log r of pairs turned by one element of the symmetry group each, (N,).

        Row i takes element i mod G; as shuffled epochs go by an event meets all of them.  One
        network evaluation per event, where `encode` takes G.

        Args:
            features: of the events, (N, F).
            theta: theirs, standardised, (N, p).
            weights: of the pairs; equal if left out.  For ratios that are normalised over them.
        """

    def score_in_turn(
        self, features: Tensor, theta: Parameters, weights: PairWeights | None = None
    ) -> tuple[LogProbs, Tensor]:
        """Return the same and its gradient in standardised theta, (N,) and (N, p)."""
        keeps = torch.is_grad_enabled()
        with torch.enable_grad():
            at = theta.detach().requires_grad_()
            values = self.log_ratio_in_turn(features, at, weights)
            (score,) = torch.autograd.grad(values.sum(), at, create_graph=keeps)
        return values if keeps else values.detach(), score

    @abstractmethod
    def log_bound(self, theta: Parameters) -> Tensor:
        """Return an upper bound of log r(., theta), inf where none is known, (N, p) -> (N,)."""


class StandardNormal(ConditionalFlow):
    """The latent density of a reference: u ~ N(0, 1) at every theta; a flow without layers."""

    def __init__(self, features: int, parameter_dim: int) -> None:
        super().__init__(features, parameter_dim, Composite([]))

    def log_prob(self, u: Latents, theta: Parameters | None = None) -> LogProbs:
        """Return log N(u; 0, 1), leading dimensions broadcast, (..., d), (..., p) -> (...)."""
        log_prob = super().log_prob(u)
        shape = log_prob.shape if theta is None else theta.shape[:-1]
        return log_prob.broadcast_to(torch.broadcast_shapes(log_prob.shape, shape))
