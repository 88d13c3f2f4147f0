"""The Sinkhorn divergence: zero for equal samples, symmetric, positive, and its two limits."""

import sys
from functools import partial

import pytest
import torch
from torch import Tensor

from mflow_sbi.divergences import sinkhorn_divergence
from mflow_sbi.errors import ConfigurationError


def _samples(seed: int, shift: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn((2, 120, 3), generator=generator, dtype=torch.float64)
    return x, 1.3 * y + shift


def test_vanishes_for_equal_samples_in_any_order():
    x, _ = _samples(0)
    assert float(sinkhorn_divergence(x, x)) == pytest.approx(0.0, abs=1e-12)
    assert float(sinkhorn_divergence(x, x.flip(0))) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_is_positive_and_symmetric(seed, shift):
    x, y = _samples(seed, shift)
    there, back = sinkhorn_divergence(x, y), sinkhorn_divergence(y, x)
    assert float(there) > 0
    assert float(there) == pytest.approx(float(back), rel=1e-6)


def test_of_shifted_samples_is_half_the_square_of_the_shift():
    x, _ = _samples(1)
    shift = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64)
    found = float(sinkhorn_divergence(x, x + shift, scaling=0.9))
    assert found == pytest.approx(0.5 * float(shift.square().sum()), rel=0.02)


def test_large_blur_compares_the_means():
    x, y = _samples(2)
    gap = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    found = float(sinkhorn_divergence(x, y, blur=100.0))
    assert found == pytest.approx(0.5 * float(gap), rel=1e-3)


def test_gradient_is_that_of_the_value_where_the_iterations_have_converged():
    x, y = _samples(3)
    x.requires_grad_()
    divergence = partial(sinkhorn_divergence, blur=0.7, scaling=0.98)
    (slope,) = torch.autograd.grad(divergence(x, y), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).double()
    step = 1e-4 * direction
    with torch.no_grad():
        ahead, behind = (divergence(x + s, y) for s in (step, -step))
    expected = float(ahead - behind) / 2e-4
    assert float((slope * direction).sum()) == pytest.approx(expected, rel=0.02)


def test_leaves_gradients_as_it_finds_them():
    x, y = _samples(5)
    with torch.no_grad():
        value = sinkhorn_divergence(x.requires_grad_(), y)
        assert not torch.is_grad_enabled()
    assert not value.requires_grad


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "geomloss", None)
    x, y = _samples(6)
    with pytest.raises(ConfigurationError, match=r'pip install "mflow_sbi\[transport\]"'):
        sinkhorn_divergence(x, y, blur=0.123)
