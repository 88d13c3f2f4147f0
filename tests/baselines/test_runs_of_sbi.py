"""The baselines by the verbs of the command line, on collider events; sbi where it is missing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.calibration import draw_sets
from mflow_sbi.config import read_config
from mflow_sbi.events import read_events
from mflow_sbi.inference import NormalPrior, draws_of
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.runs import compare_runs, evaluate_run, infer_run, train_run
from mflow_sbi.sbi_recipes import SBI_RECIPES

DATA = Path(__file__).parents[2] / "data"
TRAIN = str(DATA / "wbf_tuned_train_small.root")
OBSERVED = str(DATA / "wbf_tuned_observed_theta_0.5_0.root")
RUN = """
name: {name}
events: {events}
max_events: 1500
recipe: {name}
options: {options}
phases: {{inference: {{epochs: 2, batch_size: 50}}}}
mcmc: {{ensembles: 2, walkers: 8, burn_in: 5, steps: 10}}
"""
OPTIONS = {
    "sbi_npe": "{sets: 400, event_hidden: 16, summaries: 8, transforms: 2}",
    "sbi_nle_maf": "{inputs: prescribed, hidden: 16, transforms: 2}",
    "sbi_nre_c": "{hidden: 16}",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, options in OPTIONS.items():
        config = root / f"{name}.yaml"
        config.write_text(RUN.format(name=name, options=options, events=TRAIN))
        train_run(read_config(config), root / name)
    return {name: root / name for name in OPTIONS}


def test_runs_keep_what_every_run_keeps(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        for kept in ("config.json", "history.csv", "surrogate/weights.safetensors"):
            assert (folder / kept).is_file()
        assert not (folder / "checkpoint").exists()
        assert "inference,0,0," in (folder / "history.csv").read_text()
    notes = load_surrogate(folders["sbi_npe"]).record.notes
    assert any("by their morphing components, which other" in note for note in notes)


def test_what_estimators_lack_is_said_and_densities_are_measured(
    folders: dict[str, Path],
) -> None:
    for name, words in (("sbi_npe", "p(theta|set) only"), ("sbi_nre_c", "up to a factor of x")):
        metrics = evaluate_run(folders[name], TRAIN)
        assert words in metrics["lacks"]
        assert metrics["log_prob_mean"] is metrics["closure_generated"] is None
        assert metrics["ratio"]["reliability"]["calibration_error"] < 0.3
    metrics = evaluate_run(folders["sbi_nle_maf"], OBSERVED)
    assert metrics["log_prob_measure"] == "manifold"
    assert np.isfinite(metrics["log_prob_mean"])
    assert metrics["reconstruction_error"] < 1e-5
    assert metrics["closure_generated"] < 1e-4
    stored = json.loads((folders["sbi_nle_maf"] / "metrics.json").read_text())
    assert stored["mean_wasserstein"] == metrics["mean_wasserstein"] > 0


def test_all_are_compared_in_one_table(folders: dict[str, Path], tmp_path: Path) -> None:
    observed = tmp_path / "observed.root"
    observed.write_bytes(Path(OBSERVED).read_bytes())
    comparison = compare_runs(list(folders.values()), str(observed), tmp_path / "table")
    for name in OPTIONS:
        row = comparison.table.row(SBI_RECIPES[name].title)
        assert 0 < (row.posterior.total_variation or 0) < 1
    assert "NPE of sets (sbi): a posterior estimator of sets" in comparison.table.caption


def test_chains_ask_the_likelihood_of_the_set(folders: dict[str, Path]) -> None:
    posterior = infer_run(folders["sbi_npe"], OBSERVED)
    assert np.isfinite(draws_of(posterior)).all()
    assert len(posterior["observed_data"]["x"]) == len(read_events(OBSERVED))
    assert (folders["sbi_npe"] / "posterior.nc").is_file()


def test_many_sets_are_sets_each(folders: dict[str, Path]) -> None:
    surrogate, pool = load_surrogate(folders["sbi_npe"]), read_events(TRAIN)
    prior = NormalPrior(pool.parameter_names, (0, 0), (1, 1))
    drawn = draw_sets(pool, prior, 3, 5, np.random.default_rng(0))
    makers, points = SBI_RECIPES["sbi_npe"].likelihoods, prior.sample(4, np.random.default_rng(1))
    sets = makers.of_sets(surrogate, [*drawn.events, pool.x[:0]])
    alone = [makers.of_set(surrogate, x)(points) for x in drawn.events]
    assert np.allclose(sets(points)[:, :3], np.stack(alone, axis=1))
    assert (sets(points)[:, 3] == 0).all()


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_the_package_does_without_heavy_libraries() -> None:
    heavy = ["sbi", "pyro", "matplotlib", "arviz", "sklearn", "tensorboard"]
    done = _python(
        "import sys, mflow_sbi, mflow_sbi.baselines; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_missing_library_is_one_line_with_the_command(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(RUN.format(name="sbi_nre_a", options="{}", events=TRAIN))
    done = _python(
        "import sys; sys.modules['sbi'] = None; sys.argv = ['mflow-sbi', 'train', "
        f"{str(config)!r}, '--folder', {str(tmp_path / 'run')!r}]; "
        "from mflow_sbi.cli import main; main()"
    )
    assert done.returncode == 2, done.stderr
    told = done.stdout + done.stderr
    assert 'pip install "mflow_sbi[baselines]"' in told.replace("\n", " ")
    assert "Traceback" not in told
