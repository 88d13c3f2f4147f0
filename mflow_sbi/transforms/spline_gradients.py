r"""Derivatives of rational-quadratic splines by their raw parameters, written out.

Reverse-mode autodiff of a spline walks back through some sixty small operations and scatters
into arrays of bins.  Written out, everything happens on the numbers of one bin and reaches the
parameters in a few dense operations.  With the notation of `splines`, L = log dy/dx and
q = d' xi^2 + 2 s a + d (1 - xi)^2, so that g' = dy/dx = s^2 q / D^2:

    R_s = (xi^2 - R (1 - 2a)) / D          L_s = 2/s + 2a/q - 2 (1 - 2a) / D
    R_d = a (1 - R) / D                    L_d = (1 - xi)^2 / q - 2a/D
    R_d' = -a R / D                        L_d' = xi^2 / q - 2a/D
    w g' = dy/dxi                          L_xi = 2 (d' xi + s (1 - 2 xi) - d (1 - xi)) / q
                                                  - 2 (d + d' - 2s) (1 - 2 xi) / D

and xi = (x - x_k) / w, s = h / w carry them to the knots.  For the inverse x = g^-1(y; p), with
cotangents c of x and m of log dx/dy: k = (c - m L_x) / g' is the cotangent of y, and parameters
get those of g for cotangents -k of y and -m of L.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mflow_sbi.transforms.splines import (
    MIN_BIN_SHARE,
    Bin,
    Evaluation,
    Shape,
    Spline,
    build_spline,
    evaluate,
    evaluate_inverse,
    shape_at,
)

__all__ = ["InverseSlopes", "inverse_spline_slopes", "pull_spline", "push_spline"]


class _Cotangents(NamedTuple):
    """Of the numbers of a bin: left knot (2, F), size (2, F), derivatives (2, F)."""

    left: Tensor
    size: Tensor
    derivatives: Tensor


def _log_slope_by_xi(found: Bin, xi: Tensor, shape: Shape) -> Tensor:
    """Return L_xi, (F,)."""
    d, d_next = found.derivatives
    slope, denominator = shape.slope, shape.denominator
    tilt = 1.0 - 2.0 * xi
    numerator = d_next * xi + slope * tilt - d * (1.0 - xi)
    bend = (d + d_next - 2.0 * slope) * tilt / denominator
    return 2.0 * (numerator * slope.square() / shape.slope_numerator - bend)


def _bin_cotangents(
    found: Bin, xi: Tensor, shape: Shape, by_y: Tensor, by_log_slope: Tensor | None
) -> _Cotangents:
    """Return the cotangents of the bin's numbers from those of y and of L (none: zero), (F,)."""
    slope, across, ratio, denominator, slope_numerator = shape
    width, height = found.size
    square = xi.square()
    by_xi = by_y * width * slope_numerator / denominator.square()
    scaled = by_y * height / denominator
    by_slope = scaled * (square - ratio * (1.0 - 2.0 * across))
    common = scaled * across
    by_d, by_d_next = common * (1.0 - ratio), -common * ratio
    if by_log_slope is not None:
        by_xi = by_xi + by_log_slope * _log_slope_by_xi(found, xi, shape)
        over_q = by_log_slope * slope.square() / slope_numerator
        over_denominator = 2.0 * by_log_slope / denominator
        away = across * over_denominator
        by_slope = by_slope + (
            2.0 * by_log_slope / slope
            + 2.0 * across * over_q
            - over_denominator * (1.0 - 2.0 * across)
        )
        by_d = by_d + over_q * (1.0 - xi).square() - away
        by_d_next = by_d_next + over_q * square - away
    by_slope = by_slope / width
    by_x = by_xi / width
    return _Cotangents(
        torch.stack([-by_x, by_y]),
        torch.stack([-xi * by_x - slope * by_slope, by_y * ratio + by_slope]),
        torch.stack([by_d, by_d_next]),
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
    by_y = torch.where(at.in_box, at.shape.denominator.square() / at.shape.slope_numerator, 1.0)
    by = _bin_cotangents(at.found, at.xi, at.shape, torch.where(at.in_box, -by_y, 0.0), None)
    by_logits, by_raw = _by_parameters(spline.shares, spline.bound, at.found, by)
    return InverseSlopes(at.image, at.log_slope, by_y, by_logits, by_raw)


def _recorded(logits: Tensor) -> bool:
    """Whether plain reverse mode records here: no tracing, no function transforms."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch.is_grad_enabled() and logits.requires_grad


def push_spline(
    x: Tensor, logits: Tensor, derivatives: Tensor, accumulation: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Return the splines of x (F,) and log dy/dx; parameters as in `build_spline`."""
    if _recorded(logits):
        return _PushedSpline.apply(x, logits, derivatives, accumulation, bound)
    return evaluate(x, build_spline(logits, derivatives, accumulation, bound))[:2]


def pull_spline(
    y: Tensor, logits: Tensor, derivatives: Tensor, accumulation: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Return the inverse splines of y (F,) and log dx/dy; parameters as in `build_spline`."""
    if _recorded(logits):
        return _PulledSpline.apply(y, logits, derivatives, accumulation, bound)
    return evaluate_inverse(y, build_spline(logits, derivatives, accumulation, bound))[:2]


def _keep(
    ctx: Any, inputs: tuple[Tensor, ...], at: Evaluation, shares: Tensor, bound: float
) -> None:  # noqa: ANN401, E501
    ctx.bound = bound
    ctx.save_for_backward(*inputs, shares, *at.found, at.xi, at.in_box)


def _again(ctx: Any, function: Any, by: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    """Return the gradients through ordinary operations: they can be differentiated again."""
    value, logits, derivatives, accumulation = ctx.saved_tensors[:4]
    outputs = function(value, build_spline(logits, derivatives, accumulation, ctx.bound))[:2]
    wanted = [
        tensor
        for tensor, needed in zip((value, logits, derivatives), ctx.needs_input_grad, strict=False)
        if needed
    ]
    found = iter(torch.autograd.grad(outputs, wanted, by, create_graph=True))
    return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None


class _PushedSpline(torch.autograd.Function):
    """`push_spline` with its gradients written out."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        logits: Tensor,
        derivatives: Tensor,
        accumulation: Tensor,
        bound: float,
    ) -> tuple[Tensor, Tensor]:
        spline = build_spline(logits, derivatives, accumulation, bound)
        at = evaluate(x, spline)
        _keep(ctx, (x, logits, derivatives, accumulation), at, spline.shares, bound)
        return at.image, at.log_slope

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        by_image: Tensor,
        by_log_slope: Tensor,
    ) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _again(ctx, evaluate, (by_image, by_log_slope))
        *_, shares, place, left, size, raw, derivatives, xi, in_box = ctx.saved_tensors
        found = Bin(place, left, size, raw, derivatives)
        by = _bin_cotangents(
            found, xi, shape_at(found, xi), by_image * in_box, by_log_slope * in_box
        )
        by_x = torch.where(in_box, -by.left[0], by_image)
        return by_x, *_by_parameters(shares, ctx.bound, found, by), None, None


class _PulledSpline(torch.autograd.Function):
    """`pull_spline` with its gradients written out."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        y: Tensor,
        logits: Tensor,
        derivatives: Tensor,
        accumulation: Tensor,
        bound: float,
    ) -> tuple[Tensor, Tensor]:
        spline = build_spline(logits, derivatives, accumulation, bound)
        at = evaluate_inverse(y, spline)
        _keep(ctx, (y, logits, derivatives, accumulation), at, spline.shares, bound)
        return at.image, at.log_slope

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        by_image: Tensor,
        by_log_slope: Tensor,
    ) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _again(ctx, evaluate_inverse, (by_image, by_log_slope))
        *_, shares, place, left, size, raw, derivatives, xi, in_box = ctx.saved_tensors
        found = Bin(place, left, size, raw, derivatives)
        shape = shape_at(found, xi)
        by_log = by_log_slope * in_box
        along = by_log * _log_slope_by_xi(found, xi, shape) / found.size[0]
        by_y = (by_image - along) * shape.denominator.square() / shape.slope_numerator
        by = _bin_cotangents(found, xi, shape, -by_y * in_box, -by_log)
        by_parameters = _by_parameters(shares, ctx.bound, found, by)
        return torch.where(in_box, by_y, by_image), *by_parameters, None, None
