"""The nflows `Transform` interface with the types that nflows leaves open."""

from abc import abstractmethod

from nflows.transforms.base import Transform as NflowsTransform
from torch import Tensor

__all__ = ["Transform"]


class Transform(NflowsTransform):
    """An invertible map T of R^d: `forward` is T, `inverse` is T^-1, both with log|det|."""

    @abstractmethod
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return T(x; context) and log|det dT/dx|, (N, d) -> ((N, d), (N,))."""

    @abstractmethod
    def inverse(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return T^-1(y; context) and log|det dT^-1/dy|, (N, d) -> ((N, d), (N,))."""
