r"""Distances between two samples whose densities nobody knows; the door to geomloss.

Sinkhorn divergence of samples x (N, k), y (M, k) with weights 1 / N, 1 / M, or others >= 0:

    S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2,
    OT(x, y) = min_pi sum_ij pi_ij |x_i - y_j|^2 / 2 + b^2 KL(pi | 1 / N x 1 / M)

Couplings pi have the samples' weights as marginals.  S >= 0, and S = 0 for equal samples; b -> 0
gives half the squared Wasserstein distance, b -> inf half the squared distance of the means.

geomloss is an optional library: pip install "mflow_sbi[transport]".

References:
    Interpolating between optimal transport and MMD using Sinkhorn divergences (Feydy et al.,
    2018), arXiv:1810.08278.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mflow_sbi.errors import ConfigurationError

__all__ = ["sinkhorn_divergence"]


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    *,
    blur: float = 0.05,
    scaling: float = 0.7,
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return S(x, y), a differentiable scalar; N M numbers of memory.

    Args:
        x: one sample, (N, k).
        y: the other, (M, k).
        blur: b, in units of x; details below it do not count.
        scaling: b is lowered from the diameter of the samples in steps of this factor, in (0, 1):
            nearer to 1 is slower and more accurate.
        weights: of the samples, >= 0, (N,) and (M,), each of sum one; equal if left out.

    Raises:
        ConfigurationError: geomloss is not installed.
    """
    samples = (x, y) if weights is None else (weights[0], x, weights[1], y)
    asked = torch.is_grad_enabled()
    with torch.set_grad_enabled(asked):  # geomloss turns gradients on and leaves them so
        value = _loss(blur, scaling)(*samples)
    return value if asked else value.detach()


@cache
def _loss(blur: float, scaling: float) -> Any:  # noqa: ANN401
    """Return geomloss's divergence of these settings."""
    try:
        geomloss = import_module("geomloss")
    except ImportError as error:
        message = (
            "schedules of optimal transport need the library geomloss, which is not installed; "
            'pip install "mflow_sbi[transport]"'
        )
        raise ConfigurationError(message) from error
    settings = {"p": 2, "blur": blur, "scaling": scaling, "backend": "tensorized"}
    return geomloss.SamplesLoss("sinkhorn", **settings)
