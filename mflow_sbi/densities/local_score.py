r"""A network of the joint score at one point, t(x) = E[grad log p(x, z|theta_0) | x].

The sufficient statistics of theta near theta_0 are as many numbers as parameters.  Symmetries: of
Phi(g x) = s_g Phi(x) and (g theta)_j = t_gj theta_j follows t_j(g x) = t_gj t_j(x) where
g theta_0 = theta_0; the network is averaged so that this holds exactly.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from mflow_sbi.densities.event_mixture import EventMixture
from mflow_sbi.densities.networks import LayeredNetwork
from mflow_sbi.densities.symmetries import SymmetryGroup
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Array

__all__ = ["ScoreNetwork", "ScoreShape", "ScoreTarget"]


class ScoreShape(NamedTuple):
    """Sizes that rebuild a network of scores.

    Args:
        feature_dim: F.
        parameter_dim: p.
        group: elements of the symmetry group.
        hidden: width of all layers.
        layers: hidden layers.
    """

    feature_dim: int
    parameter_dim: int
    group: int
    hidden: int
    layers: int


class ScoreTarget(Float64Buffers):
    """What makes regression targets of components over q, and the size of scores.

        u = c . weights = p(x, z|theta_0) / q(x, z),   u t / scale = c . slopes

    Args:
        n_components: K.
        parameter_dim: p.
    """

    weights: Tensor
    slopes: Tensor
    scale: Tensor

    def __init__(self, n_components: int, parameter_dim: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(parameter_dim, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(n_components, dtype=torch.float64))
        slopes = torch.zeros(n_components, parameter_dim, dtype=torch.float64)
        self.register_buffer("slopes", slopes)

    def fill(self, mixture: EventMixture, reference: Array) -> Self:
        """Take theta_0 (p,), and scales from the joint scores of p(x, z|theta_0), (p,)."""
        ratio = (mixture.components @ mixture.weights_at(reference)).clip(1e-12)
        slopes = mixture.slopes_at(reference)
        scores = mixture.components @ slopes / ratio[:, None]
        scale = (ratio @ scores**2 / ratio.sum()) ** 0.5
        scale[scale == 0] = 1.0
        self.weights.copy_(torch.from_numpy(mixture.weights_at(reference)))
        self.slopes.copy_(torch.from_numpy(slopes / scale))
        self.scale.copy_(torch.from_numpy(scale))
        return self

    def of(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and t / scale, (N, K) -> (N,), (N, p); t is taken as bounded where u is 0."""
        exact = components.double()
        ratio = (exact @ self.weights).clamp_min(1e-12)
        return ratio, (exact @ self.slopes) / ratio[:, None]


class ScoreNetwork(nn.Module):
    """t(Phi) / scale, averaged over a symmetry group, (N, F) -> (N, p).

    Rebuild with a shape and `load_state_dict`.
    """

    def __init__(self, shape: ScoreShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.group = SymmetryGroup(shape.group, shape.feature_dim, shape.parameter_dim)
        with seeded(seed):
            self.network = LayeredNetwork(
                shape.feature_dim, shape.hidden, shape.layers, shape.parameter_dim
            )

    def fill(self, group: SymmetryGroup) -> Self:
        """Take the symmetries."""
        self.group.load_state_dict(group.state_dict())
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return the average over the images, each turned back."""
        turned = features[:, None] * self.group.feature_signs.to(features)
        scores = self.network(turned)
        return (scores * self.group.parameter_signs.to(scores)).mean(dim=1)

    def in_turn(self, features: Tensor) -> Tensor:
        """Return the score of image i mod G, turned back: augmentation at the price of one."""
        element = self.group.in_turn(len(features))
        scores = self.network(features * self.group.feature_signs.to(features)[element])
        return scores * self.group.parameter_signs.to(scores)[element]
