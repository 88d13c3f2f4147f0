"""Temperatures undo known factors; conformal levels cover whatever the posterior."""

import json
import re

import numpy as np
import pytest

from mflow_sbi.calibration import (
    ConformalLevels,
    Temperature,
    calibration_report,
    coverage,
    fit_conformal_levels,
    fit_temperature,
    posteriors_of_sets,
    ranks_of,
    recalibration_from_dict,
)
from mflow_sbi.errors import ConfigurationError, EventDataError, LikelihoodError, SamplingError
from mflow_sbi.interfaces import Array

from .toys import PRIOR, NormalLikelihood, NormalSets, narrower, normal_sets, shifted

THETA = np.random.default_rng(2).normal(size=(9, 2))


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_a_temperature_finds_a_known_factor(factor: float) -> None:
    sets, theta = normal_sets(100, 1)
    step = fit_temperature(narrower(sets, factor), PRIOR, theta)
    assert step.value / factor == pytest.approx(1.0, abs=3.5 * step.error / factor)
    assert step.error / step.value < 0.3
    assert step.n_sets == 100
    assert (step.mean_credibility > 0.55) == (factor > 1)


def test_the_error_of_a_temperature_is_its_spread() -> None:
    pairs = [normal_sets(25, seed) for seed in range(8)]
    steps = [fit_temperature(sets, PRIOR, theta) for sets, theta in pairs]
    logs = np.log([step.value for step in steps])
    relative = np.mean([step.error / step.value for step in steps])
    assert logs.std() == pytest.approx(relative, rel=0.6)


def test_a_temperature_calibrates_other_sets() -> None:
    sets, theta = normal_sets(150, 1)
    step = fit_temperature(narrower(sets, 3.0), PRIOR, theta)
    fresh, truth = normal_sets(120, 2)
    repaired = step.apply_to_sets(narrower(fresh, 3.0))
    report = calibration_report(ranks_of(posteriors_of_sets(repaired, PRIOR), truth))
    assert report.p_value > 0.05
    assert report.coverage[1].p_value > 0.05


def test_a_tempered_likelihood_is_divided() -> None:
    one = normal_sets(3, 1)[0].likelihood_of(0)
    tempered = Temperature(2.0, 0.1, 10, 0.6).apply(one)
    np.testing.assert_allclose(tempered(THETA), one(THETA) / 2)
    values, slopes = tempered.value_and_gradient(THETA)
    np.testing.assert_allclose(values, one(THETA) / 2)
    np.testing.assert_allclose(slopes, one.value_and_gradient(THETA)[1] / 2)
    assert tempered.n_events == one.n_events


def _credibilities(seed: int, n_sets: int) -> Array:
    """Of the truth in posteriors that are too narrow and shifted."""
    sets, theta = normal_sets(n_sets, seed)
    wrong = shifted(narrower(sets, 2.5), 0.2)
    return ranks_of(posteriors_of_sets(wrong, PRIOR), theta).credibility


def test_conformal_levels_cover_on_other_sets() -> None:
    before, after = _credibilities(1, 120), _credibilities(2, 120)
    assert coverage(after)[1].p_value < 1e-3
    levels = fit_conformal_levels(before)
    for one in coverage(levels.cover(after)):
        error = np.sqrt(one.level * (1 - one.level) * (1 / len(before) + 1 / len(after)))
        assert one.share == pytest.approx(one.level, abs=3 * error)
        share = (after <= levels.adjusted(one.level)).mean()
        assert share == pytest.approx(one.share, abs=1e-9)


def test_conformal_coverage_is_at_least_the_level_on_average() -> None:
    """P(c_{S+1} <= q) = ceil((S + 1) level) / (S + 1), exactly, for continuous c."""
    rng = np.random.default_rng(3)
    covered = [
        rng.random() ** 3 <= fit_conformal_levels(rng.random(19) ** 3).adjusted(0.72)
        for _ in range(4000)
    ]
    assert np.mean(covered) == pytest.approx(15 / 20, abs=0.02)


def test_too_few_sets_cannot_promise_much() -> None:
    levels = fit_conformal_levels(np.full(10, 0.5))
    assert levels.adjusted(0.9) == 0.5
    assert levels.adjusted(0.95) == 1.0


@pytest.mark.parametrize(
    "step", [Temperature(1.3, 0.1, 200, 0.58), ConformalLevels((0.1, 0.5, 0.9))]
)
def test_steps_survive_json_and_say_what_they_did(step: Temperature | ConformalLevels) -> None:
    assert recalibration_from_dict(json.loads(json.dumps(step.to_dict()))) == step
    assert str(step.to_dict()["kind"]) in ("temperature", "conformal")
    assert "sets" in step.statement


class _Flat:
    parameter_names = NormalLikelihood.parameter_names
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return np.zeros(len(theta))


ERRORS = {
    "off centre": (
        lambda: fit_temperature(
            NormalSets(np.full((3, 2), -3.0), 50 * np.eye(2)), PRIOR, np.full((3, 2), 2.0)
        ),
        SamplingError,
        "the posteriors are off centre",
    ),
    "zero": (lambda: Temperature(0.0, 0.1, 10, 0.5), ConfigurationError, "a positive number"),
    "no gradient": (
        lambda: Temperature(2.0, 0.1, 10, 0.5).apply(_Flat()).value_and_gradient(THETA),
        LikelihoodError,
        "the tempered likelihood has no gradient",
    ),
    "no credibilities": (lambda: ConformalLevels(()), EventDataError, "credibilities in [0, 1]"),
    "level": (
        lambda: ConformalLevels((0.5,)).adjusted(1.0),
        ConfigurationError,
        "level in (0, 1)",
    ),
    "kind": (
        lambda: recalibration_from_dict({"kind": "magic"}),
        ConfigurationError,
        "expected one of ['conformal', 'temperature'], got 'magic'",
    ),
    "fields": (
        lambda: recalibration_from_dict({"kind": "temperature", "value": 1.0}),
        ConfigurationError,
        "expected kind 'temperature' with",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
