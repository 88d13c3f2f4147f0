"""Ranks and coverage: exact for normal posteriors, flat for exact ones, telling for wrong ones."""

import re

import numpy as np
import pytest
from scipy.stats import chi2, norm

from mflow_sbi.calibration import (
    CalibrationReport,
    calibration_report,
    draw_counted_sets,
    draw_sets,
    posteriors_of_sets,
    ranks_of,
    ranks_of_draws,
)
from mflow_sbi.errors import ParameterRangeError, ShapeError
from mflow_sbi.events import EventSample
from mflow_sbi.inference import BoxPrior
from mflow_sbi.interfaces import Array

from .test_drawing import _expected
from .toys import NAMES, PRIOR, NormalSets, narrower, normal_sets, shifted


def _report(sets: NormalSets, theta: Array) -> CalibrationReport:
    return calibration_report(ranks_of(posteriors_of_sets(sets, PRIOR), theta))


def test_ranks_are_the_posterior_s_distribution_functions() -> None:
    sets, theta = normal_sets(60, 3)
    ranks = ranks_of(posteriors_of_sets(sets, PRIOR), theta)
    means, covariance = sets.posteriors()
    pulls = (theta - means) / np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(ranks.parameters, norm.cdf(pulls), atol=2e-3)
    away = theta - means
    squares = np.einsum("si,ij,sj->s", away, np.linalg.inv(covariance), away)
    np.testing.assert_allclose(ranks.credibility, chi2.cdf(squares, 2), atol=0.01)
    density = -0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(ranks.log_prob_at_truth, density, atol=2e-3)
    assert ranks.resolved.all()


def test_likelihood_ranks_are_those_of_draws() -> None:
    sets, theta = normal_sets(20, 4)
    ranks = ranks_of(posteriors_of_sets(sets, PRIOR), theta)
    draws = sets.draws(20_000, np.random.default_rng(1)).transpose(1, 0, 2)
    share = (sets.at_own_points(draws) < sets.at_own_points(theta[None])).mean(axis=0)
    np.testing.assert_allclose(ranks.log_likelihood, share, atol=0.015)


def test_exact_posteriors_pass_and_wrong_ones_do_not() -> None:
    sets, theta = normal_sets(150, 5)
    exact = _report(sets, theta)
    assert exact.p_value > 0.05
    assert min(one.p_value for one in exact.coverage) > 0.05
    assert exact.n_unresolved == 0
    wrong = {
        "narrow": _report(narrower(sets, 2.0), theta),
        "wide": _report(narrower(sets, 0.5), theta),
        "shifted": _report(shifted(sets, 0.3), theta),
    }
    coverage = {name: one.coverage[1].share for name, one in wrong.items()}
    for report in wrong.values():
        assert report.p_value < 1e-3
        assert min(one.p_value for one in report.coverage) < 1e-2
        assert report.mean_log_prob is not None
        assert exact.mean_log_prob is not None
        assert report.mean_log_prob < exact.mean_log_prob
    assert coverage["narrow"] < 0.6 < 0.76 < coverage["wide"]


def test_a_shift_shows_in_the_shifted_parameter_only() -> None:
    sets, theta = normal_sets(120, 6)
    diagonal = NormalSets(sets.means, np.diag(np.diag(sets.precision)))
    noise = np.random.default_rng(1).normal(size=theta.shape)
    means = theta + noise / np.sqrt(np.diag(diagonal.precision))
    first, second, *_ = _report(
        shifted(NormalSets(means, diagonal.precision), 0.3), theta
    ).uniformity
    assert first.p_value < 1e-4
    assert second.p_value > 0.05


def test_the_prior_for_a_posterior_passes_ranks_of_parameters_only() -> None:
    """SBC's blind spot: the prior has flat ranks; the log likelihood as test quantity sees it."""
    sets, theta = normal_sets(300, 5)
    draws = PRIOR.sample(300 * 100, np.random.default_rng(2)).reshape(300, 100, 2)

    def values(points: Array) -> Array:
        return sets.at_own_points(points.transpose(1, 0, 2)).T

    posterior = values(draws) + PRIOR.log_prob(draws.reshape(-1, 2)).reshape(300, 100)
    at_truth = values(theta[:, None])[:, 0]
    ranks = ranks_of_draws(
        NAMES,
        draws,
        values(draws),
        posterior,
        theta,
        (at_truth, at_truth + PRIOR.log_prob(theta)),
        np.random.default_rng(3),
    )
    tests = {test.quantity: test.p_value for test in calibration_report(ranks).uniformity}
    assert min(tests[name] for name in NAMES) > 0.01
    assert tests["log likelihood"] < 1e-6


def test_ranks_of_exact_draws_are_uniform() -> None:
    sets, theta = normal_sets(300, 8)
    draws = sets.draws(50, np.random.default_rng(1))
    values = sets.at_own_points(draws.transpose(1, 0, 2)).T
    prior = PRIOR.log_prob(draws.reshape(-1, 2)).reshape(300, 50)
    at_truth = sets.at_own_points(theta[None])[0]
    ranks = ranks_of_draws(
        NAMES,
        draws,
        values,
        values + prior,
        theta,
        (at_truth, at_truth + PRIOR.log_prob(theta)),
        np.random.default_rng(3),
    )
    report = calibration_report(ranks)
    assert report.p_value > 0.05
    assert report.mean_log_prob is None


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_wbf_posteriors_are_calibrated(pool: EventSample, seed: int) -> None:
    """500 sets of 20 events, from the shape; and of Poisson counts, from shape and rate."""
    rng = np.random.default_rng(seed)
    drawn = (
        draw_sets(pool, PRIOR, 500, 20, rng)
        if seed == 1
        else draw_counted_sets(pool, PRIOR, 500, _expected(pool, 15.0), rng)
    )
    report = calibration_report(ranks_of(posteriors_of_sets(drawn.exact(), PRIOR), drawn.theta))
    assert report.smallest_p > 0.01
    assert min(one.p_value for one in report.coverage) > 0.01
    assert report.n_unresolved == 0


ERRORS = {
    "truths": (
        lambda: ranks_of(posteriors_of_sets(normal_sets(3, 1)[0], PRIOR), np.zeros((2, 2))),
        ShapeError,
        "theta: expected the parameters behind each set, (3, 2), got (2, 2)",
    ),
    "outside": (
        lambda: ranks_of(
            posteriors_of_sets(normal_sets(3, 1)[0], BoxPrior(NAMES, (-3, -3), (3, 3))),
            np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 0.0]]),
        ),
        ParameterRangeError,
        "set 1: expected a truth where the prior is positive, got [4.0, 0.0]",
    ),
    "draws": (
        lambda: ranks_of_draws(
            NAMES,
            np.zeros((3, 4, 2)),
            np.zeros((3, 5)),
            np.zeros((3, 4)),
            np.zeros((3, 2)),
            (np.zeros(3), np.zeros(3)),
            np.random.default_rng(1),
        ),
        ShapeError,
        "expected draws (S, L, p)",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
