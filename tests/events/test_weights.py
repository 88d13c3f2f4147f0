"""Weights of training events: what they leave of the statistics, and the prior they make."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.weights import (
    LEAST_EFFECTIVE_EVENTS,
    WeightSummary,
    equal_weights,
    spread_rows,
    theta_weights,
    training_weights,
)

from .test_sample import sample


def _signed(n: int, seed: int, negative: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(n) < negative, -1.0, 1.0)
    return rng.normal(size=(n, 2)), signs * rng.exponential(size=n)


@given(st.integers(1, 100), st.integers(1, 10**6))
def test_the_effective_size_of_equal_weights_is_their_number(n, seed):
    scale = np.random.default_rng(seed).lognormal(sigma=50.0)
    assert WeightSummary.of(np.full(n, scale)).n_effective == pytest.approx(n)
    assert equal_weights(np.full(n, scale))
    assert training_weights(np.full(n, scale)) is None


def test_the_effective_size_is_the_variance_of_averages():
    rng = np.random.default_rng(0)
    _, weight = _signed(400, 1)
    summary = WeightSummary.of(weight)
    noise = rng.normal(size=(4000, 400)) @ weight / weight.sum()
    assert 1 / noise.var() == pytest.approx(summary.n_effective, rel=0.1)
    assert summary.negative_share == (weight < 0).mean()
    assert summary.cancelled_share == pytest.approx(1 - weight.sum() / np.abs(weight).sum())
    assert summary.largest_share == pytest.approx(np.abs(weight).max() / np.abs(weight).sum())
    for number in (f"{summary.n_effective:,.0f}", f"{summary.negative_share:.2%}"):
        assert number in str(summary)


def test_weights_for_training_have_mean_one_and_no_scale():
    _, weight = _signed(4000, 2)
    got = training_weights(weight)
    assert got is not None
    assert got.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(got * weight.sum(), weight * len(weight))
    again = training_weights(1e-12 * weight)
    assert again is not None
    np.testing.assert_allclose(again, got)


REFUSED = {
    "not finite": (np.array([1.0, np.nan, 2.0, np.inf]), "2 of 4 event weights are not finite"),
    "all negative": (np.full(1000, -1.0), "1,000 events sum to -1e.03; expected a positive sum"),
    "all zero": (np.zeros(10), "sum to 0"),
    "few": (np.linspace(1, 2, LEAST_EFFECTIVE_EVENTS), "needs an effective size of at least 200"),
    "one giant": (np.r_[1e6, np.ones(9999)], "effective size .* = 1 .0.01%.*more events"),
    "a share": (
        np.r_[np.full(400, 1e4), np.ones(99_600)],
        "= 420 .0.42%.*1% of the events, here 1,000",
    ),
    "cancelled": (
        np.r_[np.ones(5000), np.full(4800, -1.0)],
        r"= 4 .0.04%.*48.98% of them have negative weights, which cancel 97.96%",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_weights_that_nothing_can_be_learned_from(case):
    weight, message = case
    with pytest.raises(EventDataError, match=message):
        training_weights(weight)


def test_a_sample_knows_its_weights():
    n = 600
    rounding = 3.0 * (1 + 1e-7 * np.sin(np.arange(n)))
    for weight in (None, np.full(n, 0.3), rounding):
        events = sample(n, weight=weight)
        assert events.training_weight is None
        assert events.theta_weight is None
        assert events.weight_notes == ()
        events.require_unweighted()
    weight = np.linspace(-0.1, 1.0, n)
    events = sample(n, weight=weight)
    assert events.training_weight is not None
    assert events.theta_weight is not None
    assert events.training_weight.min() < 0 <= events.theta_weight.min()
    assert "negative weights" in events.weight_notes[0]
    for unequal in (weight, -np.ones(n), np.full(n, np.nan), np.r_[np.nan, np.ones(n - 1)]):
        with pytest.raises(EventDataError, match="expected unweighted events"):
            sample(n, weight=unequal).require_unweighted()


@given(st.integers(2, 300), st.integers(0, 10**6), st.floats(0.0, 0.45))
def test_the_prior_has_no_negative_weights_and_keeps_the_sum(n, seed, negative):
    theta, weight = _signed(n, seed, negative)
    weight[0] += 1.0 + np.abs(weight).sum()  # of positive sum, whatever the draw
    got = theta_weights(theta, weight)
    assert got.min() >= 0
    assert got.sum() == pytest.approx(weight.sum())
    np.testing.assert_array_equal(theta_weights(theta, np.abs(weight)), np.abs(weight))


@given(st.integers(0, 10**6))
def test_the_prior_at_discrete_thetas_is_their_sum_of_weights(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(7, 2))
    index = rng.integers(7, size=500)
    weight = np.where(rng.random(500) < 0.3, -1.0, 1.0) * rng.uniform(0.5, 1.5, size=500)
    sums = np.bincount(index, weight, minlength=7)
    got = np.bincount(index, theta_weights(points[index], weight), minlength=7)
    if sums.min() >= 0:
        np.testing.assert_allclose(got, sums, atol=1e-9)
    assert got.min() >= 0


def test_the_prior_averages_as_signed_weights_do():
    theta, weight = _signed(20_000, 3)
    got = theta_weights(theta, weight)
    error = WeightSummary.of(weight).n_effective ** -0.5
    for values in (theta[:, 0], theta[:, 1] ** 2, theta.prod(axis=1), np.cos(3 * theta[:, 0])):
        here, there = (np.average(values, weights=w) for w in (weight, got))
        assert abs(here - there) < 0.25 * error * values.std()  # well below the noise of either
    assert WeightSummary.of(got).n_effective > 2 * WeightSummary.of(weight).n_effective


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 10**6))
def test_spread_rows_come_as_often_as_they_weigh(n_rows, n, seed):
    weight = np.random.default_rng(seed).exponential(size=n_rows)
    weight[: n_rows // 3] = 0.0
    rows = spread_rows(n_rows, n, weight)
    assert rows.shape == (n,)
    counts = np.bincount(rows, minlength=n_rows)
    assert np.abs(counts - n * weight / weight.sum()).max() < 1 + 1e-9
    assert not counts[weight == 0].any()


def test_spread_rows_of_integer_weights_repeat_them():
    counts = np.array([2, 0, 1, 5, 3])
    rows = spread_rows(5, 11, counts.astype(float))
    np.testing.assert_array_equal(rows, np.arange(5).repeat(counts))
    np.testing.assert_array_equal(spread_rows(5, 5), np.arange(5))
