"""Several runs of one recipe: the mean of their posteriors, and how far apart they are."""

import json
import shutil

import numpy as np
import pytest

from mflow_sbi.analysis import AnalysisConfig, parse_analysis
from mflow_sbi.calibration import EnsembleLikelihood
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import (
    diagnostics_of,
    fix_parameters,
    grid_posterior,
    load_posterior,
)
from mflow_sbi.inference.grid import Grid
from mflow_sbi.interfaces import Quiet
from mflow_sbi.run_observation import observe
from mflow_sbi.trained_runs import load_runs, output_folder

from .files import OBSERVED, TRAIN, invoke, written

GRID_SAMPLER = "{sampler: {kind: grid}}"


def _model(folders, values=None):
    return observe(folders, str(OBSERVED), Quiet(), parse_analysis(values or {}))


@pytest.mark.parametrize("values", [{}, {"luminosity": 0.02}])
def test_the_posterior_is_the_mean_of_the_members_posteriors(members, values):
    together, *alone = (_model(one, values) for one in (members, *members))
    prior = together.model.prior
    grid = Grid.regular(np.array([[-3.0, 3.0]] * 2), (120, 120))
    mixture, *parts = (
        grid_posterior(one.model.likelihood, prior, grid) for one in (together, *alone)
    )
    mean = np.mean([part.mass for part in parts], axis=0)
    assert 0.5 * np.abs(parts[0].mass - parts[1].mass).sum() > 0.02  # they do differ
    assert 0.5 * np.abs(mixture.mass - mean).sum() < 2e-3
    spread = together.main.spread
    assert spread is not None
    means = np.stack([part.mean for part in parts])
    np.testing.assert_allclose(spread.mean, means.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(spread.between, means.std(axis=0), atol=2e-3)


def test_weights_are_those_of_nuisances_at_zero(members):
    values = {"luminosity": 0.02, "luminosity_error": 0.1}
    with_nuisance = _model(members, values).model.likelihood
    plain = _model(members, {"luminosity": 0.02}).model.likelihood
    points = np.random.default_rng(1).normal(scale=0.5, size=(9, 2))
    at_zero = fix_parameters(with_nuisance, {"luminosity": 0.0})
    np.testing.assert_allclose(at_zero(points), plain(points), atol=1e-6)
    assert isinstance(plain, EnsembleLikelihood)
    np.testing.assert_allclose(plain.shares(points).sum(axis=0), 1.0)


def test_infer_and_intervals_tell_the_spread_and_record_the_members(members, tmp_path):
    analysis = written(tmp_path, GRID_SAMPLER)
    words = ("--observed", OBSERVED, "--output", tmp_path / "ensemble")
    output = invoke("infer", *members, *words, "--analysis", analysis)
    assert "spread between members" in output
    posterior = load_posterior(tmp_path / "ensemble" / "posterior.nc")
    assert len(json.loads(posterior.attrs["ensemble"])) == 2
    assert json.loads(posterior.attrs["ensemble_spread"])["between"]
    assert diagnostics_of(posterior).evaluated_points
    assert posterior["observed_data"]["x"].shape == (20, 40)
    assert "spread between members" in invoke("intervals", *members, *words)
    assert json.loads((tmp_path / "ensemble" / "intervals.json").read_text())["ensemble"]
    assert not (members[0] / "posterior.nc").exists()


def test_calibrate_tests_the_mixture(members, tmp_path):
    words = ("--test", TRAIN, "--sets", 20, "--events", 5, "--output", tmp_path)
    assert "spread between members" in invoke("calibrate", *members, *words)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert any("ensemble of 2" in key for key in record)
    assert len(record["members"]) == 2


def test_results_of_several_belong_to_none_of_them(members, tmp_path):
    assert output_folder(members[0], None) == members[0]
    assert output_folder(members, tmp_path) == tmp_path
    with pytest.raises(ConfigurationError, match="--output"):
        output_folder(members, None)
    combined = AnalysisConfig.model_validate(
        {"combine": [{"name": "b", "run": "b", "observed": "b.root"}]}
    )
    with pytest.raises(ConfigurationError, match="--output"):
        output_folder([members[0]], None, combined)


def test_members_differ_in_training_alone(members, tmp_path):
    with pytest.raises(ConfigurationError, match="different run folders"):
        load_runs([members[0], members[0]])
    with pytest.raises(ConfigurationError, match="at least one"):
        load_runs([])
    other = tmp_path / "other"
    shutil.copytree(members[1], other)
    config = json.loads((other / "config.json").read_text())
    config["prior"] = {"kind": "normal", "mean": [0, 0], "std": [2, 2]}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="another prior"):
        load_runs([members[0], other])
