"""The spline against nflows' masked one, and its own laws under hypothesis."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch import Tensor

from mflow_sbi.transforms.spline_gradients import inverse_spline_slopes
from mflow_sbi.transforms.splines import (
    Spline,
    accumulation_matrix,
    build_spline,
    inverse_rational_quadratic_spline,
    rational_quadratic_spline,
)

BOUND = 3.0


def _raw(seed: int, n: int = 400, bins: int = 8):
    generator = torch.Generator().manual_seed(seed)

    def draw(k: int):
        return torch.randn(k, n, generator=generator, dtype=torch.float64)

    x = 2.0 * torch.randn(n, generator=generator, dtype=torch.float64)
    return x, draw(bins), draw(bins), draw(bins - 1)


def _spline(widths: Tensor, heights: Tensor, derivatives: Tensor) -> Spline:
    accumulation = accumulation_matrix(len(widths), BOUND)
    return build_spline(torch.stack([widths, heights]), derivatives, accumulation, BOUND)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_equals_the_masked_spline_of_nflows(inverse):
    x, widths, heights, derivatives = _raw(0)
    expected = unconstrained_rational_quadratic_spline(
        x, widths.T, heights.T, derivatives.T, inverse=inverse, tails="linear", tail_bound=BOUND
    )
    function = inverse_rational_quadratic_spline if inverse else rational_quadratic_spline
    got = function(x, _spline(widths, heights, derivatives))
    assert (x.abs() > BOUND).any()
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.integers(2, 12), scale=st.floats(0.1, 6.0))
def test_is_monotone_and_inverts(seed, bins, scale):
    x, widths, heights, derivatives = _raw(seed, n=64, bins=bins)
    x = torch.sort(x).values
    w, h, d = (scale * raw[:, :1].expand(-1, len(x)) for raw in (widths, heights, derivatives))
    spline = _spline(w, h, d)  # one spline, many points
    y, log_slope = rational_quadratic_spline(x, spline)
    assert (torch.diff(y) >= -1e-12).all()
    assert torch.isfinite(log_slope).all()
    back, log_slope_back = inverse_rational_quadratic_spline(y, spline)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
    inside = x.abs() < BOUND
    torch.testing.assert_close(log_slope_back[inside], -log_slope[inside], atol=1e-4, rtol=0)


def test_is_the_identity_with_unit_slope_outside_the_box():
    x, widths, heights, derivatives = _raw(1)
    outside = torch.sign(x) * (BOUND + x.abs())
    y, log_slope = rational_quadratic_spline(outside, _spline(widths, heights, derivatives))
    assert torch.equal(y, outside)
    assert torch.equal(log_slope, torch.zeros_like(x))


def test_edges_meet_the_tails_smoothly():
    _, widths, heights, derivatives = _raw(2, n=2)
    edges = torch.tensor([-BOUND, BOUND], dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(edges, _spline(widths, heights, derivatives))
    torch.testing.assert_close(y, edges)
    torch.testing.assert_close(log_slope, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_slopes_of_the_inverse_are_those_of_autodiff():
    y, widths, heights, derivatives = _raw(3)
    raw = [y, widths, heights, derivatives]
    for tensor in raw:
        tensor.requires_grad_()
    x, log_slope = inverse_rational_quadratic_spline(y, _spline(widths, heights, derivatives))
    by_y, by_widths, by_heights, by_derivatives = torch.autograd.grad(x.sum(), raw)
    slopes = inverse_spline_slopes(y, _spline(widths, heights, derivatives))
    assert (y.abs() > BOUND).any()
    torch.testing.assert_close(slopes.x, x)
    torch.testing.assert_close(slopes.log_slope, log_slope)
    for ours, theirs in [
        (slopes.by_y, by_y),
        (slopes.by_logits[0], by_widths),
        (slopes.by_logits[1], by_heights),
        (slopes.by_derivatives, by_derivatives),
    ]:
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


def test_slopes_of_the_inverse_can_be_differentiated_again():
    y, widths, heights, derivatives = (t[..., :20] for t in _raw(4, bins=4))

    def slopes(y: Tensor, w: Tensor, h: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        found = inverse_spline_slopes(y, _spline(w, h, d))
        return found.by_y, found.by_logits, found.by_derivatives

    inputs = tuple(t.clone().requires_grad_() for t in (y, widths, heights, derivatives))
    assert torch.autograd.gradcheck(slopes, inputs, atol=1e-6)
