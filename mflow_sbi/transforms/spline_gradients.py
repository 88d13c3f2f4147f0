r"""Derivatives of inverse rational-quadratic splines by all raw parameters, written out.

Tangents need dx/dp for every parameter p of the spline.  Written out, everything happens on the
numbers of one bin and reaches the parameters in a few dense operations.  With y = g(x; p) and the
notation of `splines`: dx/dy = 1/g', dx/dp = -g_p / g', where

    g_{x_k} = -g',  g_w = -xi g' - (s/w) h R_s,  g_{y_k} = 1,  g_h = R + (1/w) h R_s,
    g_d = h R_d,    g_{d'} = h R_d',
    R_s = (xi^2 - R (1 - 2a)) / D,  R_d = a (1 - R) / D,  R_d' = -a R / D.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mflow_sbi.transforms.splines import (
    MIN_BIN_SHARE,
    Bin,
    Shape,
    Spline,
    evaluate_inverse,
)

__all__ = ["InverseSlopes", "inverse_spline_slopes"]


class _Cotangents(NamedTuple):
    """Of the numbers of a bin: left knot (2, F), size (2, F), derivatives (2, F)."""

    left: Tensor
    size: Tensor
    derivatives: Tensor


def _bin_cotangents(found: Bin, xi: Tensor, shape: Shape, by_y: Tensor) -> _Cotangents:
    """Return the cotangents of the bin's numbers from that of y, (F,)."""
    slope, ratio, denominator, derivative = shape
    width, height = found.size
    across = xi * (1.0 - xi)
    scaled = by_y * height / denominator
    by_slope = scaled * (xi.square() - ratio * (1.0 - 2.0 * across)) / width
    by_x = by_y * derivative
    common = scaled * across
    return _Cotangents(
        torch.stack([-by_x, by_y]),
        torch.stack([-xi * by_x - slope * by_slope, by_y * ratio + by_slope]),
        torch.stack([common * (1.0 - ratio), -common * ratio]),
    )


def _by_parameters(
    shares: Tensor, bound: float, found: Bin, by: _Cotangents
) -> tuple[Tensor, Tensor]:
    """Return the cotangents of logits (2, K, F) and raw derivatives (K-1, F).

    A share s_j moves the left knot if bin j lies below the bin, its size if it is the bin; the
    softmax takes off the share-weighted mean, which only the left knot and the size make up.
    """
    n_bins = shares.shape[1]
    reach = 2.0 * bound
    steps = torch.arange(n_bins + 1, dtype=shares.dtype, device=shares.device)
    position = found.position.to(shares.dtype)
    up_to = (position + 1.0 - steps[:, None]).clamp(0.0, 1.0)  # 1 for bins up to the bin
    below_left = found.left + bound - reach * MIN_BIN_SHARE * position
    mean = by.left * below_left + by.size * (found.size - reach * MIN_BIN_SHARE)
    factor = reach * (1.0 - MIN_BIN_SHARE * n_bins)
    at_bin, below = (factor * by.size)[:, None], (factor * (by.left - by.size))[:, None]
    by_share = torch.addcmul(-mean[:, None], up_to[:-1], at_bin)
    by_logits = shares * torch.addcmul(by_share, up_to[1:], below)
    by_raw = by.derivatives * torch.sigmoid(found.raw_derivatives)
    only = up_to[:-1] - up_to[1:]  # 1 for the bin itself
    return by_logits, torch.addcmul(only[1:] * by_raw[0], only[:-1], by_raw[1])


class InverseSlopes(NamedTuple):
    """x (F,), log dx/dy (F,), dx/dy (F,), dx/dlogits (2, K, F), dx/d raw derivatives (K-1, F)."""

    x: Tensor
    log_slope: Tensor
    by_y: Tensor
    by_logits: Tensor
    by_derivatives: Tensor


def inverse_spline_slopes(y: Tensor, spline: Spline) -> InverseSlopes:
    """Return the inverse splines at y (F,) and their derivatives by y and all raw parameters.

    dx/dy = 1/g', dx/dp = -g_p / g'; of ordinary operations, so that they can be differentiated.
    """
    at = evaluate_inverse(y, spline)
    by_y = torch.where(at.in_box, at.shape.derivative.reciprocal(), 1.0)
    by = _bin_cotangents(at.found, at.xi, at.shape, torch.where(at.in_box, -by_y, 0.0))
    by_logits, by_raw = _by_parameters(spline.shares, spline.bound, at.found, by)
    return InverseSlopes(at.image, at.log_slope, by_y, by_logits, by_raw)
