"""Charts by what the data deserve: found, made again from files, and refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import ChartError, ConfigurationError
from mflow_sbi.events import (
    EventMetadata,
    EventSample,
    Observable,
    Parameter,
    closure,
    read_events,
)
from mflow_sbi.recipes import RECIPES, TrainingResult, load_surrogate, train
from mflow_sbi.training import FitSettings

DATA = Path(__file__).parents[1] / "data"
SMALL_FLOW = {"layers": 1, "hidden": 16, "blocks": 1, "bins": 4}
FLOWS = {"reference": SMALL_FLOW, "density": SMALL_FLOW}
CASES = {
    "implicit": ("mflow", {"chart": {"kind": "implicit", "epochs": 2, "hidden": 16}, **FLOWS}),
    "automatic": ("mflow", {"chart": "automatic", **FLOWS}),
    "fom": ("fom", FLOWS),
}


def _events() -> EventSample:
    return read_events(str(DATA / "wbf_tuned_train_small.root"))


def _train(recipe: str, options: dict, events: EventSample) -> tuple[TrainingResult, list[str]]:
    changes: dict[str, object] = {"epochs": 1, "batch_size": 200}
    quick = {phase.name: changes for phase in RECIPES[recipe].schedule.phases}
    notes: list[str] = []
    result = train(
        events,
        recipe,
        options=options,
        schedule=RECIPES[recipe].schedule.with_phases(**quick),
        settings=FitSettings(seed=1),
        on_note=notes.append,
    )
    return result, notes


@pytest.fixture(scope="module", params=CASES)
def trained(request) -> tuple[str, TrainingResult, list[str]]:
    recipe, options = CASES[request.param]
    return (request.param, *_train(recipe, options, _events()))


def test_reconstruction_and_samples_obey_the_constraints(trained):
    name, result, _ = trained
    events = _events()
    test = events.x[-300:]
    assert result.surrogate.reconstruction_error(test).mean() < 1e-4
    assert closure(result.surrogate.project(test)) < 1e-5
    drawn = result.surrogate.sample(events.require_theta()[:300], seed=4)
    assert closure(drawn) < 1e-4
    assert result.surrogate.surrogate.latent_dim == 14


def test_no_manifold_phase_where_the_chart_is_not_learned(trained):
    _, result, _ = trained
    assert {record.phase for record in result.history} == {"reference", "density"}


def test_says_what_was_found(trained):
    name, _, notes = trained
    if name != "fom":
        assert "exact" in notes[0]
        assert "14 latents: " in notes[0]


def test_saved_and_loaded_surrogates_give_the_same_numbers(trained, tmp_path):
    _, result, _ = trained
    x = _events().x[:50]
    result.surrogate.save(tmp_path)
    loaded = load_surrogate(tmp_path)
    assert np.array_equal(loaded.log_prob(x, [0.1, 0.2]), result.surrogate.log_prob(x, [0.1, 0.2]))
    assert np.array_equal(
        loaded.sample(np.zeros((20, 2)), seed=1),
        result.surrogate.sample(np.zeros((20, 2)), seed=1),
    )


def _noisy(size: float) -> EventSample:
    events = _events()
    rng = np.random.default_rng(3)
    noise = size * events.x.std(axis=0) * rng.normal(size=events.x.shape)
    return replace(events, x=(events.x + noise).astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("size", [1e-5, 1e-2])
def test_noisy_events_fall_back_to_the_invertible_chart_and_say_why(size):
    options = {"chart": {"kind": "automatic", "invertible": SMALL_FLOW}, **FLOWS}
    result, notes = _train("mflow", options, _noisy(size))
    assert "invertible flow" in notes[0]
    assert result.surrogate.record.options["chart"]["kind"] == "invertible"


def test_an_implicit_chart_of_noisy_events_is_refused():
    with pytest.raises(ChartError, match="chart: invertible"):
        _train("mflow", {"chart": "implicit", **FLOWS}, _noisy(1e-5))


def _points(write: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> EventSample:
    """Return 2500 events with the given observables of a uniform angle, and that angle's theta."""
    rng = np.random.default_rng(4)
    x = write(rng.uniform(-np.pi, np.pi, 2500), rng)
    names = [f"x{k}" for k in range(x.shape[1])]
    metadata = EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=(Parameter("theta"),),
        observables=tuple(Observable(name, name) for name in names),
    )
    return EventSample(x=x, metadata=metadata, theta=rng.normal(size=(len(x), 1)))


def _ellipse(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([2 * np.cos(angle), np.sin(angle)], axis=1)


def _circle(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _part_of_a_ring(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    along, around = 0.3 * angle, 0.3 * rng.uniform(-np.pi, np.pi, len(angle))
    width = 2 + np.cos(around)
    return np.stack([width * np.cos(along), width * np.sin(along), np.sin(around)], axis=1)


def test_a_surface_that_folds_over_all_pivots_is_no_implicit_chart():
    with pytest.raises(ChartError, match="folds"):
        _train("mflow", {"chart": "implicit", **FLOWS}, _points(_ellipse))
    options = {"latent_dim": 1, "chart": {"kind": "automatic", "invertible": SMALL_FLOW}, **FLOWS}
    result, notes = _train("mflow", options, _points(_ellipse))
    assert "folds" in notes[0]
    assert result.surrogate.record.options["chart"]["kind"] == "invertible"
    assert result.surrogate.record.notes == tuple(notes)
    assert "phase 'density' takes" in notes[-1]


def test_a_circle_is_charted_by_its_angle():
    events = _points(_circle)
    chart = {"kind": "implicit", "epochs": 1, "hidden": 8}
    result, notes = _train("mflow", {"chart": chart, **FLOWS}, events)
    assert "angle(x0, x1)" in notes[0]
    assert result.surrogate.reconstruction_error(events.x).max() < 1e-5


def test_constraints_of_higher_degree_are_found_where_they_are_asked_for():
    events = _points(_part_of_a_ring)
    chart = {"kind": "implicit", "epochs": 1, "hidden": 8}
    result, notes = _train("mflow", {"chart": {**chart, "degree": 4}, **FLOWS}, events)
    assert "1 constraints, a surface of 2 dimensions" in notes[0]
    assert result.surrogate.reconstruction_error(events.x).max() < 1e-4
    with pytest.raises(ChartError, match="none"):
        _train("mflow", {"chart": chart, **FLOWS}, events)


def test_the_known_surface_takes_its_own_observables_only():
    events = _events()
    kept = [i for i, name in enumerate(events.observable_names) if name != "px_a1"]
    fewer = tuple(events.metadata.observables[i] for i in kept)
    other = replace(
        events, x=events.x[:, kept], metadata=replace(events.metadata, observables=fewer)
    )
    with pytest.raises(ChartError, match="missing"):
        _train("fom", FLOWS, other)


def test_unknown_charts_are_refused():
    with pytest.raises(ConfigurationError, match="expected one of .*'implicit'"):
        RECIPES["mflow"].parse_options({"chart": "implicid"})
    with pytest.raises(ConfigurationError, match="did you mean 'epochs'"):
        RECIPES["mflow"].parse_options({"chart": {"kind": "implicit", "epoch": 2}})
