"""Laws of the ratio of an effective theory: positive, average one, bounded, symmetric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.densities import MorphingRatio, SymmetryGroup
from mflow_sbi.densities.morphing_ratio import amplitude_monomials
from mflow_sbi.densities.symmetries import Reflection
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.ratio_objectives import RatioDivergence

from .toys import EXPONENTS, quadratic_ratio, quartic_ratio

CASES = {
    "degree 2": quadratic_ratio,
    "degree 4": quartic_ratio,
    "three networks": lambda: quadratic_ratio(members=3),
    "learned rate": lambda: quadratic_ratio(points=400),
}
every_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


def _standardised(ratio: MorphingRatio, theta: np.ndarray) -> Tensor:
    return (torch.from_numpy(theta) - ratio.theory.theta_mean) / ratio.theory.theta_std


def _ratios(ratio: MorphingRatio, features: Tensor, theta: np.ndarray) -> Tensor:
    """Return r, (M, N)."""
    with torch.no_grad():
        encoded = ratio.encode(features)
        return ratio.log_ratio(encoded, _standardised(ratio, theta)[:, None]).exp()


@every_case
def test_average_over_the_training_thetas_is_one(make):
    ratio, theta, features = make()
    values = _ratios(ratio, features, theta)
    assert values.std() > 0.1
    assert (values.mean(dim=0) - 1).abs().max() < 1e-6  # networks read float32


def test_events_without_density_at_some_theta_have_slopes():
    ratio, theta, features = quadratic_ratio()
    points = _standardised(ratio, theta).float()[: len(features)]
    node = torch.from_numpy(
        theta[0]
    )  # |amplitude|^2 = [a . (theta - node)]^2 vanishes there, up to rounding
    a = torch.tensor([1.0, 2.0], dtype=torch.float64)
    square = torch.outer(torch.cat([-(a @ node)[None], a]), torch.cat([-(a @ node)[None], a]))
    powers = {(0, 0): square[0, 0] - 1e-3, (1, 0): 2 * square[0, 1], (0, 1): 2 * square[0, 2]}
    powers |= {(2, 0): square[1, 1], (1, 1): 2 * square[1, 2], (0, 2): square[2, 2]}
    row = torch.stack([powers[int(i), int(j)] for i, j in EXPONENTS])
    batch = TrainingBatch(
        features.float(), points, features.float(), components=row.expand(len(points), -1).float()
    )
    batch = batch._replace(theta=points.roll(1, 0))  # no event at its own theta
    loss = RatioDivergence()(SimpleNamespace(ratio=ratio), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in ratio.parameters() if p.grad is not None)


@every_case
def test_positive_far_outside_the_training(make):
    ratio, theta, features = make()
    far = np.random.default_rng(0).normal(size=(300, theta.shape[1])) * 1e3
    assert _ratios(ratio, features, far).min() >= 0.99e-5


@every_case
def test_bound_holds_and_is_reached(make):
    ratio, theta, features = make()
    few = theta[:20]
    bound = ratio.log_bound(_standardised(ratio, few)).exp().detach()
    assert (_ratios(ratio, features, few) <= bound[:, None]).all()
    # the largest ratio: amplitudes along M^-1 phi
    m = ratio.shape.n_amplitudes
    total, average = (value.detach() for value in ratio.rates())
    matrix = (ratio.theory.products @ average).reshape(m, m)
    points = torch.from_numpy(few)
    phi = points[:, None].pow(ratio.theory.amplitudes).prod(-1) * ratio._amplitude_scale()
    along = torch.linalg.solve(matrix, phi.T).T
    c = (along[:, :, None] * along[:, None]).flatten(1) @ ratio.theory.products
    c = c / (c @ average)[:, None]
    reached = ratio.log_ratio((1 - 1e-5) * c + 1e-5 * total, _standardised(ratio, few)).exp()
    torch.testing.assert_close(reached.detach(), bound)


@every_case
def test_polynomial_is_the_squared_amplitude(make):
    ratio, theta, _ = make()
    m = ratio.shape.n_amplitudes
    lower = torch.randn(len(theta), m, m, generator=torch.Generator().manual_seed(3)).double()
    phi = torch.from_numpy(theta)[:, None].pow(ratio.theory.amplitudes).prod(-1)
    phi = phi * ratio._amplitude_scale()
    amplitude = torch.einsum("nij,ni->nj", lower, phi).square().sum(-1)
    weights = ratio.theory.monomials(torch.from_numpy(theta))
    got = (weights * ratio.theory.components_of(lower)).sum(-1)
    torch.testing.assert_close(got, amplitude)


@every_case
def test_score_is_the_gradient(make):
    ratio, theta, features = make()
    at = _standardised(ratio, theta[: len(features)])
    at[0] = -ratio.theory.theta_mean / ratio.theory.theta_std  # theta = 0
    at.requires_grad_()
    encoded = ratio.encode(features).detach()
    (expected,) = torch.autograd.grad(ratio.log_ratio(encoded, at).sum(), at)
    torch.testing.assert_close(ratio.score(encoded, at.detach()), expected)


def _group() -> SymmetryGroup:
    odd = Reflection(np.array([1.0, -1, 1, -1]), np.array([1.0, -1]))
    even = Reflection(np.array([-1.0, -1, 1, 1]), np.array([1.0, 1]))
    return SymmetryGroup.generated_by([odd, even], 4, 2)


def test_symmetries_hold_exactly_and_turning_one_by_one_is_unbiased():
    ratio, theta, features = quadratic_ratio(group=_group())
    few = theta[:10]
    values = _ratios(ratio, features, few)
    for features_of, theta_of in zip(
        ratio.group.feature_signs, ratio.group.parameter_signs, strict=True
    ):
        turned = _ratios(ratio, features * features_of, few * theta_of.numpy())
        torch.testing.assert_close(turned, values)
    last = ratio.group.feature_signs[-1]
    assert not torch.allclose(_ratios(ratio, features * last, few), values, rtol=1e-2)
    four_times = features.repeat_interleave(4, dim=0)  # row i takes element i mod 4
    with torch.no_grad():
        in_turn = ratio.encode_in_turn(four_times).reshape(len(features), 4, -1)
        torch.testing.assert_close(in_turn.mean(dim=1), ratio.encode(features))
        assert in_turn.std(dim=1).max() > 1e-2


def test_average_over_thetas_and_their_images_is_one():
    ratio, theta, features = quadratic_ratio(group=_group())
    images = np.concatenate([theta, theta * [1, -1]])
    assert (_ratios(ratio, features, images).mean(dim=0) - 1).abs().max() < 1e-6


def test_a_cross_section_without_the_declared_symmetry_is_refused():
    ratio, theta, _ = quadratic_ratio(group=_group())
    skewed = np.array([0.6, -0.5, 0.1, 2.0, 0.3, 3.0])
    with pytest.raises(ConfigurationError, match="check which parameters are odd"):
        ratio.fill(EXPONENTS, theta, skewed, _group())


def test_normalised_components_are_those_of_the_ratio():
    ratio, theta, features = quadratic_ratio()
    with torch.no_grad():
        encoded = ratio.encode(features)
        physical = encoded / ratio.theory.unit * torch.rand(len(features), 1).double()
        torch.testing.assert_close(ratio.normalised(physical), encoded)


def test_broadcasts_as_inference_asks():
    ratio, theta, features = quadratic_ratio()
    with torch.no_grad():
        encoded, at = ratio.encode(features), _standardised(ratio, theta)
        table = ratio.log_ratio(encoded, at[:, None])
        assert table.shape == (len(theta), len(features))
        paired = ratio.log_ratio(encoded, at[: len(features)])
        torch.testing.assert_close(paired, table[: len(features)].diagonal())
        own = ratio.log_ratio(encoded, at[:7, None].expand(7, len(features), 2))
        torch.testing.assert_close(own, table[:7])


@pytest.mark.parametrize(
    "exponents", [[[0], [1]], [[1], [2]], [[0, 0], [2, 0], [0, 2]], [[0], [1], [2], [3]]]
)
def test_other_polynomials_are_refused(exponents):
    with pytest.raises(ConfigurationError, match="squared amplitude"):
        amplitude_monomials(np.array(exponents))


def test_amplitudes_of_mixed_degrees_are_found():
    both = [[i, j] for i in range(3) for j in range(3)]
    assert amplitude_monomials(np.array(both)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert amplitude_monomials(EXPONENTS).tolist() == [[0, 0], [1, 0], [0, 1]]
