"""Cross sections, ratios and scores of weighted events against direct sums and exact errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.morphing import (
    CrossSectionEstimate,
    MorphingBasis,
    joint_ratio,
    joint_score,
    log_likelihood,
    score,
)

BASIS = MorphingBasis.of_degree(2, 2)
THETA = np.array([[0.0, 0.0], [0.4, -0.3], [-1.0, 0.8]])


def components(x):
    """c_k / N(x; 0, 1) of [1 + t0 x0 + t1 (x0 + x1) / 2]^2; C = 1, 0, 0, 1, 1, 1/2."""
    a, b, c = np.ones(len(x)), x[:, 0], x.sum(axis=1) / 2
    return np.stack([a, 2 * b, 2 * c, b * b, 2 * b * c, c * c], axis=1)


TOTAL = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.5])


def events(n, seed):
    return components(np.random.default_rng(seed).normal(size=(n, 2)))


def test_estimate_is_that_of_the_weights_at_each_point():
    y = events(500, 1)
    estimate = CrossSectionEstimate.of(BASIS, y)
    sigma, error = estimate.cross_section(THETA)
    for m, w in enumerate(BASIS.weights(THETA)):
        weight = y @ w
        assert sigma[m] == pytest.approx(weight.mean())
        assert error[m] == pytest.approx(weight.std(ddof=1) / np.sqrt(500), abs=1e-9)
        n_eff = weight.sum() ** 2 / np.square(weight).sum()
        assert estimate.effective_events(THETA)[m] == pytest.approx(n_eff)
    assert error[0] < 1e-8  # all weights are one there
    np.testing.assert_allclose(estimate.error, y.std(axis=0, ddof=1) / np.sqrt(500), atol=1e-9)


def test_events_that_were_not_selected_count_as_zeros():
    y = events(400, 2)
    kept = y[:, 1] > 0
    padded = CrossSectionEstimate.of(BASIS, np.where(kept[:, None], y, 0.0))
    carried = y[kept] * kept.mean()  # mean over the selected ones is C after the selection
    selected = CrossSectionEstimate.of(BASIS, carried, 400)
    np.testing.assert_allclose(selected.value, padded.value)
    np.testing.assert_allclose(selected.covariance, padded.covariance, atol=1e-12)
    np.testing.assert_allclose(
        selected.effective_events(THETA), padded.effective_events(THETA), rtol=1e-9
    )


def test_pulls_are_standard_normal():
    at = THETA[1:]
    exact = BASIS.weights(at) @ TOTAL
    exact_slope = np.einsum("mkp,k->mp", BASIS.gradient(at), TOTAL) / exact[:, None]
    pulls = {"sigma": [], "ratio": [], "score": []}
    for seed in range(400):
        estimate = CrossSectionEstimate.of(BASIS, events(800, 100 + seed))
        sigma, error = estimate.cross_section(at)
        pulls["sigma"].append((sigma - exact) / error)
        log_ratio = np.log(sigma[0] / sigma[1]) - np.log(exact[0] / exact[1])
        pulls["ratio"].append(log_ratio / estimate.ratio_error(at[:1], at[1:]))
        slope = np.einsum("mkp,k->mp", BASIS.gradient(at), estimate.value) / sigma[:, None]
        spread = np.sqrt(np.diagonal(estimate.score_covariance(at), axis1=1, axis2=2))
        pulls["score"].append((slope - exact_slope) / spread)
    for values in pulls.values():
        array = np.array(values).reshape(400, -1)
        assert np.abs(array.mean(axis=0)).max() < 4 / np.sqrt(400) + 0.05
        assert np.abs(array.std(axis=0) - 1).max() < 0.15


def test_ratio_and_score_are_those_of_the_likelihood():
    y = events(60, 3)
    near, far = THETA[1:2], THETA[2:]
    expected = np.exp(
        log_likelihood(BASIS, y, TOTAL, near)[0] - log_likelihood(BASIS, y, TOTAL, far)[0]
    )
    np.testing.assert_allclose(joint_ratio(BASIS, y, TOTAL, near, far), expected, rtol=1e-9)
    np.testing.assert_allclose(
        joint_score(BASIS, y, TOTAL, near), score(BASIS, y, TOTAL, near), rtol=1e-9, atol=1e-9
    )


@given(st.integers(0, 1000))
def test_a_factor_of_an_event_of_either_sign_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    y, factor = events(20, seed), rng.normal(size=(20, 1)) + 0.01
    for f in (
        lambda c: joint_score(BASIS, c, TOTAL, THETA[1:2]),
        lambda c: joint_ratio(BASIS, c, TOTAL, THETA[1:2], THETA[2:]),
    ):
        np.testing.assert_allclose(f(y * factor), f(y), rtol=1e-6, atol=1e-8)


def test_expectations_of_ratio_and_score_with_signed_weights():
    rng = np.random.default_rng(5)
    y = events(200_000, 4) * np.where(rng.random(200_000) < 0.25, -1.0, 5 / 3)[:, None]
    total = y.mean(axis=0)
    w = BASIS.weights(THETA[1:2])[0]
    weight = y @ w
    t = joint_score(BASIS, y, total, THETA[1:2])
    np.testing.assert_allclose(weight @ t / weight.sum(), 0, atol=1e-9)
    r = joint_ratio(BASIS, y, total, THETA[2:], THETA[1:2])
    assert weight @ r / weight.sum() == pytest.approx(1, abs=1e-9)
    estimate = CrossSectionEstimate.of(BASIS, y)
    sigma, error = estimate.cross_section(THETA)
    assert (np.abs(sigma - BASIS.weights(THETA) @ TOTAL) < 4 * error).all()


REFUSED = {
    "one event": (
        lambda: CrossSectionEstimate.of(BASIS, events(1, 1)),
        EventDataError,
        "at least two events",
    ),
    "fewer generated": (
        lambda: CrossSectionEstimate.of(BASIS, events(9, 1), 8),
        ShapeError,
        "at least as many generated events as selected ones, 9; got 8",
    ),
    "negative rate": (
        lambda: CrossSectionEstimate.of(BASIS, -events(9, 1)).cross_section(THETA),
        ParameterRangeError,
        "expected a positive one",
    ),
    "zero weight": (
        lambda: joint_score(BASIS, np.zeros((3, 6)), TOTAL, THETA[:1]),
        EventDataError,
        "3 of 3 events have weight zero",
    ),
    "zero below": (
        lambda: joint_ratio(BASIS, np.zeros((3, 6)), TOTAL, THETA[:1], THETA[:1]),
        EventDataError,
        "weight zero at theta_1",
    ),
    "points": (
        lambda: joint_ratio(BASIS, events(4, 1), TOTAL, THETA, THETA),
        ShapeError,
        r"expected theta \(4, p\) or \(1, p\) for 4 events; got 3 points",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    make, error, message = case
    with pytest.raises(error, match=message):
        make()
