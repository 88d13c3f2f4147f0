"""From a pool to a trained surrogate: resampled and weighted events teach the same density."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.config import parse_config
from mflow_sbi.errors import ConfigurationError, EventDataError
from mflow_sbi.events import Benchmarks, EventSample, read_events
from mflow_sbi.inference import NormalPrior
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, suggest_benchmarks
from mflow_sbi.pool_config import MorphingConfig, ResampleConfig, events_from_pool
from mflow_sbi.recipes import RECIPES, load_surrogate, train
from mflow_sbi.reweighting import pool_part, resampled, weighted
from mflow_sbi.training import FitSettings

from ..densities.toys import EXPONENTS, exact_log_ratio, toy_events

WBF = Path(__file__).parents[2] / "data" / "wbf_tuned_train_small.root"
PRIOR = NormalPrior(("t0", "t1"), (0.5, 0.0), (0.7, 0.7))


def _ratio_of(events: EventSample, test: EventSample) -> Array:
    """Return ln r(x_i, theta_i) learned from the events by NRE."""
    options = {"hidden": 16, "layers": 2}
    schedule = RECIPES["nre"].schedule_for(RECIPES["nre"].parse_options(options))
    schedule = schedule.with_phases(ratio={"epochs": 5, "batch_size": 200, "learning_rate": 1e-2})
    result = train(events, "nre", options=options, schedule=schedule, settings=FitSettings(seed=2))
    return result.surrogate.log_likelihood(test.x, test.require_theta())


def test_resampled_and_weighted_events_teach_the_same_density():
    pool = toy_events(12_000, 1)
    drawn, report = resampled(pool, PRIOR, 8000, np.random.default_rng(1))
    signs = np.where(np.random.default_rng(2).random(len(pool)) < 0.1, -1.0, 11 / 9)
    kept, summary = weighted(pool, PRIOR, np.random.default_rng(1))
    assert kept.weight is not None
    signed = replace(kept, weight=kept.weight * signs[: len(kept)])
    test, _ = resampled(toy_events(6000, 3), PRIOR, 2000, np.random.default_rng(4))
    exact = exact_log_ratio(test.x, test.require_theta(), drawn.require_theta()[:2000])
    learned = {
        name: _ratio_of(events, test)
        for name, events in {"drawn": drawn, "weighted": kept, "signed": signed}.items()
    }
    for ratio in learned.values():
        assert -0.01 < (exact - ratio).mean() < 0.06  # nats; that of test_weighted_training
    size = np.abs(exact).mean()
    assert np.abs(learned["drawn"] - learned["weighted"]).mean() < 0.35 * size
    assert report.n_distinct > 4000
    assert summary.negative_share == 0


RUN = """
name: resampled
events: {events}
recipe: nre
options: {{hidden: 8}}
phases: {{ratio: {{epochs: 1, batch_size: 200}}}}
prior: {{kind: normal, mean: [0.1, 0.0], std: [0.5, 0.5]}}
resample: {{events: 1500, part: [0, 0.8]}}
"""


def _invoke(config: Path, folder: Path):
    arguments = ["train", str(config), "--folder", str(folder)]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_run_trains_on_resampled_events(tmp_path: Path):
    config, folder = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(RUN.format(events=WBF))
    result = _invoke(config, folder)
    assert result.exit_code == 0, result.output
    said = result.output.replace("\n", " ")
    assert "part [0, 0.8) of the pool: 8,019 of 10,000 events" in said
    assert "resampled: 1,500 events drawn from a pool of 8,019" in said
    assert json.loads((folder / "training.json").read_text())["events"] == 1500
    record = load_surrogate(folder).record
    theta = record.metadata.theta_sampling
    assert theta is not None
    assert (theta.mean, theta.std) == ((0.1, 0.0), (0.5, 0.5))
    assert "already trained" in _invoke(config, folder).output  # the same events are drawn again
    config.write_text(RUN.format(events=WBF).replace("1500", "100000"))
    with pytest.raises(EventDataError, match="Ask for fewer events"):
        _invoke(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


MADMINER = """
name: madminer
events: {events}
recipe: nre
options: {{hidden: 8}}
phases: {{ratio: {{epochs: 1, batch_size: 200}}}}
prior: {{kind: box, low: [-0.5, -0.5], high: [0.5, 0.5]}}
morphing: {{degree: 2}}
resample: {{kind: {kind}}}
"""


@pytest.mark.parametrize("kind", ["resampled", "thinned", "weighted"])
def test_from_a_file_of_madminer_to_a_run(kind: str, tmp_path: Path):
    basis, n = MorphingBasis(EXPONENTS), 3000
    points = suggest_benchmarks(basis, [(-1, 1)] * 2, 7, np.random.default_rng(1))
    toy = toy_events(n, 1)
    c = toy.require_components()
    density = (basis.weights(toy.require_theta()) * c).sum(axis=1)
    with h5py.File(tmp_path / "events.h5", "w") as file:
        file["parameters/names"] = ["c1", "c2"]
        file["benchmarks/names"] = [f"b{k}" for k in range(7)]
        file["benchmarks/values"] = points
        file["observables/names"] = ["x0", "x1"]
        file["samples/observations"] = toy.x
        file["samples/weights"] = c / density[:, None] @ basis.weights(points).T / n
    config, folder = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(MADMINER.format(events=tmp_path / "events.h5", kind=kind))
    result = _invoke(config, folder)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "morphing: condition number" in said
    assert f"{kind}: " in said
    surrogate = load_surrogate(folder)
    assert surrogate.record.metadata.theta_sampling is not None
    assert surrogate.record.metadata.theta_sampling.low == (-0.5, -0.5)
    assert np.isfinite(surrogate.log_likelihood(toy.x[:5], [0.1, 0.2])).all()


def test_components_from_benchmark_weights_by_configuration():
    basis = MorphingBasis(EXPONENTS)
    points = suggest_benchmarks(basis, [(-1, 1)] * 2, 7, np.random.default_rng(1))
    toy = toy_events(4000, 1)
    c = toy.require_components()
    density = (basis.weights(toy.require_theta()) * c).sum(axis=1)
    weights = c / density[:, None] @ basis.weights(points).T / len(toy)
    metadata = replace(toy.metadata, morphing=None, parameters=(), benchmarks=Benchmarks("w"))
    foreign = EventSample(toy.x, metadata, benchmark_weight=weights)
    asked = MorphingConfig(benchmarks=tuple(map(tuple, points.tolist())), parameters=("t0", "t1"))
    prior = parse_config({"name": "a", "events": "b"}).prior
    whole, notes = events_from_pool(foreign, asked, None, prior, 1)
    assert whole.components is not None
    assert "condition number" in notes[0]
    part, notes = events_from_pool(foreign, asked, ResampleConfig(part=(0, 0.5)), prior, 1)
    assert len(notes) == 3
    assert part.metadata.morphing is not None
    assert whole.metadata.morphing is not None
    same = (part.metadata.morphing.cross_section, whole.metadata.morphing.cross_section)
    assert same[0] == same[1]  # of the whole pool
    rest = pool_part(whole, 0.5, 1)
    assert not set(map(tuple, part.x)) & set(map(tuple, rest.x))
    weighted_ones, _ = events_from_pool(foreign, asked, ResampleConfig(kind="weighted"), prior, 1)
    assert weighted_ones.weight is not None


REFUSED = {
    "unknown key": ({"resample": {"event": 5}}, "unknown key 'resample.event'; did you mean"),
    "unknown kind": ({"resample": {"kind": "rejected"}}, "resample.kind"),
    "streaming": (
        {"resample": {}, "streaming": {}, "recipe": "nre"},
        "need the whole pool in memory",
    ),
    "degree": ({"morphing": {"degree": 0}}, "morphing.degree"),
    "a part of the pool": (
        {"morphing": {}, "max_events": 10},
        "would take their cross section for that of all",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused_configurations(case):
    values, message = case
    with pytest.raises(ConfigurationError, match=message):
        parse_config({"name": "a", "events": "b", **values})


def test_refused_by_the_events():
    prior = parse_config({"name": "a", "events": "b"}).prior
    wbf = read_events(WBF).take(np.arange(1000))
    bare = replace(
        wbf,
        metadata=replace(wbf.metadata, parameters=(), morphing=None),
        theta=None,
        score=None,
        components=None,
        benchmark_weight=np.ones((1000, 6)),
    )
    with pytest.raises(ConfigurationError, match="the events have no parameters"):
        events_from_pool(bare, MorphingConfig(), None, prior, 1)
    asked = MorphingConfig(benchmarks=((0.0,), (1.0,)), parameters=("a", "b"))
    with pytest.raises(ConfigurationError, match=r"points of 2 parameters, got points of \[1\]"):
        events_from_pool(bare, asked, None, prior, 1)
    with pytest.raises(ConfigurationError, match="takes every event of the pool, got `events`"):
        events_from_pool(wbf, None, ResampleConfig(kind="weighted", events=5), prior, 1)
