"""Polynomial morphing against a model whose likelihood is known in closed form."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.morphing import (
    MorphingBasis,
    log_likelihood,
    log_likelihood_and_score_of_set,
    log_likelihood_of_set,
    score,
    total_cross_section,
)

BASIS = MorphingBasis(np.array([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]))
points = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=5).map(
    np.array
)


def squared_amplitudes(n, seed=0):
    """c_k(x) of |f_0 + t0 f_1 + t1 f_2|^2 for random amplitudes f, and their sum as C."""
    f = np.random.default_rng(seed).normal(size=(n, 3))
    c = np.column_stack(
        [
            f[:, 0] ** 2,
            2 * f[:, 0] * f[:, 1],
            2 * f[:, 0] * f[:, 2],
            f[:, 1] ** 2,
            2 * f[:, 1] * f[:, 2],
            f[:, 2] ** 2,
        ]
    )
    return f, c


@given(points)
def test_weights_are_the_monomials(theta):
    t0, t1 = theta.T
    expected = np.column_stack([np.ones_like(t0), t0, t1, t0**2, t0 * t1, t1**2])
    np.testing.assert_allclose(BASIS.weights(theta), expected, rtol=1e-14)


@given(points)
def test_gradient_is_the_derivative(theta):
    t0, t1 = theta.T
    zero, one = np.zeros_like(t0), np.ones_like(t0)
    by_t0 = np.column_stack([zero, one, zero, 2 * t0, t1, zero])
    by_t1 = np.column_stack([zero, zero, one, zero, t0, 2 * t1])
    expected = np.stack([by_t0, by_t1], axis=2)
    np.testing.assert_allclose(BASIS.gradient(theta), expected, rtol=1e-14)


def test_gradient_of_high_powers_in_three_parameters():
    basis = MorphingBasis(np.array([[3, 0, 2], [1, 1, 1], [0, 4, 0]]))
    theta, step = np.array([[0.7, -1.2, 0.4]]), 1e-6
    for j in range(3):
        shift = step * np.eye(3)[j]
        numeric = (basis.weights(theta + shift) - basis.weights(theta - shift)) / (2 * step)
        np.testing.assert_allclose(basis.gradient(theta)[:, :, j], numeric, rtol=1e-8, atol=1e-9)


@given(points, st.integers(0, 1000))
def test_likelihood_is_the_normalised_squared_amplitude(theta, seed):
    f, c = squared_amplitudes(7, seed)
    amplitude = f[:, 0] + theta[:, :1] * f[:, 1] + theta[:, 1:] * f[:, 2]
    total = (amplitude**2).sum(axis=1)
    inside = (amplitude**2 > 1e-6 * total[:, None]).all(axis=1)  # away from cancellation
    result = log_likelihood(BASIS, c, c.sum(axis=0), theta)
    expected = np.log(amplitude**2) - np.log(total)[:, None]
    np.testing.assert_allclose(result[inside], expected[inside], atol=1e-8)
    np.testing.assert_allclose(np.exp(result).sum(axis=1), 1, rtol=1e-9)
    of_set = log_likelihood_of_set(BASIS, c, c.sum(axis=0), theta)
    np.testing.assert_allclose(of_set, result.sum(axis=1), rtol=1e-12)


def test_no_density_is_minus_infinity():
    _, c = squared_amplitudes(4)
    c[2] = 0.0
    result = log_likelihood(BASIS, c, c.sum(axis=0), [[0.3, 0.2], [1.0, 1.0]])
    assert np.isneginf(result[:, 2]).all()
    assert np.isfinite(np.delete(result, 2, axis=1)).all()
    assert np.isneginf(log_likelihood_of_set(BASIS, c, c.sum(axis=0), [[0.0, 0.0]]))


def test_score_is_the_gradient_of_the_log_likelihood():
    _, c = squared_amplitudes(50)
    total, step = c.sum(axis=0), 1e-6
    theta = np.random.default_rng(1).normal(size=(50, 2))
    result = score(BASIS, c, total, theta)
    for j in range(2):
        shift = step * np.eye(2)[j]
        upper = np.diag(log_likelihood(BASIS, c, total, theta + shift))
        lower = np.diag(log_likelihood(BASIS, c, total, theta - shift))
        np.testing.assert_allclose(
            result[:, j], (upper - lower) / (2 * step), rtol=1e-5, atol=1e-6
        )


@given(points, st.integers(0, 1000))
def test_score_of_a_set_is_the_sum_of_its_scores(theta, seed):
    _, c = squared_amplitudes(7, seed)
    total = c.sum(axis=0)
    values, scores = log_likelihood_and_score_of_set(BASIS, c, total, theta)
    assert np.array_equal(values, log_likelihood_of_set(BASIS, c, total, theta))
    inside = np.isfinite(values)
    expected = [score(BASIS, c, total, at[None]).sum(axis=0) for at in theta[inside]]
    difference = np.abs(scores[inside] - np.reshape(expected, (-1, 2))).max(axis=1, initial=0.0)
    size = 1.0 + np.abs(np.reshape(expected, (-1, 2))).max(axis=1, initial=0.0)
    weights = BASIS.weights(theta[inside])
    cancellation = (np.abs(weights) @ np.abs(c).T / (weights @ c.T)).max(axis=1)
    rounding = np.finfo(float).eps * cancellation  # of w . c where its terms nearly cancel
    assert (difference <= size * (1e-9 + 100 * rounding)).all()


def test_score_of_a_set_without_density_is_zero():
    _, c = squared_amplitudes(4)
    c[2] = 0.0
    values, scores = log_likelihood_and_score_of_set(BASIS, c, c.sum(axis=0), [[0.3, 0.2]])
    assert np.isneginf(values).all()
    assert np.array_equal(scores, np.zeros((1, 2)))


def test_one_point_for_all_events():
    _, c = squared_amplitudes(5)
    one = score(BASIS, c, c.sum(axis=0), [[0.2, -0.1]])
    each = score(BASIS, c, c.sum(axis=0), np.tile([0.2, -0.1], (5, 1)))
    np.testing.assert_array_equal(one, each)


def test_expected_score_vanishes():
    _, c = squared_amplitudes(1000)
    theta = np.array([[0.4, -0.3]])
    p = np.exp(log_likelihood(BASIS, c, c.sum(axis=0), theta))[0]
    np.testing.assert_allclose(p @ score(BASIS, c, c.sum(axis=0), theta), 0, atol=1e-12)


@pytest.mark.parametrize("of_set", [log_likelihood_of_set, log_likelihood_and_score_of_set])
def test_memory_of_a_set_is_bounded(of_set):
    _, c = squared_amplitudes(20_000)
    theta = np.random.default_rng(0).normal(size=(2_000, 2))
    tracemalloc.start()
    of_set(BASIS, c, c.sum(axis=0), theta)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6  # the matrix of all pairs would take 320 MB


_, GOOD = squared_amplitudes(3)
TOTAL = GOOD.sum(axis=0)
ORIGIN = [[0.0, 0.0]]
REFUSED = {
    "theta of three": (lambda: BASIS.weights([[1.0, 2, 3]]), ShapeError, r"\(M, 2\)"),
    "theta vector": (lambda: BASIS.weights([1.0, 2.0]), ShapeError, r"\(M, 2\)"),
    "theta nan": (lambda: BASIS.weights([[np.nan, 0]]), ParameterRangeError, "finite"),
    "five components": (
        lambda: log_likelihood(BASIS, GOOD[:, :5], TOTAL, ORIGIN),
        ShapeError,
        r"components: expected shape \(N, 6\); got \(3, 5\)",
    ),
    "five cross sections": (
        lambda: log_likelihood(BASIS, GOOD, TOTAL[:5], ORIGIN),
        ShapeError,
        r"cross_section: expected shape \(6,\); got \(5,\)",
    ),
    "components nan": (
        lambda: log_likelihood(BASIS, GOOD * np.nan, TOTAL, ORIGIN),
        EventDataError,
        "components: expected finite",
    ),
    "cross section zero": (
        lambda: total_cross_section(BASIS, [0, 1, 0, 0, 0, 0], [[1.0, 0], [0, 0], [-2, 0]]),
        ParameterRangeError,
        r"cross section -2 pb at theta = \[-2.0, 0.0\] \(2 of 3 points\)",
    ),
    "score outside": (
        lambda: score(BASIS, 0 * GOOD, TOTAL, ORIGIN),
        EventDataError,
        "3 of 3 events have no density",
    ),
    "score of four points": (
        lambda: score(BASIS, GOOD, TOTAL, np.zeros((4, 2))),
        ShapeError,
        r"expected theta \(3, p\) or \(1, p\); got 4",
    ),
    "exponents": (lambda: MorphingBasis(np.array([[0], [0]])), ShapeError, "different rows"),
    "negative": (lambda: MorphingBasis(np.array([[-1]])), ShapeError, ">= 0"),
    "fractions": (lambda: MorphingBasis(np.array([[0.5]])), ShapeError, "integers"),
    "no rows": (lambda: MorphingBasis(np.zeros((0, 2), int)), ShapeError, "expected"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    make, error, message = case
    with pytest.raises(error, match=message):
        make()
