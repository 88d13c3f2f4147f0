r"""Monotone rational-quadratic splines with linear tails, elementwise and without masks.

On bin k with left knot (x_k, y_k), width w, height h, slope s = h/w and knot derivatives d, d':

    xi = (x - x_k) / w
    y  = y_k + h (s xi^2 + d xi (1 - xi)) / (s + (d + d' - 2 s) xi (1 - xi))

Outside [-B, B] the map is the identity.  Inputs are clamped into the box before the bin search
and the tails chosen by `torch.where`, so that no shape depends on data: `vmap`, `jvp` and
`torch.compile` go through.  Bins run along the first axis, so that every operation runs over
contiguous events.  Parameterisation as in nflows (widths, heights by softmax with a
floor; interior derivatives by softplus with a floor; unit derivatives at the edges).

References:
    Neural spline flows (Durkan et al., 2019), arXiv:1906.04032, eqs. 4-8.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IDENTITY_DERIVATIVE", "Knots", "build_knots", "rational_quadratic_spline"]

MIN_BIN_WIDTH = 1e-3
MIN_BIN_HEIGHT = 1e-3
MIN_DERIVATIVE = 1e-3
IDENTITY_DERIVATIVE = math.log(math.expm1(1.0 - MIN_DERIVATIVE))
"""Unnormalised derivative whose softplus (plus floor) is 1."""


class Knots(NamedTuple):
    """Knot positions (K+1, ...), values (K+1, ...) and derivatives (K+1, ...)."""

    x: Tensor
    y: Tensor
    derivative: Tensor


def _cumulative(unnormalised: Tensor, floor: float, bound: float) -> Tensor:
    n_bins = unnormalised.shape[0]
    shares = floor + (1.0 - floor * n_bins) * torch.softmax(unnormalised, dim=0)
    inner = bound * (2.0 * torch.cumsum(shares[:-1], dim=0) - 1.0)
    edge = torch.full_like(unnormalised[:1], bound)
    return torch.cat([-edge, inner, edge], dim=0)


def build_knots(widths: Tensor, heights: Tensor, derivatives: Tensor, bound: float) -> Knots:
    """Return the knots of raw widths (K, ...), heights (K, ...) and derivatives (K-1, ...)."""
    inner = MIN_DERIVATIVE + functional.softplus(derivatives)
    one = torch.ones_like(widths[:1])
    return Knots(
        _cumulative(widths, MIN_BIN_WIDTH, bound),
        _cumulative(heights, MIN_BIN_HEIGHT, bound),
        torch.cat([one, inner, one], dim=0),
    )


def _bin_edges(knots: Knots, locations: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Return (x_k, w, y_k, h, d, d') of the bin in which `value` lies among `locations`."""
    index = (value >= locations[1:-1]).sum(dim=0, keepdim=True)
    both = torch.cat([index, index + 1], dim=0)
    x_left, x_right = torch.gather(knots.x, 0, both)
    y_left, y_right = torch.gather(knots.y, 0, both)
    d, d_next = torch.gather(knots.derivative, 0, both)
    return x_left, x_right - x_left, y_left, y_right - y_left, d, d_next


def _log_slope(slope: Tensor, d: Tensor, d_next: Tensor, xi: Tensor) -> Tensor:
    """Return log dy/dx at the relative position xi of the bin."""
    left = 1.0 - xi
    across = xi * left
    numerator = slope.square() * (d_next * xi.square() + 2.0 * slope * across + d * left.square())
    denominator = slope + (d + d_next - 2.0 * slope) * across
    return torch.log(numerator) - 2.0 * torch.log(denominator)


def rational_quadratic_spline(x: Tensor, knots: Knots, bound: float) -> tuple[Tensor, Tensor]:
    """Return the spline's value and log slope at x, (...,) -> ((...,), (...,))."""
    inside = x.clamp(-bound, bound)
    x_left, width, y_left, height, d, d_next = _bin_edges(knots, knots.x, inside)
    slope = height / width
    xi = (inside - x_left) / width
    across = xi * (1.0 - xi)
    y = y_left + height * (slope * xi.square() + d * across) / (
        slope + (d + d_next - 2.0 * slope) * across
    )
    in_box = x.abs() <= bound
    log_slope = _log_slope(slope, d, d_next, xi)
    return torch.where(in_box, y, x), torch.where(in_box, log_slope, torch.zeros_like(x))


def inverse_rational_quadratic_spline(
    y: Tensor, knots: Knots, bound: float
) -> tuple[Tensor, Tensor]:
    """Return x with spline(x) = y and log dx/dy, by the stable root of the bin's quadratic."""
    inside = y.clamp(-bound, bound)
    x_left, width, y_left, height, d, d_next = _bin_edges(knots, knots.y, inside)
    slope = height / width
    above = inside - y_left
    bend = above * (d + d_next - 2.0 * slope)
    a = height * (slope - d) + bend
    b = height * d - bend
    c = -slope * above
    discriminant = (b.square() - 4.0 * a * c).clamp_min(0.0)
    xi = 2.0 * c / (-b - torch.sqrt(discriminant))
    in_box = y.abs() <= bound
    log_slope = -_log_slope(slope, d, d_next, xi)
    x = x_left + xi * width
    return torch.where(in_box, x, y), torch.where(in_box, log_slope, torch.zeros_like(y))
