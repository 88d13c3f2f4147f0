"""Metrics obey their formulae and say what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.evaluation.metrics import (
    ProjectionMetrics,
    marginal_distances,
    posterior_metrics,
    projection_metrics,
    reconstruction_error,
)
from mflow_sbi.inference import FlatLikelihood, NormalPrior, common_grid, grid_posterior

NAMES = ("CWL2", "CPWL2")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))


def test_reconstruction_error_is_the_clipped_mean_distance() -> None:
    x = np.zeros((3, 2))
    projected = np.array([[3.0, 4.0], [0.0, 0.0], [100.0, 0.0]])
    assert reconstruction_error(x, projected) == pytest.approx((5 + 0 + 10) / 3)


def test_events_without_a_projection_are_counted_and_left_out() -> None:
    x = np.zeros((4, 2))
    projected = np.array([[3.0, 4.0], [np.nan, np.nan], [0.0, 1.0], [np.nan, 0.0]])
    found = np.array([True, False, True, False])
    assert projection_metrics(x, projected, found) == ProjectionMetrics(2, 3.0)
    assert projection_metrics(x, projected, found & False) == ProjectionMetrics(4, None)
    with pytest.raises(EventDataError):
        projection_metrics(x, projected, found | True)


def test_reconstruction_error_of_random_pairs() -> None:
    """sqrt(2) E chi_40 = 8.89, a little less by the clip at 10."""
    rng = np.random.default_rng(0)
    assert 8.6 < reconstruction_error(*rng.normal(size=(2, 20_000, 40))) < 8.9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000), st.sampled_from([0, 9]))
def test_marginal_distances_are_their_definitions(n: int, m: int, seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).round(digits)  # no digits: many ties
    y = rng.normal(0.3, 1.2, size=(m, 2)).round(digits)
    for k, distance in enumerate(marginal_distances(x, y, NAMES)):
        a, b = x[:, k], y[:, k]
        expected = max(abs(np.mean(a <= v) - np.mean(b <= v)) for v in [*a, *b])
        assert distance.kolmogorov_smirnov == pytest.approx(expected, abs=1e-12)
        spread = x[:, k].std()
        if spread > 0:
            expected = stats.wasserstein_distance(x[:, k], y[:, k]) / spread
            assert distance.wasserstein == pytest.approx(expected, rel=1e-9)


def test_noise_is_exceeded_by_five_percent_of_equal_samples() -> None:
    rng = np.random.default_rng(1)
    names = [f"x{k}" for k in range(600)]
    distances = marginal_distances(rng.normal(size=(300, 600)), rng.normal(size=(500, 600)), names)
    exceeding = np.mean([d.kolmogorov_smirnov > d.noise for d in distances])
    assert exceeding == pytest.approx(0.05, abs=0.03)


def test_exact_posterior_is_at_distance_zero_of_itself() -> None:
    posterior = grid_posterior(FlatLikelihood(NAMES), PRIOR, common_grid([], PRIOR))
    metrics = posterior_metrics(posterior, posterior, np.array([0.5, 0.0]))
    assert (metrics.total_variation, metrics.kullback_leibler) == (0, 0)
    expected = -np.log(2 * np.pi) - 0.125
    assert metrics.log_prob_at_truth == pytest.approx(expected, abs=1e-4)
    assert metrics.entropy == pytest.approx(1 + np.log(2 * np.pi), abs=1e-3)
    unknown = posterior_metrics(posterior, None, None)
    assert unknown.log_prob_at_truth is None
    assert unknown.total_variation is None
    with pytest.raises(ShapeError, match=r"truth: expected shape \(2,\)"):
        posterior_metrics(posterior, None, np.zeros(3))


ERRORS = {
    "other shape": (lambda: reconstruction_error(np.zeros((2, 3)), np.zeros((2, 4))), ShapeError),
    "flags": (
        lambda: projection_metrics(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3, dtype=bool)),
        ShapeError,
    ),
    "no table": (lambda: reconstruction_error(np.zeros(3), np.zeros(3)), ShapeError),
    "NaN": (
        lambda: reconstruction_error(np.full((1, 2), np.nan), np.zeros((1, 2))),
        EventDataError,
    ),
    "no events": (
        lambda: marginal_distances(np.zeros((0, 2)), np.zeros((1, 2)), NAMES),
        EventDataError,
    ),
    "names": (lambda: marginal_distances(np.zeros((1, 3)), np.zeros((1, 3)), NAMES), ShapeError),
}


@pytest.mark.parametrize(("call", "error"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error) -> None:
    with pytest.raises(error, match="expected"):
        call()
