"""Linear and affine maps of all features at once."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mflow_sbi.errors import ChartError
from mflow_sbi.transforms.base import Transform

__all__ = ["AffineWhitening", "PermutedLULinear"]


class PermutedLULinear(Transform):
    """y = L U P x + b with unit lower L, upper U of positive diagonal, fixed permutation P.

    The permutation is folded into the matrix; log|det| = sum log diag U.  Starts at y = P x.
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

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        diagonal = functional.softplus(self.unnormalised_diagonal)
        unit = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        lower = torch.tril(self.triangles, diagonal=-1) + unit
        upper = torch.triu(self.triangles, diagonal=1) + unit * diagonal
        return lower, upper, diagonal

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L U P x + b and its constant log|det|."""
        lower, upper, diagonal = self._factors()
        weight = (lower @ upper).index_select(1, self.inverse_permutation)
        log_det = torch.log(diagonal).sum()
        return inputs @ weight.T + self.bias, log_det.expand(inputs.shape[:-1])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return P^T U^-1 L^-1 (y - b) and its constant log|det|."""
        lower, upper, diagonal = self._factors()
        unit = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        solved = torch.linalg.solve_triangular(lower, unit, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, solved, upper=True)
        weight = inverse.index_select(0, self.inverse_permutation)
        log_det = -torch.log(diagonal).sum()
        return (inputs - self.bias) @ weight.T, log_det.expand(inputs.shape[:-1])


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

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L^-1 (x - m) and its constant log|det|."""
        log_det = -torch.log(torch.diagonal(self.lower)).sum()
        image = (inputs - self.mean) @ self.inverse_lower.T
        return image, log_det.expand(inputs.shape[:-1])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return L y + m and its constant log|det|."""
        log_det = torch.log(torch.diagonal(self.lower)).sum()
        return inputs @ self.lower.T + self.mean, log_det.expand(inputs.shape[:-1])
