r"""A network of pairs (x, theta): one number each, cheap at many thetas of the same event.

    f = o(silu(h(Phi(x)) + g(theta)))

h reads features of an event, g reads theta, both once; only the small head o is evaluated for
pairs.  Nothing about the dependence on theta is built in.

Symmetries: f is averaged over the group.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from mflow_sbi.densities.networks import LayeredNetwork
from mflow_sbi.densities.symmetries import SymmetryGroup
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Array, LogProbs, Parameters

__all__ = ["PairNetwork", "PairShape"]


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
