r"""Monotone rational-quadratic splines with linear tails, elementwise and without masks.

On bin k with left knot (x_k, y_k), width w, height h, slope s = h/w and knot derivatives d, d':

    xi = (x - x_k) / w,   a = xi (1 - xi),   D = s + (d + d' - 2 s) a
    y  = y_k + h R,       R = (s xi^2 + d a) / D

Outside [-B, B] the map is the identity.  Inputs are clamped into the box before the bin search
and the tails chosen by `torch.where`, so that no shape depends on data: `vmap`, `jvp` and
`torch.compile` go through.  Bins run along the first axis, so that every operation runs over
contiguous events.  Knots are one matrix product of the bins' shares; everything after the bin
search works on the numbers of one bin.  Parameterisation as in nflows (widths and heights by
softmax with a floor; interior derivatives by softplus with a floor; unit derivatives at the
edges).

References:
    Neural spline flows (Durkan et al., 2019), arXiv:1906.04032, eqs. 4-8.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "IDENTITY_DERIVATIVE",
    "MIN_BIN_SHARE",
    "Bin",
    "Evaluation",
    "Shape",
    "Spline",
    "accumulation_matrix",
    "build_spline",
    "evaluate",
    "evaluate_inverse",
    "inverse_rational_quadratic_spline",
    "rational_quadratic_spline",
]

MIN_BIN_SHARE = 1e-3
MIN_DERIVATIVE = 1e-3
IDENTITY_DERIVATIVE = math.log(math.expm1(1.0 - MIN_DERIVATIVE))
"""Unnormalised derivative whose softplus (plus floor) is 1."""


class Spline(NamedTuple):
    """F splines: softmax shares (2, K, F), knots (2, K+1, F), raw derivatives (K+1, F).

    The first axis of shares and knots is (x, y).
    """

    shares: Tensor
    knots: Tensor
    raw_derivatives: Tensor
    bound: float


class Bin(NamedTuple):
    """The bin of each of F numbers: its place (F,), left knot, size and derivatives (2, F)."""

    position: Tensor
    left: Tensor
    size: Tensor
    raw_derivatives: Tensor
    derivatives: Tensor


def accumulation_matrix(bins: int, bound: float) -> Tensor:
    """Return T (K+1, K) float64 with knots = T softmax: -B + 2B sum of floored shares below."""
    below = torch.tril(torch.ones(bins + 1, bins, dtype=torch.float64), diagonal=-1)
    floors = MIN_BIN_SHARE * torch.arange(bins + 1, dtype=torch.float64)[:, None]
    return 2.0 * bound * ((1.0 - MIN_BIN_SHARE * bins) * below + floors - 0.5)


def build_spline(
    logits: Tensor, derivatives: Tensor, accumulation: Tensor, bound: float
) -> Spline:
    """Return F splines from raw widths and heights (2, K, F) and raw derivatives (K-1, F)."""
    shares = torch.softmax(logits, dim=1)
    padded = functional.pad(derivatives, (0, 0, 1, 1), value=IDENTITY_DERIVATIVE)
    return Spline(shares, accumulation @ shares, padded, bound)


def _locate(spline: Spline, value: Tensor, axis: int) -> Bin:
    """Return the bins in which `value` (F,) lies among the knots of one axis."""
    index = (value >= spline.knots[axis, 1:-1]).sum(dim=0, keepdim=True)
    both = index.expand(2, 1, index.shape[-1])
    left = torch.gather(spline.knots, 1, both)[:, 0]
    share = torch.gather(spline.shares, 1, both)[:, 0]
    raw = torch.gather(spline.raw_derivatives, 0, torch.cat([index, index + 1], dim=0))
    n_bins = spline.shares.shape[1]
    reach = 2.0 * spline.bound
    size = share * (reach * (1.0 - MIN_BIN_SHARE * n_bins)) + reach * MIN_BIN_SHARE
    return Bin(index[0], left, size, raw, MIN_DERIVATIVE + functional.softplus(raw))


class Shape(NamedTuple):
    """What the map looks like at a relative position of the bin: s, R, D and dy/dx, (F,) each."""

    slope: Tensor
    ratio: Tensor
    denominator: Tensor
    derivative: Tensor


def _shape_at(found: Bin, xi: Tensor) -> Shape:
    """Return s, R, D and dy/dx at xi, as sums of positive terms: nothing cancels.

    With t = s xi + d (1 - xi) and r = d' xi + s (1 - xi):

    D = xi t + (1 - xi) r,   R = xi t / D,   dy/dx = (s/D)^2 (xi r + (1 - xi) t).
    """
    d, d_next = found.derivatives
    width, height = found.size
    slope = height / width
    rest = 1.0 - xi
    towards_left = torch.addcmul(d * rest, slope, xi)
    towards_right = torch.addcmul(slope * rest, d_next, xi)
    numerator = xi * towards_left
    denominator = torch.addcmul(numerator, rest, towards_right)
    mixed = torch.addcmul(rest * towards_left, xi, towards_right)
    steepness = slope / denominator
    derivative = steepness * steepness * mixed
    return Shape(slope, numerator / denominator, denominator, derivative)


class Evaluation(NamedTuple):
    """Where F numbers fell and what the map looks like there."""

    image: Tensor
    log_slope: Tensor
    found: Bin
    xi: Tensor
    shape: Shape
    in_box: Tensor


def evaluate(x: Tensor, spline: Spline) -> Evaluation:
    """Return the splines at x (F,), with log dy/dx."""
    inside = x.clamp(-spline.bound, spline.bound)
    found = _locate(spline, inside, 0)
    xi = (inside - found.left[0]) / found.size[0]
    shape = _shape_at(found, xi)
    y = found.left[1] + found.size[1] * shape.ratio
    in_box = x.abs() <= spline.bound
    log_slope = torch.where(in_box, torch.log(shape.derivative), 0.0)
    return Evaluation(torch.where(in_box, y, x), log_slope, found, xi, shape, in_box)


def evaluate_inverse(y: Tensor, spline: Spline) -> Evaluation:
    """Return the inverse splines at y (F,), with log dx/dy."""
    inside = y.clamp(-spline.bound, spline.bound)
    found = _locate(spline, inside, 1)
    xi = _relative_position(found, inside)
    shape = _shape_at(found, xi)
    x = found.left[0] + xi * found.size[0]
    in_box = y.abs() <= spline.bound
    log_slope = torch.where(in_box, -torch.log(shape.derivative), 0.0)
    return Evaluation(torch.where(in_box, x, y), log_slope, found, xi, shape, in_box)


def rational_quadratic_spline(x: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """Return the splines' values and log slopes at x, (F,) -> ((F,), (F,))."""
    return evaluate(x, spline)[:2]


def _relative_position(found: Bin, inside: Tensor) -> Tensor:
    """Return xi of y by the stable root of the bin's quadratic, (F,)."""
    d, d_next = found.derivatives
    height = found.size[1]
    slope = height / found.size[0]
    above = inside - found.left[1]
    bend = above * (d + d_next - 2.0 * slope)
    a = height * (slope - d) + bend
    b = height * d - bend
    c = -slope * above
    discriminant = (b.square() - 4.0 * a * c).clamp_min(0.0)
    return 2.0 * c / (-b - torch.sqrt(discriminant))


def inverse_rational_quadratic_spline(y: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """Return x with spline(x) = y and log dx/dy, (F,) -> ((F,), (F,))."""
    return evaluate_inverse(y, spline)[:2]
