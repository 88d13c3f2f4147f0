"""Fisher information: closed forms, sums, profiling, bootstrap errors, learned scores."""

import numpy as np
import pytest
import torch

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.inference import exact_likelihood
from mflow_sbi.inference.cross_section import CrossSection
from mflow_sbi.inference.rates import FixedYield, LogNormalFactor, ProductRate, RateModel
from mflow_sbi.intervals import (
    EventPool,
    FisherInformation,
    hessian_information,
    learned_curvatures,
    learned_scores,
    rate_information,
    score_information,
    stationary_weights,
)

from .toys import Closed, covariance, normal

NAMES = ("a", "b")


def _normal_scores(n: int, matrix: np.ndarray) -> np.ndarray:
    x = np.random.default_rng(1).multivariate_normal(np.zeros(len(matrix)), matrix, size=n)
    return x @ np.linalg.inv(matrix)


def test_scores_of_normal_means_give_the_inverse_covariance_within_the_error():
    matrix = covariance(2)
    found = score_information(NAMES, _normal_scores(20_000, matrix), np.random.default_rng(2))
    expected = np.linalg.inv(matrix)
    assert (np.abs(found.matrix - expected) < 4 * found.error).all()
    # var(t_k^2) = 2 I_kk^2 for normal scores
    np.testing.assert_allclose(
        np.diag(found.error), np.sqrt(2 / 20_000) * np.diag(expected), rtol=0.25
    )
    assert (found.eigenvalue_error < 0.05 * found.eigenvalues).all()


def test_weights_stand_for_copies():
    scores = np.random.default_rng(3).normal(size=(50, 2))
    copies = np.random.default_rng(4).integers(0, 4, 50)
    rng = np.random.default_rng(1)
    weighted = score_information(NAMES, scores, rng, weights=copies.astype(float))
    repeated = score_information(NAMES, np.repeat(scores, copies, axis=0), rng)
    np.testing.assert_allclose(weighted.matrix, repeated.matrix, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 3])
def test_hessian_of_a_normal_likelihood(p):
    matrix = covariance(p)
    found = hessian_information(normal(np.zeros(p), matrix), np.full(p, 0.2))
    np.testing.assert_allclose(found.matrix, np.linalg.inv(matrix), rtol=1e-8)
    np.testing.assert_allclose(found.covariance, matrix, rtol=1e-7)
    np.testing.assert_allclose(found.std, np.sqrt(np.diag(matrix)), rtol=1e-7)


def test_hessian_differences_are_extrapolated():
    steep = Closed("a", lambda t: -np.exp(5 * t[:, 0]), lambda t: -5 * np.exp(5 * t))
    found = hessian_information(steep, [0.0], steps=0.05)
    assert found.matrix[0, 0] == pytest.approx(25, rel=1e-4)


def test_hessian_of_many_events_is_the_information_of_their_scores(pool):
    """The Hessian fluctuates about the information: within the errors, for drawn events."""
    theta = (0.5, 0.0)
    events, _ = pool.draw(theta, 300, np.random.default_rng(4), n_events=20)
    sample = pool.sample.take(events)
    hessian = hessian_information(exact_likelihood(sample), theta).scaled(1 / len(sample))
    scores = EventPool(sample).scores(theta)
    found = score_information(sample.parameter_names, scores, np.random.default_rng(1))
    assert (np.abs(hessian.matrix - found.matrix) < 4 * found.error).all()
    assert (found.error < 0.08 * np.abs(found.matrix).max()).all()


def test_rates_tell_by_their_slope():
    rate = ProductRate((FixedYield(100.0), LogNormalFactor("nu", 1.1)))
    found = rate_information(rate, [0.0])
    assert found.parameter_names == ("nu",)
    assert found.matrix[0, 0] == pytest.approx(100 * np.log(1.1) ** 2)


def test_information_of_shape_and_rate_is_the_hessian_of_the_extended_likelihood(pool):
    theta, luminosity = np.array([0.5, 0.0]), 0.1
    rate = RateModel(CrossSection.from_metadata(pool.sample.metadata), luminosity)
    shape = score_information(
        pool.parameter_names,
        pool.scores(theta),
        np.random.default_rng(1),
        weights=pool.weights(theta),
    )
    both = shape.scaled(pool.expected_events(theta, luminosity)) + rate_information(rate, theta)
    hessian = hessian_information(pool.asimov(theta, luminosity=luminosity), theta)
    np.testing.assert_allclose(both.matrix, hessian.matrix, rtol=1e-5, atol=1e-4)
    twice = hessian_information(pool.asimov(theta, luminosity=2 * luminosity), theta)
    np.testing.assert_allclose(twice.matrix, 2 * hessian.matrix, rtol=1e-9)


def test_eigenvectors_are_directions_in_decreasing_order():
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    found = FisherInformation(NAMES, turn.T @ np.diag([9.0, 1.0]) @ turn)
    np.testing.assert_allclose(found.eigenvalues, [9, 1])
    np.testing.assert_allclose(found.eigenvectors, [[0.8, 0.6], [-0.6, 0.8]])
    assert found.directions() == ["+0.800 a +0.600 b", "-0.600 a +0.800 b"]
    for value, row in zip(found.eigenvalues, found.eigenvectors, strict=True):
        np.testing.assert_allclose(found.matrix @ row, value * row)


def test_profiling_and_knowing_parameters():
    matrix = covariance(3)
    found = FisherInformation(("a", "b", "c"), np.asarray(np.linalg.inv(matrix), np.float64))
    np.testing.assert_allclose(found.profiled(["b"]).covariance, matrix[np.ix_([0, 2], [0, 2])])
    known = found.without(["b"])
    assert known.parameter_names == ("a", "c")
    np.testing.assert_allclose(known.matrix, found.matrix[np.ix_([0, 2], [0, 2])])


def test_sums_and_multiples_carry_their_errors():
    scores = np.random.default_rng(3).normal(size=(500, 2))
    one, other = (score_information(NAMES, scores, np.random.default_rng(s)) for s in (1, 2))
    total = one + other.scaled(2)
    np.testing.assert_allclose(total.matrix, 3 * one.matrix)
    expected = np.sqrt(one.error**2 + 4 * other.error**2)
    np.testing.assert_allclose(total.error, expected, rtol=0.3)
    exact = FisherInformation(NAMES, np.eye(2))
    np.testing.assert_allclose((one + exact).error, one.error)
    assert (exact + exact).replicas is None
    assert (exact.error == 0).all()
    assert (exact.eigenvalue_error == 0).all()
    assert one.profiled(["a"]).error[0, 0] > 0
    assert one.to_dict()["eigenvalues"] == one.eigenvalues.tolist()


class _Learned:
    """u = x and u ~ N((a, b, a b), 1)."""

    parameter_names = NAMES
    parameter_ranges = np.array([[-2.0, 2.0], [-2.0, 2.0]])

    def encode(self, x):
        return torch.as_tensor(x)

    def latent_log_likelihood(self, u, theta):
        a, b = theta[..., 0], theta[..., 1]
        mean = torch.stack([a, b, a * b], dim=-1)
        return -0.5 * (u - mean).square().sum(dim=-1)


def test_learned_scores_are_gradients_of_the_learned_density():
    theta = np.array([0.5, -1.5])
    jacobian = np.array([[1, 0], [0, 1], [theta[1], theta[0]]])
    mean = np.array([*theta, theta.prod()])
    x = mean + np.random.default_rng(1).normal(size=(5000, 3))
    scores = learned_scores(_Learned(), x, theta, chunk_rows=999)
    np.testing.assert_allclose(scores, (x - mean) @ jacobian)
    found = score_information(NAMES, scores, np.random.default_rng(2))
    assert (np.abs(found.matrix - jacobian.T @ jacobian) < 4 * found.error).all()


RNG = np.random.default_rng(1)
ONE = FisherInformation(NAMES, np.eye(2))
CLIFF = Closed("a", lambda t: np.where(t[:, 0] < 0, 0.0, -np.inf), np.zeros_like)
ERRORS = {
    "matrix": (lambda: FisherInformation(NAMES, np.eye(3)), ShapeError, "expected"),
    "scores": (lambda: score_information(NAMES, np.ones((3, 1)), RNG), ShapeError, "scores"),
    "NaN": (
        lambda: score_information(NAMES, np.full((3, 2), np.nan), RNG),
        IntervalError,
        "finite",
    ),
    "no events": (
        lambda: score_information(NAMES, np.ones((0, 2)), RNG),
        IntervalError,
        "0 events",
    ),
    "other parameters": (
        lambda: ONE + FisherInformation(("b", "a"), np.eye(2)),
        IntervalError,
        "same parameters",
    ),
    "singular": (
        lambda: FisherInformation(NAMES, np.ones((2, 2))).std,
        IntervalError,
        "got none on",
    ),
    "all profiled": (lambda: ONE.profiled(NAMES), IntervalError, "not all"),
    "unknown": (lambda: ONE.without(["c"]), IntervalError, "some"),
    "theta": (lambda: hessian_information(CLIFF, [0.0, 0.0]), ShapeError, "theta"),
    "cliff": (lambda: hessian_information(CLIFF, [0.0]), IntervalError, "positive likelihood"),
    "no rate": (lambda: rate_information(FixedYield(0.0), []), IntervalError, "positive one"),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_learned_curvatures_are_derivatives_of_the_scores():
    """log p = -(x - sin a)^2 / 2 - a b^2: second derivatives known."""

    class Learned:
        parameter_names = NAMES
        parameter_ranges = np.array([[-2.0, 2.0]] * 2)

        def encode(self, x):
            return torch.as_tensor(x)

        def latent_log_likelihood(self, u, theta):
            a, b = theta[..., 0], theta[..., 1]
            return -0.5 * (u[..., 0] - torch.sin(a)) ** 2 - a * b**2

    x = np.random.default_rng(1).normal(size=(50, 1))
    a, b = 0.4, -0.3
    found = learned_curvatures(Learned(), x, [a, b], [1e-4, 1e-4])
    aa = -(np.cos(a) ** 2) - (x[:, 0] - np.sin(a)) * np.sin(a)
    np.testing.assert_allclose(found[:, 0, 0], aa, atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], -2 * b, atol=1e-6)
    np.testing.assert_allclose(found[:, 1, 0], -2 * b, atol=1e-6)
    np.testing.assert_allclose(found[:, 1, 1], -2 * a, atol=1e-6)


def test_stationary_weights_are_the_nearest_with_mean_zero():
    rng = np.random.default_rng(2)
    f, start = rng.standard_t(3, size=(400, 3)) + 0.1, rng.uniform(0.5, 2.0, size=400)
    u = stationary_weights(f, start)
    assert u.sum() == pytest.approx(1)
    assert (u > 0).all()
    np.testing.assert_allclose(u @ f, 0, atol=1e-7)
    # in relative entropy: log(u / start) is linear in f
    design = np.column_stack([f, np.ones(len(f))])
    residuals = np.log(u / start) - design @ np.linalg.lstsq(design, np.log(u / start))[0]
    np.testing.assert_allclose(residuals, 0, atol=1e-7)


@pytest.mark.parametrize(
    ("functions", "error", "words"),
    [
        (np.ones((5, 1)), IntervalError, "take more events"),
        (np.ones(5), ShapeError, "expected functions"),
        (np.empty((0, 2)), ShapeError, "expected functions"),
    ],
)
def test_stationary_weights_refuse(functions, error, words):
    with pytest.raises(error, match=words):
        stationary_weights(functions)
