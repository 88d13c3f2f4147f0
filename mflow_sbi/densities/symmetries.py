r"""Symmetries p(g x|g theta) = p(x|theta) as signs: features and parameters even or odd under g.

Features are chosen such that every symmetry multiplies each of them by +1 or -1.  A group of
commuting reflections is then a table of signs,

    Phi(g x) = s_g Phi(x),   (g theta)_j = t_gj theta_j,   g = 1 ... G, the identity first.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Array

__all__ = ["Reflection", "SymmetryGroup"]


class Reflection(NamedTuple):
    """One symmetry: signs of the features (F,) and of the parameters (p,)."""

    features: Array
    parameters: Array


class SymmetryGroup(Float64Buffers):
    """The group that some reflections generate, as signs of features (G, F), parameters (G, p).

    >>> group = SymmetryGroup.generated_by([Reflection([1, -1], [-1.0])], 2, 1)
    >>> group.feature_signs.tolist(), group.parameter_signs.tolist()
    ([[1.0, 1.0], [1.0, -1.0]], [[1.0], [-1.0]])
    """

    feature_signs: Tensor
    parameter_signs: Tensor

    def __init__(self, order: int, feature_dim: int, parameter_dim: int) -> None:
        super().__init__()
        ones = torch.ones(order, 1, dtype=torch.float64)
        self.register_buffer("feature_signs", ones.repeat(1, feature_dim))
        self.register_buffer("parameter_signs", ones.repeat(1, parameter_dim))

    @classmethod
    def generated_by(
        cls, reflections: Sequence[Reflection], feature_dim: int, parameter_dim: int
    ) -> Self:
        """Return all products of the reflections; the identity alone without any."""
        rows = []
        for chosen in product((False, True), repeat=len(reflections)):
            signs = np.ones(feature_dim + parameter_dim)
            for taken, one in zip(chosen, reflections, strict=True):
                signs = signs * (np.concatenate([*one]) if taken else 1.0)
            rows.append(signs)
        table = torch.from_numpy(np.stack(rows))
        group = cls(len(table), feature_dim, parameter_dim)
        group.feature_signs.copy_(table[:, :feature_dim])
        group.parameter_signs.copy_(table[:, feature_dim:])
        return group

    @property
    def order(self) -> int:
        """Number of elements, G."""
        return len(self.feature_signs)

    @property
    def odd_features(self) -> Tensor:
        """Whether a feature changes sign under some element, (F,) bool."""
        return (self.feature_signs < 0).any(dim=0)

    def in_turn(self, n: int) -> Tensor:
        """Return the element of each of n rows, i mod G, (n,)."""
        return torch.arange(n, device=self.feature_signs.device) % self.order
