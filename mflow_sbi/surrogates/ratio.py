r"""A learned ratio without a density: log r(x, theta) = f(Phi(x), theta), r -> p(x|theta) / p(x).

The classical estimators of simulation-based inference: a network tells pairs (x, theta) as
simulated from pairs whose theta belongs to another event.  Its log odds are the log ratio to
p(x), the density of all training events; nothing about the dependence on theta is built in.

    f = o(silu(h(Phi(x)) + g(theta)))

h reads what a tilted density reads of an event (see `mflow_sbi.densities.features`), g reads
theta, both once; only the small head o is evaluated for pairs, so that many thetas are cheap.
Symmetries: f is averaged over the group; cross-entropies are convex in f, so that the average is
never worse than its terms are on average.

Posteriors need no more.  There is no density, no sample and no surface: what asks for one is
refused (`NO_DENSITY`).

References:
    | Likelihood-free MCMC with amortized approximate ratio estimators (Hermans et al., 2019),
      arXiv:1903.04057
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from mflow_sbi.densities import Features, SymmetryGroup
from mflow_sbi.densities.networks import LayeredNetwork
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Array, Events, LogProbs, Parameters
from mflow_sbi.surrogates.without_density import WithoutDensity

__all__ = ["NO_DENSITY", "JointRatio", "PairNetwork", "PairShape", "RatioEstimator"]

NO_DENSITY = (
    "a ratio estimator knows p(x|theta) up to a factor of x only, so there is no density, no "
    "sample and no surface"
)


class PairShape(NamedTuple):
    """Sizes that rebuild a network of pairs.

    Args:
        feature_dim: F.
        parameter_dim: p.
        group: elements of the symmetry group.
        hidden: width of all layers, and of h and g.
        layers: hidden layers of h.
        head_layers: hidden layers of o.
    """

    feature_dim: int
    parameter_dim: int
    group: int
    hidden: int
    layers: int
    head_layers: int


class _Images(Float64Buffers):
    """Images of theta under a symmetry group, in standardised units."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: PairShape) -> None:
        super().__init__()
        for name in ("mean", "std"):
            ones = torch.ones(shape.parameter_dim, dtype=torch.float64)
            self.register_buffer(name, ones)

    def turned(self, theta: Parameters, signs: Tensor) -> Tensor:
        """Return standardised images of standardised theta; signs broadcast against it."""
        return ((theta.double() * self.std + self.mean) * signs - self.mean) / self.std


class PairNetwork(nn.Module):
    """f(Phi, theta) = o(silu(h(Phi) + g(theta))), averaged over a symmetry group.

    Rebuild with a shape and `load_state_dict`.
    """

    def __init__(self, shape: PairShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.group = SymmetryGroup(shape.group, shape.feature_dim, shape.parameter_dim)
        self.images = _Images(shape)
        width = shape.hidden
        with seeded(seed):
            self.of_event = LayeredNetwork(shape.feature_dim, width, shape.layers, width)
            self.of_theta = LayeredNetwork(shape.parameter_dim, width, 1, width)
            self.head = LayeredNetwork(width, width, shape.head_layers, 1)
            for tower in (self.of_event, self.of_theta):  # of order one, other than the head's
                tower.last.reset_parameters()

    def fill(self, theta: Array, group: SymmetryGroup) -> Self:
        """Take the scale of training thetas (N, p), physical units, and the symmetries."""
        self.group.load_state_dict(group.state_dict())
        self.images.mean.copy_(torch.from_numpy(theta.mean(axis=0)))
        self.images.std.copy_(torch.from_numpy(theta.std(axis=0)))
        return self

    def encode(self, features: Tensor) -> Tensor:
        """Return h of every image, (N, F) -> (N, G E)."""
        turned = features[:, None] * self.group.feature_signs.to(features)
        return self.of_event(turned).flatten(1)

    def encode_in_turn(self, features: Tensor) -> Tensor:
        """Return h of events turned by element i mod G, (N, F) -> (N, E)."""
        element = self.group.in_turn(len(features))
        return self.of_event(features * self.group.feature_signs.to(features)[element])

    def log_ratio(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return f, leading dimensions broadcast, (..., G E), (..., p) -> (...)."""
        turned = self.images.turned(theta.unsqueeze(-2), self.group.parameter_signs)
        values = self._of_pairs(encoded.unflatten(-1, (self.group.order, -1)), turned)
        return values.mean(dim=-1)

    def log_ratio_in_turn(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return f of events encoded in turn, (N, E), (N, K, p) -> (N, K), thetas turned alike."""
        signs = self.group.parameter_signs[self.group.in_turn(len(encoded))]
        return self._of_pairs(encoded[:, None], self.images.turned(theta, signs[:, None]))

    def _of_pairs(self, encoded: Tensor, theta: Tensor) -> LogProbs:
        return self.head(nn.functional.silu(encoded + self.of_theta(theta)))[..., 0]


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
