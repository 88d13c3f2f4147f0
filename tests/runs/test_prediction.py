"""Predictive checks: numbers and shapes as the posterior has them; other events are found."""

import json

import numpy as np
import pytest

from mflow_sbi.analysis import parse_analysis
from mflow_sbi.errors import EventDataError, RunFolderError
from mflow_sbi.events import read_events
from mflow_sbi.inference import CrossSection, RateModel, draws_of, load_posterior
from mflow_sbi.run_prediction import RunPrediction, predict_run
from mflow_sbi.runs import infer_run

from .files import FURTHER, OBSERVED, TRAIN, invoke, written

GRID = {"sampler": {"kind": "grid", "cells": 30}}


def _predicted(folders, output, values, simulated=None, n_replicas=150) -> RunPrediction:
    analysis = parse_analysis({**GRID, **values})
    infer_run(folders, str(OBSERVED), analysis=analysis, output=output)
    return predict_run(
        folders,
        str(OBSERVED),
        simulated_paths=simulated,
        output=output,
        n_replicas=n_replicas,
    )


def test_the_command_line_tells_p_values_of_every_observable(members, tmp_path):
    analysis = written(tmp_path, "{sampler: {kind: grid}}")
    words = ("--observed", OBSERVED, "--output", tmp_path)
    invoke("infer", *members, *words, "--analysis", analysis)
    output = invoke("predict", *members, *words, "--sets", 60)
    assert "smallest of 40 p-values" in output
    record = json.loads((tmp_path / "predictive.json").read_text())
    assert len(record["p_values"]) == len(record["observables"]) == 40
    assert record["n_replicas"] == 60
    assert (record["source"], record["number_p"]) == ("the surrogate", None)
    assert (tmp_path / "figures" / "predictive.png").stat().st_size > 10_000


def test_simulated_events_at_the_posterior_look_like_the_observed_ones(run, tmp_path):
    found = _predicted(run, tmp_path, {}, simulated=str(TRAIN))
    assert found.source == "simulated events"
    assert found.check.global_p > 0.02
    assert found.predicted_number == (20.0, 0.0)


def test_numbers_are_those_of_signal_and_background(run, tmp_path):
    values = {"luminosity": 0.02, "background": {"yield": 30.0, "theta": [0, 0]}}
    found = _predicted(run, tmp_path, values, simulated=str(TRAIN), n_replicas=300)
    posterior = load_posterior(tmp_path / "posterior.nc")
    sigma = CrossSection.from_metadata(read_events(OBSERVED).metadata)
    mu = 30 + RateModel(sigma, 0.02)(draws_of(posterior, ["CWL2", "CPWL2"]))
    mean, std = found.predicted_number
    assert mean == pytest.approx(mu.mean(), abs=5 * std / np.sqrt(300))
    assert std == pytest.approx(np.sqrt(mu.mean() + mu.var()), rel=0.15)
    assert found.number_p is not None
    assert found.number_p < 0.01  # 20 events where more than 30 are expected
    assert found.rows()[0][0] == "number of events"
    shares = {"background": {"fraction": 0.3, "theta": [1, 1]}}
    assert _predicted(run, tmp_path, shares).predicted_number == (20.0, 0.0)


def test_parameters_that_were_fixed_stay_fixed(run, tmp_path):
    values = {"fixed": {"CPWL2": 0.0}, "prior": {"kind": "normal", "mean": [0], "std": [1]}}
    assert _predicted(run, tmp_path, values).check.n_replicas == 150


def test_an_unconverged_posterior_is_told(run, tmp_path):
    words = ("--observed", OBSERVED, "--output", tmp_path)
    invoke("infer", run, *words, code=3)
    output = invoke("predict", run, *words, "--sets", 20, code=3)
    assert "NOT CONVERGED" in output


def test_posteriors_of_other_events_or_runs_are_refused(members, tmp_path):
    with pytest.raises(RunFolderError, match="run mflow-sbi infer"):
        predict_run(members[0], str(OBSERVED), output=tmp_path)
    infer_run(members[0], str(OBSERVED), analysis=parse_analysis(GRID), output=tmp_path)
    with pytest.raises(RunFolderError, match="of other observed"):
        predict_run(members[0], str(FURTHER), output=tmp_path)
    with pytest.raises(RunFolderError, match="of other runs"):
        predict_run(members, str(OBSERVED), output=tmp_path)


def test_no_events_have_no_shape_to_compare(run, tmp_path, monkeypatch):
    from mflow_sbi import run_observation

    sample = read_events(OBSERVED).take([])
    monkeypatch.setattr(run_observation, "read_like_training", lambda *a, **k: sample)
    analysis = parse_analysis({**GRID, "luminosity": 0.01})
    infer_run(run, str(OBSERVED), analysis=analysis, output=tmp_path)
    with pytest.raises(EventDataError, match="got none"):
        predict_run(run, str(OBSERVED), output=tmp_path)
