"""Linear and affine maps of all features at once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mflow_sbi.errors import ChartError
from mflow_sbi.transforms.base import Transform
from mflow_sbi.transforms.elementwise import linear_columns

__all__ = ["AffineWhitening", "PermutedLULinear"]


class _Matrices(NamedTuple):
    """W = L U P, its inverse, and log|det W|."""

    weight: Tensor
    inverse: Tensor
    log_det: Tensor


class _Kept(NamedTuple):
    """Matrices kept for evaluation and the parameters' values they were made from.

    Values are compared, not torch's version counters: fused optimisers do not raise those.
    """

    values: tuple[Tensor, ...]
    matrices: _Matrices

    def belongs_to(self, parameters: tuple[Tensor, ...]) -> bool:
        """Whether the parameters still have these values, dtype and device."""
        return all(
            mine.dtype == yours.dtype and mine.device == yours.device and torch.equal(mine, yours)
            for mine, yours in zip(self.values, parameters, strict=True)
        )


class PermutedLULinear(Transform):
    """y = L U P x + b with unit lower L, upper U of positive diagonal, fixed permutation P.

    The permutation is folded into the matrix; log|det| = sum log diag U.  Starts at y = P x.
    At evaluation (no gradient asked of the parameters) the matrix and its inverse are kept until
    a parameter changes.
    """

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(self, permutation: Tensor) -> None:
        super().__init__()
        features = len(permutation)
        self.register_buffer("permutation", permutation.clone())
        self.register_buffer("inverse_permutation", torch.argsort(permutation))
        self.triangles = nn.Parameter(torch.zeros(features, features))
        self.unnormalised_diagonal = nn.Parameter(
            torch.full((features,), math.log(math.expm1(1.0)))
        )
        self.bias = nn.Parameter(torch.zeros(features))
        self._kept: _Kept | None = None

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        diagonal = functional.softplus(self.unnormalised_diagonal)
        unit = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        lower = torch.tril(self.triangles, diagonal=-1) + unit
        upper = torch.triu(self.triangles, diagonal=1) + unit * diagonal
        return lower, upper, diagonal

    def _weight(self) -> tuple[Tensor, Tensor]:
        """Return W and log|det W|."""
        lower, upper, diagonal = self._factors()
        weight = (lower @ upper).index_select(1, self.inverse_permutation)
        return weight, torch.log(diagonal).sum()

    def _inverse_weight(self) -> tuple[Tensor, Tensor]:
        """Return W^-1 and log|det W^-1|."""
        lower, upper, diagonal = self._factors()
        unit = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        solved = torch.linalg.solve_triangular(lower, unit, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, solved, upper=True)
        return inverse.index_select(0, self.inverse_permutation), -torch.log(diagonal).sum()

    def _keeps(self) -> bool:
        """Whether nobody can ask for the parameters' gradient, trace or transform them."""
        parameters = (self.triangles, self.unnormalised_diagonal)
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return False
        plain = all(type(parameter) is nn.Parameter for parameter in parameters)
        asked = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        return plain and not asked

    def _matrices(self) -> _Matrices:
        """Return the kept matrices, made anew where a parameter has changed."""
        parameters = (self.triangles, self.unnormalised_diagonal)
        if self._kept is None or not self._kept.belongs_to(parameters):
            weight, log_det = self._weight()
            matrices = _Matrices(weight, self._inverse_weight()[0], log_det)
            self._kept = _Kept(tuple(p.detach().clone() for p in parameters), matrices)
        return self._kept.matrices

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}

    def push(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L U P x + b and its constant log|det|."""
        if self._keeps():
            weight, _, log_det = self._matrices()
        else:
            weight, log_det = self._weight()
        return linear_columns(weight, x, self.bias), log_det

    def _pulling(self) -> tuple[Tensor, Tensor]:
        if self._keeps():
            _, inverse, log_det = self._matrices()
            return inverse, -log_det
        return self._inverse_weight()

    def pull(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return P^T U^-1 L^-1 (y - b) and its constant log|det|."""
        inverse, log_det = self._pulling()
        return linear_columns(inverse, y, -(inverse @ self.bias)), log_det

    def pull_tangents(
        self, y: Tensor, tangents: Sequence[Tensor], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the preimage, its constant log|det| and W^-1 along the tangents."""
        inverse, log_det = self._pulling()
        image = linear_columns(inverse, y, -(inverse @ self.bias))
        return image, log_det, [linear_columns(inverse, block) for block in tangents]


class AffineWhitening(Transform):
    """y = W (x - m): a fixed affine map fitted to data so that y has unit covariance.

    W is the inverse Cholesky factor of the sample covariance; log|det| = sum log diag W.
    Identity until `fit` is called.
    """

    mean: Tensor
    lower: Tensor
    inverse_lower: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("lower", torch.eye(features))
        self.register_buffer("inverse_lower", torch.eye(features))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Fit mean and Cholesky factor (float64 inside) to x, (N, d).

        Raises:
            ChartError: the numbers do not vary in all d directions.
        """
        centred = x.double() - x.double().mean(dim=0)
        covariance = centred.T @ centred / len(x)
        lower, info = torch.linalg.cholesky_ex(covariance)
        if int(info) != 0 or not bool(torch.isfinite(lower).all()):
            message = (
                f"the {x.shape[1]} latents of {len(x)} events do not vary in all directions; "
                "lower latent_dim, or train the chart on more events"
            )
            raise ChartError(message)
        unit = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        self.mean.copy_(x.double().mean(dim=0))
        self.lower.copy_(lower)
        self.inverse_lower.copy_(torch.linalg.solve_triangular(lower, unit, upper=False))

    def _centre(self, batch_dims: int) -> Tensor:
        return self.mean.reshape(-1, *[1] * batch_dims)

    def push(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L^-1 (x - m) and its constant log|det|."""
        log_det = -torch.log(torch.diagonal(self.lower)).sum()
        return linear_columns(self.inverse_lower, x - self._centre(x.dim() - 1)), log_det

    def pull(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L y + m and its constant log|det|."""
        log_det = torch.log(torch.diagonal(self.lower)).sum()
        return linear_columns(self.lower, y, self.mean), log_det

    def pull_tangents(
        self, y: Tensor, tangents: Sequence[Tensor], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the preimage, its constant log|det| and L along the tangents."""
        image, log_det = self.pull(y)
        return image, log_det, [linear_columns(self.lower, block) for block in tangents]
