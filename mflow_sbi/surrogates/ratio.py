r"""A learned ratio without a density: log r(x, theta) = f(Phi(x), theta), r -> p(x|theta) / p(x).

The classical estimators of simulation-based inference: a network tells pairs (x, theta) as
simulated from pairs whose theta belongs to another event.  Its log odds are the log ratio to
p(x), the density of all training events; nothing about the dependence on theta is built in.  The
network is a `PairNetwork`; cross-entropies are convex in f, so that its average over a symmetry
group is never worse than the terms are on average.

Posteriors need no more.  There is no density, no sample and no surface: what asks for one is
refused (`NO_DENSITY`).

References:
    | Likelihood-free MCMC with amortized approximate ratio estimators (Hermans et al., 2019),
      arXiv:1903.04057
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from mflow_sbi.densities import Features, PairNetwork
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array, Events, LogProbs, Parameters
from mflow_sbi.surrogates.without_density import WithoutDensity

__all__ = ["NO_DENSITY", "JointRatio", "RatioEstimator"]

NO_DENSITY = (
    "a ratio estimator knows p(x|theta) up to a factor of x only, so there is no density, no "
    "sample and no surface"
)


class JointRatio(Float64Buffers):
    """w_k(theta) / sigma(theta), for the joint ratio of events whose components are known.

        r(x, z, theta) = [w(theta) / sigma(theta)] . c(x, z) / [V . c(x, z)]

    Args:
        exponents: powers of theta in the monomials w_k, (K, p).
        cross_section: C_k of sigma = w . C, (K,).
        mean: of the training thetas, (p,).
        std: theirs, (p,).
    """

    exponents: Tensor
    cross_section: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, exponents: Array, cross_section: Array, mean: Array, std: Array) -> None:
        super().__init__()
        named = {"exponents": exponents, "cross_section": cross_section, "mean": mean, "std": std}
        for name, value in named.items():
            number = torch.as_tensor(value, dtype=torch.float64)
            self.register_buffer(name, number, persistent=False)

    def weights(self, theta: Parameters) -> Tensor:
        """Return w / sigma at standardised theta, (..., p) -> (..., K) float64."""
        points = theta.double() * self.std + self.mean
        monomials = points.unsqueeze(-2).pow(self.exponents).prod(dim=-1)
        return monomials / (monomials @ self.cross_section).unsqueeze(-1)


class RatioEstimator(WithoutDensity):
    """log p(x|theta) up to a factor of x, on standardised observables; see the room's formula.

    Args:
        ambient_dim: n.
        features: what the network reads of an event.
        ratio: of the features and standardised theta.
        joint: what turns components into joint ratios, for trainings that use them.
    """

    lacks = NO_DENSITY

    def __init__(
        self,
        ambient_dim: int,
        features: Features,
        ratio: PairNetwork,
        joint: JointRatio | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.ratio = ratio
        self.joint = joint
        self.ambient_dim = ambient_dim
        self.latent_dim = ratio.shape.hidden * ratio.shape.group
        self.parameter_dim = ratio.shape.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"ratio": self.ratio}

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Tensor]:  # noqa: ARG002
        """Return the features, which rest whatever trains."""
        return self.features

    def condense(self, x: Events) -> Tensor:
        """Return h(Phi(x)) of every image, (N, n) -> (N, k)."""
        return self.ratio.encode(self.features(x))

    def condensed_log_likelihood(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., k), (..., p) -> (...)."""
        return self.ratio.log_ratio(condensed, theta)

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log r(x, theta): log p(x|theta) up to a constant in theta, (N,)."""
        return self.condensed_log_likelihood(self.condense(x), theta)
