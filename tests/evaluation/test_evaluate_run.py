"""Evaluating a run: events without a point of the surface are counted, not fatal."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.config import parse_config, read_config
from mflow_sbi.errors import ChartError, ShapeError
from mflow_sbi.events import read_events
from mflow_sbi.interfaces import SurfacePerTheta
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.runs import evaluate_run, train_run
from simulators.manifolds.event_file import draw_points, metadata, write_points
from simulators.manifolds.surfaces import Sphere

RUN = """
name: arc
events: {events}
recipe: mflow
options:
  chart: {{kind: implicit, hidden: 8, blocks: 1, epochs: 1}}
  reference: {{layers: 1, hidden: 8}}
  density: {{layers: 1, hidden: 8}}
phases: {{reference: {{epochs: 1}}, density: {{epochs: 1}}}}
prior: {{kind: box, low: [-1], high: [1]}}
"""
N_LOST = 7
SAMPLING = {"kind": "uniform", "low": [-1.0], "high": [1.0]}


def _write_arc(path: Path, n: int, n_lost: int, seed: int) -> None:
    """Write events of the circle near (1, 0), and some at its centre, which has no nearest one."""
    surface, rng = Sphere(1, 60.0), np.random.default_rng(seed)
    points = draw_points(surface, rng.uniform(-1, 1, n), 0.0, rng)
    points.x[:n_lost] = 0.0
    record = metadata(surface, points, 0.0, seed=seed, command="-", theta_sampling=SAMPLING)
    write_points(path, points, record)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arc")
    _write_arc(folder / "train.root", 2500, 0, 1)
    config = folder / "run.yaml"
    config.write_text(RUN.format(events=folder / "train.root"))
    train_run(read_config(config), folder / "run")
    return folder / "run"


def test_events_without_a_point_are_counted_and_reported(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "test.root"
    _write_arc(path, 300, N_LOST, 2)
    metrics = evaluate_run(run, str(path))
    assert metrics["n_without_projection"] == N_LOST
    assert metrics["reconstruction_error"] < 1e-6
    assert np.isfinite(metrics["log_prob_mean"])
    assert metrics["log_prob_events"] == 300 - N_LOST
    assert 0 <= metrics["redrawn_share"] < 1
    assert "exact" in metrics["notes"][0]
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["n_without_projection"] == N_LOST


def test_without_any_projection_there_are_no_means(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "test.root"
    _write_arc(path, 20, 20, 3)
    metrics = evaluate_run(run, str(path))
    assert metrics["n_without_projection"] == 20
    assert metrics["reconstruction_error"] is None
    assert metrics["log_prob_mean"] is None


def test_a_surface_per_theta_has_a_reconstruction_error(tmp_path: Path) -> None:
    for name, n in (("train", 1000), ("test", 50)):
        _write_arc(tmp_path / f"{name}.root", n, 0, n)
    small = {"layers": 1, "hidden": 8}
    options = {"latent_dim": 1, "split": small, "density": small}
    events = str(tmp_path / "train.root")
    values = {"name": "pie", "recipe": "pie", "events": events, "options": options}
    config = parse_config({**values, "phases": {"density": {"epochs": 1}}})
    train_run(config, tmp_path / "run")
    metrics = evaluate_run(tmp_path / "run", str(tmp_path / "test.root"))
    test, surrogate = read_events(tmp_path / "test.root"), load_surrogate(tmp_path / "run")
    flow, theta = surrogate.surrogate, surrogate.record.parameters.transform(test.require_theta())
    assert surrogate.has_surface
    assert not surrogate.is_manifold
    assert isinstance(flow, SurfacePerTheta)
    x = surrogate.standardise(test.x)
    with torch.no_grad():
        points = flow.project_at(x, torch.from_numpy(theta).float()).double()
    expected = float(torch.linalg.vector_norm(x - points, dim=1).mean())
    assert metrics["reconstruction_error"] == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-3
    with pytest.raises(ShapeError, match="one per event"):
        surrogate.project_at(test.x, test.require_theta()[:3])


def test_projections_alone_refuse_or_flag(run: Path) -> None:
    surrogate = load_surrogate(run)
    x = np.array([[1.0, 0.0], [0.0, 0.0], [0.9, 0.1]])
    with pytest.raises(ChartError, match="1 of 3 events"):
        surrogate.project(x)
    points, found = surrogate.project_with_flags(x)
    assert found.tolist() == [True, False, True]
    assert np.isnan(points[1]).all()
    assert np.hypot(*points[found].T) == pytest.approx(np.ones(2), abs=1e-6)


def test_the_share_of_redrawn_latents_is_that_of_the_sampler(run: Path) -> None:
    surrogate = load_surrogate(run)
    theta = np.zeros((100, 1))
    drawn, again = surrogate.sample_counted(theta, seed=5)
    assert np.array_equal(drawn, surrogate.sample(theta, seed=5))
    assert again >= 0
