"""Expected limits: Asimov data have their maximum and their curvature where they were made."""

import json

import numpy as np
import pytest

from mflow_sbi.analysis import build_observation, parse_analysis
from mflow_sbi.asimov_data import asimov_events, asimov_weights
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import read_events
from mflow_sbi.interfaces import Quiet
from mflow_sbi.intervals import EventPool, hessian_information, profile
from mflow_sbi.run_expected import ExpectedSettings, expected_run
from mflow_sbi.trained_runs import load_runs

from .files import TRAIN, invoke, written

THETA = np.array([0.4, 0.2])
FULL = {
    "luminosity": 0.1,
    "efficiency": 0.5,
    "luminosity_error": 0.02,
    "cross_section_error": True,
    "background": {"yield": 20.0, "error": 0.2, "theta": [0.0, 0.5]},
}


@pytest.mark.parametrize("values", [{"luminosity": 0.1}, FULL], ids=["signal", "all"])
def test_the_surrogate_s_own_data_are_stationary_where_they_were_made(run, values):
    (trained,), analysis = load_runs(run), parse_analysis(values)
    metadata = trained.surrogate.record.metadata
    events = asimov_events(trained, THETA, 1500, analysis, None, Quiet())
    plain = build_observation(events.likelihood, metadata, analysis)
    weights = asimov_weights(events, plain, THETA).all_events
    model = build_observation(events.likelihood, metadata, analysis, weights=weights)
    names = list(model.likelihood.parameter_names)
    point = np.concatenate([THETA, np.zeros(len(names) - 2)])
    slope = model.likelihood.value_and_gradient(point[None])[1][0]
    uncorrected = build_observation(
        events.likelihood, metadata, analysis, weights=weights.sum() * (events.signal + 1e-12)
    )
    before = uncorrected.likelihood.value_and_gradient(point[None])[1][0]
    assert np.abs(slope).max() < 1e-3 * np.abs(before).max()
    expected = sum(float(one.rate(_of(one.rate, names, point))[0]) for one in model.populations)
    assert weights.sum() == pytest.approx(expected)
    if values is not FULL:
        information = hessian_information(model.likelihood, point, steps=0.02)
        scores = events.scores + _slope_of_log_rate(model, point)
        outer = np.einsum("i,ij,ik->jk", weights, scores, scores)
        np.testing.assert_allclose(information.matrix, outer, rtol=0.02, atol=0.02 * outer.max())


def _of(rate, names, point):
    return point[None, [names.index(name) for name in rate.parameter_names]]


def _slope_of_log_rate(model, point):
    value, slope = model.populations[0].rate.value_and_gradient(point[None])
    return slope[0] / value[0]


def test_widths_shrink_with_the_root_of_the_luminosity(run, tmp_path):
    prior = {"kind": "normal", "mean": [0], "std": [1]}
    analysis = parse_analysis({"fixed": {"CPWL2": 0.2}, "prior": prior})
    settings = ExpectedSettings((0.4, 0.2), (4.0, 16.0), 1500)
    found = expected_run(run, settings, analysis=analysis, output=tmp_path).expectations
    for one in found:
        maximum = one.intervals["learned"].maximum
        assert maximum.values[0] == pytest.approx(0.4, abs=0.02 * maximum.std[0])
        known = one.information["shape and rate"].without(["CPWL2"])
        assert maximum.std[0] == pytest.approx(known.std[0], rel=0.02)
        assert one.information["as analysed"].std[0] == pytest.approx(known.std[0], rel=0.02)
    low, high = (one.intervals["learned"].intervals["CWL2"][0].length for one in found)
    assert high / low == pytest.approx(0.5, rel=0.05)


def test_simulated_events_show_the_exact_limits_beside(run, tmp_path):
    output = invoke(
        *("expected", run, "--theta", "0,0", "--luminosity", 0.2),
        *("--simulated", TRAIN, "--events", 300, "--output", tmp_path),
    )
    assert "exact shape and rate" in output
    record = json.loads((tmp_path / "expected.json").read_text())
    assert record["source"] == "simulated events"
    exact = record["expectations"][0]["intervals"]["exact"]["CWL2"][1]["parts"][0]
    sample = read_events(TRAIN)
    asimov = EventPool(sample.take(np.arange(300))).asimov([0, 0], luminosity=0.2)
    limits = {"CWL2": (-4.0, 4.0), "CPWL2": (-4.0, 4.0)}
    expected = profile(asimov, "CWL2", limits).intervals(0.95).hull
    np.testing.assert_allclose((exact["low"], exact["high"]), expected, atol=1e-3)
    assert (tmp_path / "figures" / "expected.png").stat().st_size > 10_000


def test_background_grows_with_the_luminosity_and_nuisances_widen(run, tmp_path):
    values = {
        "background": {"yield": 20.0, "theta": [0.0, 0.5]},
        "fixed": {"CPWL2": 0.2},
        "prior": {"kind": "normal", "mean": [0], "std": [1]},
    }
    half, known, unknown = (
        expected_run(
            run,
            ExpectedSettings((0.4, 0.2), (0.2,), 400),
            analysis=parse_analysis({**values, "luminosity": at, "luminosity_error": error}),
            output=tmp_path,
        ).expectations[0]
        for at, error in ((0.1, 1e-4), (0.2, 1e-4), (0.2, 0.3))
    )
    widths = [one.information["as analysed"].std[0] for one in (half, known, unknown)]
    assert widths[2] > 1.02 * widths[1]
    assert widths[0] > 1.02 * widths[1]  # 20 background events at 0.1 fb^-1 are 40 at 0.2
    assert set(known.information) == {"shape", "rate", "shape and rate", "as analysed"}
    found = unknown.intervals["learned"]
    assert list(found.intervals) == ["CWL2"]
    assert list(found.maximum.parameter_names) == ["CWL2", "luminosity"]


def test_one_free_parameter_has_a_profile(run, tmp_path):
    prior = {"kind": "normal", "mean": [0], "std": [1]}
    analysis = written(tmp_path, json.dumps({"fixed": {"CPWL2": 0.0}, "prior": prior}))
    invoke(
        *("expected", run, "--theta", "0.4,0", "--luminosity", 0.1, "--events", 200),
        *("--analysis", analysis, "--output", tmp_path),
    )
    assert (tmp_path / "figures" / "expected.png").stat().st_size > 5_000
    record = json.loads((tmp_path / "expected.json").read_text())
    assert set(record["expectations"][0]["intervals"]["learned"]) == {"CWL2"}


@pytest.mark.parametrize(
    ("theta", "luminosity", "message"),
    [
        ("0,zero", 1.0, "expected numbers with commas"),
        ("0", 1.0, "expected 2 numbers"),
        ("0,50", 1.0, "in the training range"),
        ("0,0", -1.0, "positive luminosities"),
    ],
)
def test_refuses(run, tmp_path, theta, luminosity, message):
    words = ("--theta", theta, "--luminosity", luminosity, "--output", tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        invoke("expected", run, *words)
