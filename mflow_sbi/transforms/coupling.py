"""Coupling layers: half of the features set the map of the other half."""

import math
from typing import Protocol

import torch
from torch import Tensor

from mflow_sbi.transforms.base import Transform
from mflow_sbi.transforms.conditioners import ResidualConditioner
from mflow_sbi.transforms.splines import (
    IDENTITY_DERIVATIVE,
    Knots,
    build_knots,
    inverse_rational_quadratic_spline,
    rational_quadratic_spline,
)

__all__ = ["AffineMap", "Coupling", "ElementwiseMap", "SplineMap"]


class ElementwiseMap(Protocol):
    """A monotone map of one number with `n_parameters` free parameters."""

    @property
    def n_parameters(self) -> int:
        """Parameters per transformed feature."""
        ...

    def identity_bias(self) -> Tensor:
        """Return the parameters (n_parameters,) that make the map the identity."""
        ...

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log dy/dx; x (f, N), parameters (n_parameters, f, N)."""
        ...

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and log dx/dy."""
        ...


class SplineMap:
    """Rational-quadratic spline with `bins` bins on [-bound, bound] and linear tails."""

    def __init__(self, bins: int, bound: float, hidden: int) -> None:
        self.bins = bins
        self.bound = bound
        self.scale = 1.0 / math.sqrt(hidden)

    @property
    def n_parameters(self) -> int:
        """K widths, K heights, K - 1 interior derivatives."""
        return 3 * self.bins - 1

    def identity_bias(self) -> Tensor:
        """Return zeros for widths and heights, unit derivatives."""
        bias = torch.zeros(self.n_parameters)
        bias[2 * self.bins :] = IDENTITY_DERIVATIVE
        return bias

    def _knots(self, parameters: Tensor) -> Knots:
        widths, heights, derivatives = torch.split(
            parameters, [self.bins, self.bins, self.bins - 1], dim=0
        )
        return build_knots(widths * self.scale, heights * self.scale, derivatives, self.bound)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spline of x and its log slope."""
        return rational_quadratic_spline(x, self._knots(parameters), self.bound)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse spline of y and its log slope."""
        return inverse_rational_quadratic_spline(y, self._knots(parameters), self.bound)


class AffineMap:
    """y = exp(s) x + t with |s| kept below 2 by s = 2 tanh(a / 2)."""

    @property
    def n_parameters(self) -> int:
        """Log scale and shift."""
        return 2

    def identity_bias(self) -> Tensor:
        """Return zero log scale and zero shift."""
        return torch.zeros(2)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(s) x + t and s."""
        log_scale = 2.0 * torch.tanh(0.5 * parameters[0])
        return torch.exp(log_scale) * x + parameters[1], log_scale

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(-s) (y - t) and -s."""
        log_scale = 2.0 * torch.tanh(0.5 * parameters[0])
        return torch.exp(-log_scale) * (y - parameters[1]), -log_scale


class Coupling(Transform):
    """y_a = x_a, y_b = m(x_b; net(x_a, context)): the first n_identity features set the others.

    log|det| = sum log m'.  Starts at the identity.
    """

    def __init__(
        self,
        features: int,
        n_identity: int,
        elementwise: ElementwiseMap,
        *,
        context_dim: int,
        hidden: int,
        blocks: int,
    ) -> None:
        super().__init__()
        self.n_identity = n_identity
        self.n_transformed = features - n_identity
        self.elementwise = elementwise
        self.conditioner = ResidualConditioner(
            n_identity,
            self.n_transformed * elementwise.n_parameters,
            context_dim=context_dim,
            hidden=hidden,
            blocks=blocks,
        )
        with torch.no_grad():
            bias = elementwise.identity_bias().repeat_interleave(self.n_transformed)
            self.conditioner.last.bias.copy_(bias)

    def _map_parameters(self, identity: Tensor, context: Tensor | None) -> Tensor:
        """Return the parameters of the elementwise map, (n_parameters, f, N)."""
        flat = self.conditioner(identity, context)
        return flat.unflatten(0, (self.elementwise.n_parameters, self.n_transformed))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image and log|det|, (N, d) -> ((N, d), (N,))."""
        identity, rest = inputs.tensor_split([self.n_identity], dim=-1)
        parameters = self._map_parameters(identity, context)
        image, log_slope = self.elementwise.forward(rest.T, parameters)
        return torch.cat([identity, image.T], dim=-1), log_slope.sum(dim=0)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the preimage and log|det|, (N, d) -> ((N, d), (N,))."""
        identity, rest = inputs.tensor_split([self.n_identity], dim=-1)
        parameters = self._map_parameters(identity, context)
        preimage, log_slope = self.elementwise.inverse(rest.T, parameters)
        return torch.cat([identity, preimage.T], dim=-1), log_slope.sum(dim=0)
