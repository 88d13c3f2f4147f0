"""Histograms, bands and intervals have the probabilities they claim."""

import json
import re

import numpy as np
import pytest
from scipy.stats import binom

from mflow_sbi.calibration import (
    calibration_report,
    coverage,
    coverage_curve,
    posteriors_of_sets,
    rank_histogram,
    ranks_of,
    uniformity,
)
from mflow_sbi.errors import ConfigurationError, EventDataError

from .toys import PRIOR, normal_sets


def test_uniform_ranks_are_rejected_as_often_as_claimed() -> None:
    rng = np.random.default_rng(1)
    p_values = np.array([uniformity("mu", rng.random(200)).p_value for _ in range(500)])
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_bins_are_inside_the_band_as_often_as_claimed() -> None:
    rng = np.random.default_rng(2)
    histograms = [rank_histogram("mu", rng.random(300), bins=15) for _ in range(200)]
    share = 1 - np.mean([h.outside for h in histograms]) / 15
    exact = binom.cdf(histograms[0].high, 300, 1 / 15) - binom.cdf(
        histograms[0].low - 1, 300, 1 / 15
    )
    assert share == pytest.approx(exact, abs=0.012)
    assert exact >= 0.95
    assert all(h.counts.sum() == 300 for h in histograms)


def test_narrow_posteriors_fill_the_outer_bins() -> None:
    ranks = np.random.default_rng(3).beta(0.5, 0.5, size=500)
    histogram = rank_histogram("mu", ranks, bins=10)
    assert histogram.counts[[0, -1]].min() > histogram.high
    assert histogram.counts[4:6].max() < histogram.low


def test_coverage_intervals_hold_the_true_coverage() -> None:
    """Clopper-Pearson intervals of 68.3% hold it at least as often."""
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(400):
        (one,) = coverage(rng.random(150), [0.9])
        inside.append(one.low <= 0.9 <= one.high)
    assert np.mean(inside) > 0.66


def test_coverage_counts_and_its_p_value_is_binomial() -> None:
    (one,) = coverage(np.array([0.1] * 30 + [0.9] * 70), [0.5])
    assert one.share == 0.3
    assert one.p_value == pytest.approx(2 * binom.cdf(30, 100, 0.5))
    nothing, everything = (coverage(np.full(10, x), [0.5])[0] for x in (0.9, 0.1))
    assert (nothing.share, nothing.low) == (0.0, 0.0)
    assert (everything.share, everything.high) == (1.0, 1.0)


def test_the_curve_is_the_coverage_at_every_level() -> None:
    values = np.random.default_rng(5).random(80)
    curve = coverage_curve(values, 19)
    expected = [one.share for one in coverage(values, curve.levels.tolist())]
    np.testing.assert_allclose(curve.shares, expected)
    assert ((curve.low <= curve.levels) & (curve.levels <= curve.high)).all()


def test_a_report_is_plain_json_and_rows() -> None:
    sets, theta = normal_sets(50, 1)
    report = calibration_report(ranks_of(posteriors_of_sets(sets, PRIOR), theta))
    record = json.loads(json.dumps(report.to_dict()))
    assert record["n_sets"] == 50
    assert len(record["uniformity"]) == 4
    assert [row[0] for row in report.rows()] == [
        "ranks of CWL2",
        "ranks of CPWL2",
        "ranks of log likelihood",
        "ranks of credibility",
        "coverage of 50%",
        "coverage of 68%",
        "coverage of 90%",
        "coverage of 95%",
    ]


ERRORS = {
    "no ranks": (lambda: uniformity("mu", np.empty(0)), EventDataError, "expected ranks (S,)"),
    "not ranks": (lambda: coverage(np.array([0.5, 1.2])), EventDataError, "in [0, 1]"),
    "not a number": (lambda: coverage(np.array([np.nan])), EventDataError, "in [0, 1]"),
    "level": (lambda: coverage(np.array([0.5]), [1.0]), ConfigurationError, "levels in (0, 1)"),
    "bins": (lambda: rank_histogram("mu", np.array([0.5]), 0), ConfigurationError, "bins"),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
