"""Recalibration: fitted on one half, told on the other, applied on request and never otherwise."""

import json
import shutil

import numpy as np
import pytest

from mflow_sbi.analysis import parse_analysis
from mflow_sbi.errors import ConfigurationError, RunFolderError
from mflow_sbi.inference import draws_of, load_posterior
from mflow_sbi.interfaces import Quiet
from mflow_sbi.run_calibration import CalibrationSettings, recalibrate_run
from mflow_sbi.run_observation import observe
from mflow_sbi.run_recalibration import Recalibration, read_recalibration, recalibrated

from .files import FURTHER, OBSERVED, TRAIN, invoke, written

POINTS = np.random.default_rng(1).normal(scale=0.5, size=(9, 2))


@pytest.fixture
def fitted(run, tmp_path):
    """A folder with a recalibration of the run, for the shape of 10 events."""
    words = ("--test", TRAIN, "--sets", 40, "--events", 10, "--recalibrate")
    output = invoke("calibrate", run, *words, "--output", tmp_path)
    assert "before: coverage of 68%" in output
    assert "tempered, conformal: coverage of 68%" in output
    return tmp_path


def test_it_is_fitted_on_one_half_and_told_on_the_other(fitted):
    record = json.loads((fitted / "recalibration.json").read_text())
    assert record["temperature"]["n_sets"] == 20
    assert record["mean_events"] == 10
    assert record["other_half"]["before"]["n_sets"] == 20
    credibilities = record["levels"]["credibilities"]
    assert len(credibilities) == 20
    # of the half that the temperature was fitted on: it makes this mean one half
    assert np.mean(credibilities) == pytest.approx(0.5, abs=0.02)
    assert (fitted / "figures" / "recalibration.png").stat().st_size > 10_000
    again = Recalibration.from_dict(record)
    assert again == read_recalibration(fitted)


def test_it_is_applied_where_it_is_asked_for_and_nowhere_else(run, fitted):
    analysis = written(fitted, "{sampler: {kind: grid}}")
    words = ("--observed", OBSERVED, "--analysis", analysis, "--output", fitted)
    assert "recalibrated" not in invoke("infer", run, *words)
    plain = load_posterior(fitted / "posterior.nc")
    assert "recalibration" not in plain.attrs
    output = invoke("infer", run, *words, "--recalibrated")
    assert "log likelihoods divided by T" in output
    posterior = load_posterior(fitted / "posterior.nc")
    said = json.loads(posterior.attrs["recalibration"])
    t = said["temperature"]["value"]
    assert posterior["observed_data"]["x"].shape == (20, 40)
    likelihood = observe(run, str(OBSERVED), Quiet()).model.likelihood
    theta = draws_of(posterior, ["CWL2", "CPWL2"])[:50]
    lp = posterior["sample_stats"]["lp"].to_numpy().ravel()[:50]
    expected = likelihood(theta) / t - 0.5 * np.square(theta).sum(axis=1)
    np.testing.assert_allclose(lp - expected, (lp - expected)[0], atol=1e-4)


def test_an_ensemble_of_counted_events_is_recalibrated_as_one(members, tmp_path):
    analysis = parse_analysis({"luminosity": 0.01})
    found = recalibrate_run(
        members,
        str(TRAIN),
        settings=CalibrationSettings(sets=16),
        analysis=analysis,
        output=tmp_path,
    )
    kept = read_recalibration(tmp_path)
    assert (kept.luminosity, len(kept.weights_digests)) == (0.01, 2)
    assert found.tempered.n_sets == 8
    run = observe(members, str(OBSERVED), Quiet(), analysis)
    model, _ = recalibrated(run, analysis, kept)
    ratio = run.model.likelihood(POINTS) / model.likelihood(POINTS)
    np.testing.assert_allclose(ratio, kept.temperature.value)


def test_it_is_refused_for_other_surrogates_rates_and_several_observations(members, fitted):
    kept, nothing = read_recalibration(fitted), parse_analysis({})
    with pytest.raises(ConfigurationError, match="these very surrogates"):
        recalibrated(observe(members[1], str(OBSERVED), Quiet()), nothing, kept)
    rate = parse_analysis({"luminosity": 0.02})
    with pytest.raises(ConfigurationError, match="fitted for the shape alone"):
        recalibrated(observe(members[0], str(OBSERVED), Quiet(), rate), rate, kept)
    further = {"name": "b", "run": str(members[0]), "observed": str(FURTHER)}
    two = parse_analysis({"combine": [further]})
    with pytest.raises(ConfigurationError, match="one observation"):
        recalibrated(observe(members[0], str(OBSERVED), Quiet(), two), two, kept)


def test_other_observations_than_those_fitted_on_are_told(run, fitted):
    kept = read_recalibration(fitted)
    assert kept.cautions(20, parse_analysis({})) == []
    (words,) = kept.cautions(21, parse_analysis({}))
    assert "21 events instead of 10" in words
    values = {"fixed": {"CPWL2": 0.0}, "prior": {"kind": "normal", "mean": [0], "std": [1]}}
    assert len(kept.cautions(10, parse_analysis(values))) == 2


def test_without_a_readable_one_nothing_is_applied(run, fitted, tmp_path_factory):
    with pytest.raises(RunFolderError, match="--recalibrate"):
        read_recalibration(tmp_path_factory.mktemp("none"))
    altered = tmp_path_factory.mktemp("altered")
    record = json.loads((fitted / "recalibration.json").read_text())
    for change, words in (
        ({"format": "other"}, "expected mflow_sbi.recalibration"),
        ({"temperature": {"kind": "temperature"}}, "expected kind 'temperature'"),
        ({"mean_events": None}, "not a readable record"),
    ):
        (altered / "recalibration.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(ConfigurationError, match=words):
            read_recalibration(altered)
    shutil.rmtree(altered)


def test_too_few_sets_are_refused(run, tmp_path):
    with pytest.raises(ConfigurationError, match="four sets"):
        recalibrate_run(run, str(TRAIN), settings=CalibrationSettings(sets=3), output=tmp_path)
