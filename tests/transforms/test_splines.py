"""The spline against nflows' masked one, and its own laws under hypothesis."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

from mflow_sbi.transforms.splines import (
    build_knots,
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


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_equals_the_masked_spline_of_nflows(inverse):
    x, widths, heights, derivatives = _raw(0)
    expected = unconstrained_rational_quadratic_spline(
        x, widths.T, heights.T, derivatives.T, inverse=inverse, tails="linear", tail_bound=BOUND
    )
    function = inverse_rational_quadratic_spline if inverse else rational_quadratic_spline
    got = function(x, build_knots(widths, heights, derivatives, BOUND), BOUND)
    assert (x.abs() > BOUND).any()
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.integers(2, 12), scale=st.floats(0.1, 6.0))
def test_is_monotone_and_inverts(seed, bins, scale):
    x, widths, heights, derivatives = _raw(seed, n=64, bins=bins)
    x = torch.sort(x).values
    w, h, d = (scale * raw[:, :1].expand(-1, len(x)) for raw in (widths, heights, derivatives))
    knots = build_knots(w, h, d, BOUND)  # one spline, many points
    y, log_slope = rational_quadratic_spline(x, knots, BOUND)
    assert (torch.diff(y) >= -1e-12).all()
    assert torch.isfinite(log_slope).all()
    back, log_slope_back = inverse_rational_quadratic_spline(y, knots, BOUND)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
    inside = x.abs() < BOUND
    torch.testing.assert_close(log_slope_back[inside], -log_slope[inside], atol=1e-4, rtol=0)


def test_is_the_identity_with_unit_slope_outside_the_box():
    x, widths, heights, derivatives = _raw(1)
    outside = torch.sign(x) * (BOUND + x.abs())
    y, log_slope = rational_quadratic_spline(
        outside, build_knots(widths, heights, derivatives, BOUND), BOUND
    )
    assert torch.equal(y, outside)
    assert torch.equal(log_slope, torch.zeros_like(x))


def test_edges_meet_the_tails_smoothly():
    _, widths, heights, derivatives = _raw(2, n=2)
    edges = torch.tensor([-BOUND, BOUND], dtype=torch.float64)
    knots = build_knots(widths, heights, derivatives, BOUND)
    y, log_slope = rational_quadratic_spline(edges, knots, BOUND)
    torch.testing.assert_close(y, edges)
    torch.testing.assert_close(log_slope, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
