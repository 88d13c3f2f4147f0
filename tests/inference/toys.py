"""Toy likelihoods and surrogates with known posteriors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis

NAMES = ("CWL2", "CPWL2")
QUADRATIC = MorphingBasis(np.array([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]))


class NormalLikelihood:
    """log L = -1/2 (theta - m)^T C^-1 (theta - m)."""

    def __init__(self, mean: Sequence[float], covariance: Array) -> None:
        self.parameter_names = NAMES[: len(mean)]
        self.n_events = 1
        self.mean = np.asarray(mean, dtype=np.float64)
        self.precision = np.linalg.inv(covariance)

    def __call__(self, theta: Array) -> Array:
        away = theta - self.mean
        return -0.5 * np.einsum("mi,ij,mj->m", away, self.precision, away)


class LinearSurrogate:
    """u = x / 10 in R^4 and u | theta ~ N(A theta, 1), with a training range of [-2, 2]."""

    parameter_names = NAMES
    parameter_ranges = np.array([[-2.0, 2.0], [-2.0, 2.0]])

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.slope = torch.tensor([[1, 0], [0, 1], [1, 1], [1, -1]], dtype=dtype)
        self.encoded = 0
        self.largest_batch = 0
        self.theta_rows = 0

    def encode(self, x: Array) -> Tensor:
        self.encoded += 1
        return torch.as_tensor(x, dtype=self.slope.dtype) / 10

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        values = -0.5 * (u - theta @ self.slope.T).square().sum(dim=-1)
        self.largest_batch = max(self.largest_batch, values.numel())
        self.theta_rows += theta[..., 0].numel()
        return values


class CurvedSurrogate(LinearSurrogate):
    """u = x / 10 and u_k | theta ~ N(sin(A theta)_k, exp(-theta_0 theta_1 / 2)^2)."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        log_precision = 0.5 * theta[..., 0] * theta[..., 1]
        away = (u - torch.sin(theta @ self.slope.T)) * torch.exp(log_precision)[..., None]
        return -0.5 * away.square().sum(dim=-1) + 4 * log_precision


class BrokenSurrogate(LinearSurrogate):
    """NaN for CWL2 > 1, -inf for CWL2 < -1."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        values = super().latent_log_likelihood(u, theta)
        values = torch.where(theta[..., 0] > 1, torch.nan, values)
        return torch.where(theta[..., 0] < -1, -torch.inf, values)


class PairedSurrogate(LinearSurrogate):
    """Knows rows of (u, theta) only, and does not broadcast."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        return super().latent_log_likelihood(u, theta.flatten(0, -2)[: len(u)])
