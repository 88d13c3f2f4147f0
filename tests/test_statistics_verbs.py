"""`infer`, `intervals` and `calibrate` on a small morphing surrogate, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mflow_sbi.cli import NOT_CONVERGED, app
from mflow_sbi.events import read_events
from mflow_sbi.geometry import load_reference
from mflow_sbi.inference import diagnostics_of, draws_of, load_posterior

DATA = Path(__file__).parents[1] / "data"
TRAIN = DATA / "wbf_tuned_train_small.root"
OBSERVED = DATA / "wbf_tuned_observed_theta_0_0.root"
RUN = """
name: morphing
events: {events}
recipe: fom
options:
  reference: {{layers: 1, hidden: 8}}
  density: {{kind: morphing, inputs: components, hidden: 32, layers: 1}}
phases: {{reference: {{epochs: 1}}, ratio: {{epochs: 2, batch_size: 200}}}}
mcmc: {{ensembles: 2, walkers: 8, burn_in: 10, steps: 20}}
"""


def _invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("statistics")
    (folder / "run.yaml").write_text(RUN.format(events=TRAIN))
    _invoke("train", folder / "run.yaml", "--folder", folder / "run")
    return folder / "run"


def _analysis(folder: Path, text: str) -> Path:
    path = folder / "analysis.yaml"
    path.write_text(text)
    return path


def test_training_leaves_a_reference_for_observed_events(run):
    assert load_reference(run / "surrogate").n_events > 1000


def test_infer_takes_rate_nuisances_and_sampler_from_the_analysis(run, tmp_path):
    text = "{luminosity: 0.03, luminosity_error: 0.02, sampler: {kind: nested, live_points: 200}}"
    output = _invoke("infer", run, "--observed", OBSERVED, "--analysis", _analysis(tmp_path, text))
    assert "luminosity" in output
    posterior = load_posterior(run / "posterior.nc")
    assert json.loads(posterior.attrs["analysis"])["luminosity"] == 0.03
    assert json.loads(posterior.attrs["sampler"])["kind"] == "nested"
    nuisance = draws_of(posterior, ["luminosity"])
    assert abs(nuisance.mean()) < 0.3
    assert 0.8 < nuisance.std() < 1.2
    assert diagnostics_of(posterior).converged


def test_a_kept_chain_is_gone_on_with(run, tmp_path):
    begin = "{{sampler: {{kind: emcee, ensembles: 2, walkers: 8, burn_in: 10, steps: {steps}}}}}"
    words = ("infer", run, "--observed", OBSERVED, "--analysis")
    short = _analysis(tmp_path, begin.format(steps=10))
    _invoke(*words, short, "--resume", code=NOT_CONVERGED)
    long = _analysis(tmp_path, begin.format(steps=30))
    _invoke(*words, long, "--resume", code=NOT_CONVERGED)
    resumed = draws_of(load_posterior(run / "posterior.nc"))
    _invoke(*words, long, code=NOT_CONVERGED)
    np.testing.assert_array_equal(resumed, draws_of(load_posterior(run / "posterior.nc")))
    grid = _analysis(tmp_path, "{sampler: {kind: grid}}")
    result = CliRunner().invoke(app, [str(word) for word in (*words, grid, "--resume")])
    assert "expected the sampler emcee" in str(result.exception)


def test_fixed_parameters_are_gone(run, tmp_path):
    text = "{fixed: {CPWL2: 0}, prior: {kind: box, low: [-2], high: [2]}, sampler: {kind: grid}}"
    _invoke("infer", run, "--observed", OBSERVED, "--analysis", _analysis(tmp_path, text))
    assert list(load_posterior(run / "posterior.nc")["posterior"].data_vars) == ["CWL2"]


def test_intervals_are_told_and_written(run):
    output = _invoke("intervals", run, "--observed", OBSERVED)
    assert "profile 95%" in output
    record = json.loads((run / "intervals.json").read_text())
    best = record["maximum"]["values"]
    for k, name in enumerate(("CWL2", "CPWL2")):
        one, two = record["intervals"][name]
        assert any(low <= best[k] <= high for low, high in _parts(one))
        assert min(low for low, _ in _parts(two)) <= min(low for low, _ in _parts(one))
    assert (run / "figures" / "intervals.png").stat().st_size > 10_000


def _parts(record: dict) -> list[tuple[float, float]]:
    return [(part["low"], part["high"]) for part in record["parts"]]


def test_calibration_is_told_and_written_with_the_exact_one_beside(run):
    output = _invoke("calibrate", run, "--test", TRAIN, "--sets", 60, "--events", 5)
    assert "exact: coverage of 68%" in output
    record = json.loads((run / "calibration.json").read_text())
    assert record["exact"]["n_sets"] == 60
    assert min(test["p_value"] for test in record["exact"]["uniformity"]) > 1e-4
    assert (run / "figures" / "calibration.png").stat().st_size > 10_000


def test_calibration_counts_events_where_there_is_a_luminosity(run, tmp_path):
    path = _analysis(tmp_path, "{luminosity: 0.005}")
    _invoke("calibrate", run, "--test", TRAIN, "--sets", 20, "--analysis", path)
    path = _analysis(tmp_path, "{luminosity: 0.005, luminosity_error: 0.1}")
    result = CliRunner().invoke(
        app, ["calibrate", str(run), "--test", str(TRAIN), "--analysis", str(path)]
    )
    assert "luminosity and efficiency alone" in str(result.exception)


def test_events_unlike_the_training_events_are_told_left_out_or_refused(
    run, tmp_path, monkeypatch
):
    from mflow_sbi import run_observation

    sample = read_events(str(OBSERVED))
    x = sample.x.copy()
    x[3] *= 40.0  # far above all energies of the training
    strange = sample.take(np.arange(len(sample)))
    object.__setattr__(strange, "x", x)
    monkeypatch.setattr(run_observation, "read_like_training", lambda *a, **k: strange)
    grid = _analysis(tmp_path, "{sampler: {kind: grid}}")
    words = ("infer", run, "--observed", OBSERVED, "--analysis", grid)
    assert "1 of 20 observed events lie outside" in " ".join(_invoke(*words).split())
    assert load_posterior(run / "posterior.nc").attrs["n_events"] == 20
    _invoke(*words, "--exclude-outside")
    posterior = load_posterior(run / "posterior.nc")
    assert (posterior.attrs["n_events"], posterior.attrs["events_excluded"]) == (19, 1)
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--strict")])
    assert "1 of 20 observed events" in str(result.exception)
