"""Ratios begin with weighted events as with events repeated: V, stored points, joint ratios."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.densities import (
    MorphingRatio,
    MorphingShape,
    PairWeights,
    ResidualRatio,
    ResidualShape,
    SymmetryGroup,
)
from mflow_sbi.densities.symmetries import Reflection
from mflow_sbi.estimating import EstimatorOptions, told_jointly
from mflow_sbi.events import EventSample
from mflow_sbi.events.weights import theta_weights

from .toys import CROSS_SECTION, EXPONENTS, exact_log_ratio, monomials, shaken, toy_events

N = 400
EVENTS = toy_events(N, 5)
THETA = EVENTS.require_theta()
COUNTS = np.random.default_rng(0).integers(0, 5, size=N)
FEATURES = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()


def _group(order: int) -> SymmetryGroup:
    odd = Reflection(np.array([1.0, -1, 1, -1]), np.array([1.0, -1]))
    return SymmetryGroup.generated_by([odd] if order > 1 else [], 4, 2)


def _morphing(theta: np.ndarray, weight: np.ndarray | None, order: int, points: int):
    shape = MorphingShape(4, 2, 6, 3, order, 16, 2, points=points)
    known = None if points else CROSS_SECTION
    return MorphingRatio(shape).fill(EXPONENTS, theta, known, _group(order), weight)


def _residual(theta: np.ndarray, weight: np.ndarray | None, order: int, points: int):
    shape = ResidualShape(4, 2, order, 16, 2, 1, candidates=N, points=order * points)
    return ResidualRatio(shape, seed=1).fill(theta, _group(order), weight).double()


def _standardised(physical: np.ndarray, mean: Tensor, std: Tensor) -> Tensor:
    return (torch.from_numpy(physical) - mean) / std


@pytest.mark.parametrize("order", [1, 2])
def test_the_reference_of_a_morphing_ratio_is_that_of_repeated_events(order: int):
    weighted = _morphing(THETA, COUNTS.astype(float), order, 0).theory
    repeated = _morphing(THETA.repeat(COUNTS, axis=0), None, order, 0).theory
    got, expected = (theory.average * theory.unit for theory in (weighted, repeated))
    torch.testing.assert_close(got, expected)
    plain = _morphing(THETA, None, order, 0).theory
    assert (plain.average * plain.unit - expected).abs().max() > 1e-3
    # scales are those of the events as they come: the standardizer's
    torch.testing.assert_close(weighted.theta_std, torch.from_numpy(THETA.std(axis=0)))


def test_stored_points_are_those_of_repeated_events():
    n, weight = int(COUNTS.sum()), COUNTS.astype(float)
    weighted = _morphing(THETA, weight, 1, n).theory
    expected = monomials(THETA.repeat(COUNTS, axis=0))
    np.testing.assert_allclose(weighted.points * weighted.unit, expected)
    residual = _residual(THETA, weight, 1, n)
    np.testing.assert_array_equal(residual.stored.points, THETA.repeat(COUNTS, axis=0))
    mean = torch.from_numpy(THETA.mean(axis=0))  # the scale is that of the standardizer
    torch.testing.assert_close(residual.pairs.images.mean, mean)


@torch.no_grad()
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("points", [0, 300])
def test_average_over_the_weighted_thetas_is_one(order: int, points: int):
    weight = np.exp(THETA[:, 0])  # theta ~ N(0, 1) becomes N(1, 1) in its first component
    ratio = shaken(_morphing(THETA, weight, order, points), 3)
    images = np.concatenate([THETA * signs for signs in ([1, 1], [1, -1])[:order]])
    at = _standardised(images, ratio.theory.theta_mean, ratio.theory.theta_std)
    values = ratio.log_ratio(ratio.encode(FEATURES), at[:, None]).exp()
    means = np.average(values, axis=0, weights=np.tile(weight, order))
    tolerance = 0.08 if points else 1e-6  # stored points stand for all of them
    assert np.abs(means - 1).max() < tolerance
    assert (values.mean(dim=0) - 1).abs().max() > 0.2
    residual = _residual(THETA, weight, order, 300)
    at = _standardised(images, residual.pairs.images.mean, residual.pairs.images.std)
    values = residual.log_ratio(residual.encode(FEATURES), at[:, None]).exp()
    means = np.average(values, axis=0, weights=np.tile(weight, order))
    assert np.abs(means - 1).max() < 0.05


@torch.no_grad()
def test_in_turn_is_the_contrastive_form_over_the_weighted_batch():
    ratio = _residual(THETA, None, 1, 50)
    at = _standardised(THETA[:30], ratio.pairs.images.mean, ratio.pairs.images.std)
    weight = torch.linspace(0.0, 3.0, 30).double()
    table = ratio.log_ratio(ratio.encode(FEATURES), at[:, None])  # (M, N)
    mean = (weight[:, None] * table.exp()).sum(dim=0) / weight.sum()
    got = ratio.log_ratio_in_turn(FEATURES, at, PairWeights(weight.flip(0), weight))
    torch.testing.assert_close(got, table.diagonal() - mean.log())


def _signed() -> EventSample:
    weight = COUNTS.astype(float)
    weight[::7] = -0.5
    return replace(EVENTS, weight=weight)


def test_joint_ratios_are_to_the_density_of_the_weighted_events():
    for events in (replace(EVENTS, weight=COUNTS.astype(float)), _signed()):
        score, components = told_jointly(events, EstimatorOptions(), np.ones(2))
        assert components is not None
        assert score is not None
        assert events.theta_weight is not None
        sigma = monomials(THETA) @ CROSS_SECTION
        ratio = (components.double().numpy() * monomials(THETA)).sum(axis=1) / sigma
        own = np.log(np.average(_densities(events), axis=1, weights=events.theta_weight))
        exact = np.log(np.diagonal(_densities(events))) - own
        np.testing.assert_allclose(np.log(ratio), exact, atol=1e-5)
        np.testing.assert_allclose(score.numpy(), EVENTS.require_score(), atol=1e-5)
    index = np.arange(N).repeat(COUNTS)
    few = told_jointly(
        replace(EVENTS, weight=COUNTS.astype(float)), EstimatorOptions(), np.ones(2)
    )
    many = told_jointly(EVENTS.take(index), EstimatorOptions(), np.ones(2))
    assert few[1] is not None
    assert many[1] is not None
    torch.testing.assert_close(few[1][index], many[1])


def _densities(events: EventSample) -> np.ndarray:
    """Return p(x_i|theta_m) up to a factor of x, (N, M)."""
    w = monomials(THETA)
    return events.require_components() @ w.T / (w @ CROSS_SECTION)


def test_the_exact_ratio_of_the_toys_is_to_equal_thetas():
    expected = np.log(np.diagonal(_densities(EVENTS))) - np.log(_densities(EVENTS).mean(axis=1))
    np.testing.assert_allclose(exact_log_ratio(EVENTS.x, THETA, THETA), expected)


def test_the_prior_of_signed_events_is_positive_and_theirs():
    events = _signed()
    assert events.theta_weight is not None
    assert events.training_weight is not None
    assert events.theta_weight.min() >= 0
    again = theta_weights(THETA * [3.0, 0.1] + 1.0, events.training_weight)  # in any units
    np.testing.assert_allclose(again, events.theta_weight)
