r"""Monotone maps of one number at a time, as coupling layers need them.

A map reads its parameters off the last layer of the conditioner, W a + b, and can carry tangents
through its inverse without ever forming the tangents of its parameters:

    dx_i = (dx_i/dy_i) dy_i + sum_h G_ih da_h,   G_ih = sum_p (dx_i/dp_i) W_(p,i)h

G costs one matrix product an event, the tangents of 3K - 1 parameters would cost d of them.
Numbers are (f, *batch), activations a are (hidden, *batch), parameters (P, f, *batch); tangents
carry their own axis before the events, (f, t, N) and (hidden, t, N), and come block by block of
events, so that one block fits into the cache.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mflow_sbi.transforms.spline_gradients import inverse_spline_slopes
from mflow_sbi.transforms.splines import (
    IDENTITY_DERIVATIVE,
    Spline,
    accumulation_matrix,
    build_spline,
    inverse_rational_quadratic_spline,
    rational_quadratic_spline,
)

__all__ = ["AffineMap", "ElementwiseMap", "Pulled", "SplineMap", "VolumePreservingMap"]


class Carrier(Protocol):
    """Carries tangents of some of the events through the inverse of a map."""

    def __call__(self, numbers: Tensor, activations: Tensor, events: slice) -> Tensor:
        """Return the tangents (f, t, n) of x from those of y (f, t, n or 1) and of a (h, t, n)."""
        ...


class Pulled(NamedTuple):
    """x (f, N) with y = m(x), log|det dx/dy| (N,), and what carries tangents along."""

    x: Tensor
    log_det: Tensor
    carry: Carrier


def linear_columns(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b for columns x, (out, in), (in, *batch) -> (out, *batch)."""
    flat = x if x.dim() == 2 else x.flatten(1)
    image = weight @ flat if bias is None else torch.addmm(bias[:, None], weight, flat)
    return image if x.dim() == 2 else image.unflatten(1, x.shape[1:])


class ElementwiseMap(nn.Module, ABC):
    """A monotone map of f numbers with `n_parameters` free parameters each."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Parameters per transformed number."""

    @abstractmethod
    def identity_bias(self) -> Tensor:
        """Return the parameters (n_parameters,) that make the map the identity."""

    @abstractmethod
    def push(self, x: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (f, *batch) and log|det dy/dx| (*batch)."""

    @abstractmethod
    def pull(self, y: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return x (f, *batch) with y = m(x) and log|det dx/dy| (*batch)."""

    @abstractmethod
    def pull_with_carrier(self, y: Tensor, last: nn.Linear, activations: Tensor) -> Pulled:
        """Return x (f, N), log|det dx/dy| (N,) and a carrier of tangents."""


def _contract(by_parameters: Tensor, weight: Tensor) -> Tensor:
    """Return G = sum_p dx/dp W_p, (P, f, N), (P, f, h) -> (f, N, h)."""
    return torch.bmm(by_parameters.permute(1, 2, 0), weight.permute(1, 0, 2))


def _along(contracted: Tensor, activations: Tensor) -> Tensor:
    """Return sum_h G_fh da_h per event, (f, N, h), (h, t, N) -> (f, t, N).

    Events are turned to the front and back: one small product each is faster than sums over
    strided columns.
    """
    n_features, n_events, _ = contracted.shape
    hidden, n_tangents, _ = activations.shape
    per_event = activations.reshape(hidden * n_tangents, n_events).T.contiguous()
    moved = torch.bmm(contracted.permute(1, 0, 2), per_event.reshape(n_events, hidden, n_tangents))
    columns = moved.reshape(n_events, n_features * n_tangents).T.contiguous()
    return columns.reshape(n_features, n_tangents, n_events)


class SplineMap(ElementwiseMap):
    """Rational-quadratic spline with `bins` bins on [-bound, bound] and linear tails.

    Raw widths and heights are divided by sqrt(hidden) before the softmax, as in nflows.
    """

    accumulation: Tensor

    def __init__(self, bins: int, bound: float, hidden: int) -> None:
        super().__init__()
        self.bins = bins
        self.bound = bound
        self.scale = 1.0 / math.sqrt(hidden)
        matrix = accumulation_matrix(bins, bound)
        self.register_buffer("accumulation", matrix.float(), persistent=False)

    def _apply(self, fn, recurse=True):  # noqa: ANN001, ANN202, FBT002
        """Follow moves and casts; the matrix is made anew, not rounded twice."""
        super()._apply(fn, recurse)
        matrix = accumulation_matrix(self.bins, self.bound)
        self.accumulation = matrix.to(self.accumulation)
        return self

    @property
    def n_parameters(self) -> int:
        """K widths, K heights, K - 1 interior derivatives."""
        return 3 * self.bins - 1

    def identity_bias(self) -> Tensor:
        """Return zeros for widths and heights, unit derivatives."""
        bias = torch.zeros(self.n_parameters)
        bias[2 * self.bins :] = IDENTITY_DERIVATIVE
        return bias

    def _splines(self, last: nn.Linear, activations: Tensor) -> Spline:
        """Return the splines of f x batch numbers; the scale rides on the matrix product."""
        flat = activations.flatten(1)
        features = last.out_features // self.n_parameters
        sizes = [2 * self.bins * features, (self.bins - 1) * features]
        weight, weight_rest = last.weight.split(sizes)
        bias, bias_rest = last.bias[:, None].split(sizes)
        logits = torch.addmm(bias, weight, flat, beta=self.scale, alpha=self.scale)
        derivatives = torch.addmm(bias_rest, weight_rest, flat)
        return build_spline(
            logits.reshape(2, self.bins, -1),
            derivatives.reshape(self.bins - 1, -1),
            self.accumulation,
            self.bound,
        )

    def push(self, x: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the splines of x and the log slopes summed over features."""
        shape = (x.shape[0], *activations.shape[1:])
        spline = self._splines(last, activations)
        y, log_slope = rational_quadratic_spline(x.expand(shape).reshape(-1), spline)
        return y.reshape(shape), log_slope.reshape(shape).sum(dim=0)

    def pull(self, y: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse splines of y and the log slopes summed over features."""
        shape = (y.shape[0], *activations.shape[1:])
        spline = self._splines(last, activations)
        x, log_slope = inverse_rational_quadratic_spline(y.expand(shape).reshape(-1), spline)
        return x.reshape(shape), log_slope.reshape(shape).sum(dim=0)

    def pull_with_carrier(self, y: Tensor, last: nn.Linear, activations: Tensor) -> Pulled:
        """Return x, log|det dx/dy| and the carrier dx = dx/dy dy + G da."""
        features = y.shape[0]
        spline = self._splines(last, activations)
        slopes = inverse_spline_slopes(y.reshape(-1), spline)
        by_logits = (self.scale * slopes.by_logits).reshape(2 * self.bins, *y.shape)
        by_derivatives = slopes.by_derivatives.reshape(self.bins - 1, *y.shape)
        weight = last.weight.reshape(self.n_parameters, features, -1)
        by_y = slopes.by_y.reshape(y.shape)

        def carry(numbers: Tensor, activations: Tensor, events: slice) -> Tensor:
            by_parameters = torch.cat([by_logits[..., events], by_derivatives[..., events]])
            along = _along(_contract(by_parameters, weight), activations)
            return torch.addcmul(along, by_y[:, None, events], numbers)

        log_det = slopes.log_slope.reshape(y.shape).sum(dim=0)
        return Pulled(slopes.x.reshape(y.shape), log_det, carry)


class AffineMap(ElementwiseMap):
    """y = exp(s) x + t with |s| kept below 2 by s = 2 tanh(a / 2)."""

    @property
    def n_parameters(self) -> int:
        """Log scale and shift."""
        return 2

    def identity_bias(self) -> Tensor:
        """Return zero log scale and zero shift."""
        return torch.zeros(2)

    def _read(self, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return log scale and shift, (f, *batch) each."""
        raw, shift = linear_columns(last.weight, activations, last.bias).chunk(2)
        return self._log_scale(2.0 * torch.tanh(0.5 * raw)), shift

    def _log_scale(self, bounded: Tensor) -> Tensor:
        """Return the log scales from the bounded numbers: themselves."""
        return bounded

    def push(self, x: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(s) x + t and the sum of s."""
        log_scale, shift = self._read(last, activations)
        return torch.exp(log_scale) * x + shift, log_scale.sum(dim=0)

    def pull(self, y: Tensor, last: nn.Linear, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(-s) (y - t) and minus the sum of s."""
        log_scale, shift = self._read(last, activations)
        return torch.exp(-log_scale) * (y - shift), -log_scale.sum(dim=0)

    def pull_with_carrier(self, y: Tensor, last: nn.Linear, activations: Tensor) -> Pulled:
        """Return x, log|det dx/dy| and the carrier dx = exp(-s) (dy - dt) - x ds."""
        raw, shift = linear_columns(last.weight, activations, last.bias).chunk(2)
        bounded = 2.0 * torch.tanh(0.5 * raw)
        log_scale = self._log_scale(bounded)
        shrink = torch.exp(-log_scale)
        x = shrink * (y - shift)
        steepness = 1.0 - 0.25 * bounded.square()

        def carry(numbers: Tensor, activations: Tensor, events: slice) -> Tensor:
            raw_along, shift_along = linear_columns(last.weight, activations).chunk(2)
            scale_along = self._log_scale(steepness[:, None, events] * raw_along)
            moved = shrink[:, None, events] * (numbers - shift_along)
            return moved - x[:, None, events] * scale_along

        return Pulled(x, -log_scale.sum(dim=0), carry)


class VolumePreservingMap(AffineMap):
    """y = exp(s) x + t with sum s = 0 over the features, so that log|det| = 0.

    s_i = c_i - mean c, c = 2 tanh(a / 2).

    References:
        Disentanglement by nonlinear ICA with general incompressible-flow networks
        (Sorrenson et al., 2020), arXiv:2001.04872, section 3.
    """

    def _log_scale(self, bounded: Tensor) -> Tensor:
        """Return the bounded numbers less their mean over the features."""
        return bounded - bounded.mean(dim=0, keepdim=True)
