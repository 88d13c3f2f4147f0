"""Trained runs over many sets of events: seeds together, failures counted, costs told."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.config import parse_config
from mflow_sbi.errors import ConfigurationError, TrainingError
from mflow_sbi.run_study import StudySettings, study_runs
from mflow_sbi.runs import train_run

DATA = Path(__file__).parents[1] / "data"
TRAIN = str(DATA / "wbf_tuned_train_small.root")
OBSERVED = [str(DATA / f"wbf_tuned_observed_theta_{name}.root") for name in ("0_0", "0.5_0")]


def _config(name: str, seed: int, **others):
    values = {
        "name": name,
        "title": "ratio",
        "events": TRAIN,
        "recipe": "nre",
        "options": {"hidden": 16},
        "phases": {"ratio": {"epochs": 1}},
        "seed": seed,
        "max_events": 1500,
        "threads": 1,
    }
    return parse_config({**values, **others})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    runs = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        train_run(_config(f"nre_{seed}", seed), runs / f"nre_{seed}")
    wild = {"ratio": {"epochs": 1, "learning_rate": 1e30}}
    with pytest.raises(TrainingError):
        train_run(_config("wild", 3, phases=wild, title="wild"), runs / "wild")
    return [runs / "nre_1", runs / "nre_2", runs / "wild"]


def test_a_training_tells_what_it_took_or_why_it_failed(folders: list[Path]):
    taken = json.loads((folders[0] / "training.json").read_text())
    assert taken["events"] == 1500
    assert taken["cpu_minutes"] > 0
    assert taken["parameters"] > 1000
    assert "diverged" in json.loads((folders[2] / "failure.json").read_text())["error"]


def test_seeds_are_one_method_and_failures_count(folders: list[Path], tmp_path: Path):
    settings = StudySettings(events=5, sets=2, calibration_sets=8, cells=12)
    table = study_runs(folders, OBSERVED, tmp_path, settings=settings, calibration_paths=[TRAIN])
    labels = [row.label for row in table.rows]
    assert labels == [
        "exact posterior",
        "ratio",
        "wild",
        "prior",
        "point mass on the truth",
    ]
    ratio, wild = table.row("ratio"), table.row("wild")
    assert (ratio.seeds, ratio.failed) == (2, 0)
    assert (wild.seeds, wild.failed) == (0, 1)
    assert 0 < ratio.mean("total_variation") < 1
    assert 0 < ratio.mean("calibration_error") < 0.6
    assert ratio.mean("training_cpu_minutes") > 0
    for name in ("study.md", "study.csv", "study.json", "study.html", "study.png"):
        assert (tmp_path / name).stat().st_size > 300
    with (tmp_path / "study.csv").open(newline="") as file:
        assert [row["posterior"] for row in csv.DictReader(file)] == labels


def test_the_command_line_does_the_same(folders: list[Path], tmp_path: Path):
    words = ["compare", *map(str, folders[:2]), "--set-events", "10", "--sets", "1", "--exact"]
    words += ["--observed", OBSERVED[0], "--output", str(tmp_path)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "study.json").read_text())["n_sets"] == 1


def test_refusals(folders: list[Path], tmp_path: Path):
    few = StudySettings(events=5, sets=1)
    with pytest.raises(ConfigurationError, match="different run folders"):
        study_runs([folders[0]] * 2, OBSERVED, tmp_path, settings=few)
    with pytest.raises(ConfigurationError, match="none of 1 runs has a surrogate"):
        study_runs([folders[2]], OBSERVED, tmp_path, settings=few)
    density = StudySettings(events=5, sets=1, rank_by="density", cells=8)
    with pytest.raises(ConfigurationError, match="have no order"):
        study_runs(folders[:1], OBSERVED[:1], tmp_path, settings=density)
    words = ["compare", str(folders[0]), "--observed", OBSERVED[0], "--sets", "3"]
    with pytest.raises(ConfigurationError, match="need --set-events"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    other = {"prior": {"kind": "normal", "mean": [0, 0], "std": [2, 2]}}
    train_run(_config("other", 1, **other), tmp_path / "other")
    with pytest.raises(ConfigurationError, match="another prior or selection"):
        study_runs([folders[0], tmp_path / "other"], OBSERVED, tmp_path, settings=few)
