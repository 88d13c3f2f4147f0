"""Laws of the ratio for any theta: average one, symmetric, its training form consistent."""

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.densities import PairWeights, ResidualRatio, ResidualShape, SymmetryGroup
from mflow_sbi.densities.symmetries import Reflection

THETA = np.random.default_rng(1).normal(size=(400, 2)) * [0.7, 1.5] + [0.2, -0.4]
FEATURES = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double()


def _ratio(*, symmetric: bool, candidates: int = 8) -> ResidualRatio:
    odd = Reflection(np.array([1.0, -1, 1, -1]), np.array([1.0, -1]))
    group = SymmetryGroup.generated_by([odd] if symmetric else [], 4, 2)
    shape = ResidualShape(4, 2, group.order, 16, 2, 1, candidates=candidates, points=64)
    ratio = ResidualRatio(shape, seed=1).fill(THETA, group).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in ratio.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return ratio


def _standardised(ratio: ResidualRatio, points: Tensor) -> Tensor:
    return (points - ratio.pairs.images.mean) / ratio.pairs.images.std


@torch.no_grad()
def test_average_over_the_stored_thetas_is_one():
    for symmetric in (False, True):
        ratio = _ratio(symmetric=symmetric)
        at = _standardised(ratio, ratio.stored.points)
        values = ratio.log_ratio(ratio.encode(FEATURES), at[:, None]).exp()
        assert values.std() > 0.1
        torch.testing.assert_close(values.mean(dim=0), torch.ones(64).double())


@torch.no_grad()
def test_symmetry_holds_exactly():
    ratio = _ratio(symmetric=True)
    points = torch.from_numpy(THETA[:20])
    signs = ratio.pairs.group.feature_signs[1], ratio.pairs.group.parameter_signs[1]
    here = ratio.log_ratio(ratio.encode(FEATURES), _standardised(ratio, points)[:, None])
    turned = ratio.encode(FEATURES * signs[0])
    there = ratio.log_ratio(turned, _standardised(ratio, points * signs[1])[:, None])
    torch.testing.assert_close(there, here)
    other = ratio.log_ratio(turned, _standardised(ratio, points)[:, None])
    assert (other - here).abs().max() > 0.01


@torch.no_grad()
def test_in_turn_is_the_contrastive_form_over_the_batch():
    """With all thetas of the batch as candidates; then weights of theta count as repetitions."""
    ratio = _ratio(symmetric=False, candidates=200)
    at = _standardised(ratio, torch.from_numpy(THETA[: len(FEATURES)]))
    table = ratio.log_ratio(ratio.encode(FEATURES), at[:, None])  # (M, N)
    expected = table.diagonal() - table.exp().mean(dim=0).log()
    torch.testing.assert_close(ratio.log_ratio_in_turn(FEATURES, at), expected)
    counts = torch.arange(len(FEATURES)).double() % 3
    mean = (table.exp() * counts[:, None]).sum(dim=0) / counts.sum()
    expected = table.diagonal() - mean.log()
    torch.testing.assert_close(
        ratio.log_ratio_in_turn(FEATURES, at, PairWeights(counts, counts)), expected
    )


@torch.no_grad()
def test_turned_events_meet_turned_thetas():
    ratio = _ratio(symmetric=True, candidates=3)
    points = torch.from_numpy(THETA[: len(FEATURES)])
    at = _standardised(ratio, points)
    values = ratio.log_ratio_in_turn(FEATURES, at)
    images = _standardised(ratio, points * ratio.pairs.group.parameter_signs[1])
    network, by_hand = ratio.pairs, []
    for i in range(len(FEATURES)):
        signs, thetas = network.group.feature_signs[i % 2], (at, images)[i % 2]
        hidden = network.of_event(FEATURES[i] * signs) + network.of_theta(thetas)
        f = network.head(torch.nn.functional.silu(hidden))[:, 0]
        next_ones = f[[i, (i + 1) % len(f), (i + 2) % len(f)]]
        by_hand.append(f[i] - next_ones.exp().mean().log())
    torch.testing.assert_close(values, torch.stack(by_hand))


def test_score_is_the_slope_of_the_log_ratio():
    ratio = _ratio(symmetric=False)
    at = _standardised(ratio, torch.from_numpy(THETA[: len(FEATURES)])).requires_grad_()
    with torch.no_grad():
        encoded = ratio.encode(FEATURES)
    (slope,) = torch.autograd.grad(ratio.log_ratio(encoded, at).sum(), at)
    values, score = ratio.score_in_turn(FEATURES, at.detach())
    torch.testing.assert_close(score, slope)
    torch.testing.assert_close(values, ratio.log_ratio_in_turn(FEATURES, at.detach()))


@torch.no_grad()
def test_weights_that_vanish_leave_numbers():
    ratio = _ratio(symmetric=False, candidates=2)
    at = _standardised(ratio, torch.from_numpy(THETA[: len(FEATURES)]))
    none = torch.zeros(len(FEATURES)).double()
    values = ratio.log_ratio_in_turn(FEATURES, at, PairWeights(none, none))
    assert values.isfinite().all()
    assert values.abs().max() > 0
