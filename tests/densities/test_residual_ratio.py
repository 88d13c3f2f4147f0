"""Laws of the ratio for any theta: average one, symmetric, its training form consistent."""

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.densities import ResidualRatio, ResidualShape, SymmetryGroup
from mflow_sbi.densities.symmetries import Reflection

THETA = np.random.default_rng(1).normal(size=(400, 2)) * [0.7, 1.5] + [0.2, -0.4]
FEATURES = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double()


def _ratio(*, symmetric: bool) -> ResidualRatio:
    odd = Reflection(np.array([1.0, -1, 1, -1]), np.array([1.0, -1]))
    group = SymmetryGroup.generated_by([odd] if symmetric else [], 4, 2)
    shape = ResidualShape(4, 2, group.order, 16, 2, statistics=5, points=64)
    ratio = ResidualRatio(shape, seed=1).fill(THETA, group).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in ratio.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return ratio


def _standardised(ratio: ResidualRatio, points: Tensor) -> Tensor:
    return (points - ratio.stored.mean) / ratio.stored.std


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
    signs = ratio.group.feature_signs[1], ratio.group.parameter_signs[1]
    here = ratio.log_ratio(ratio.encode(FEATURES), _standardised(ratio, points)[:, None])
    turned = ratio.encode(FEATURES * signs[0])
    there = ratio.log_ratio(turned, _standardised(ratio, points * signs[1])[:, None])
    torch.testing.assert_close(there, here)
    other = ratio.log_ratio(turned, _standardised(ratio, points)[:, None])
    assert (other - here).abs().max() > 0.01


@torch.no_grad()
def test_in_turn_is_the_contrastive_form_over_the_batch():
    ratio = _ratio(symmetric=False)
    at = _standardised(ratio, torch.from_numpy(THETA[: len(FEATURES)]))
    table = ratio.log_ratio(ratio.encode(FEATURES), at[:, None])  # (M, N)
    expected = table.diagonal() - table.exp().mean(dim=0).log()
    torch.testing.assert_close(ratio.log_ratio_in_turn(FEATURES, at), expected)


@torch.no_grad()
def test_turned_events_meet_turned_thetas():
    ratio = _ratio(symmetric=True)
    points = torch.from_numpy(THETA[: len(FEATURES)])
    at = _standardised(ratio, points)
    values = ratio.log_ratio_in_turn(FEATURES, at)
    images = _standardised(ratio, points * ratio.group.parameter_signs[1])
    by_hand = []
    for i in range(len(FEATURES)):
        signs, thetas = ratio.group.feature_signs[i % 2], (at, images)[i % 2]
        both = ratio.of_theta(thetas)
        f = both[:, :-1] @ ratio.of_event(FEATURES[i] * signs) + both[:, -1]
        by_hand.append(f[i] - f.exp().mean().log())
    torch.testing.assert_close(values, torch.stack(by_hand))
