"""Training on weighted events: every recipe takes them, learns from them, says what they cost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import uproot
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.errors import EventDataError, TrainingError
from mflow_sbi.events import EventSample, Standardizer, read_events
from mflow_sbi.events.weights import spread_rows
from mflow_sbi.interfaces import Array
from mflow_sbi.recipes import RECIPES, TrainingResult, load_surrogate, train
from mflow_sbi.training import FitSettings, TrainingEvents
from mflow_sbi.training.batches import split_events

from .densities.toys import CROSS_SECTION, components, exact_log_ratio, monomials, toy_events

WBF = Path(__file__).parents[1] / "data" / "wbf_tuned_train_small.root"
FLOW = {"layers": 1, "hidden": 8, "bins": 4}
NETWORK = {"hidden": 16, "layers": 2}
CHART = {"latent_dim": 1, "reference": FLOW, "density": FLOW}


class Case(NamedTuple):
    """A recipe and its options."""

    recipe: str
    options: dict[str, Any]


CASES = {
    "af, flow": Case("af", {"reference": FLOW, "density": FLOW}),
    "af, morphing": Case("af", {"reference": FLOW, "density": {"kind": "morphing", **NETWORK}}),
    "af, learned rate": Case(
        "af", {"reference": FLOW, "density": {"kind": "morphing", "learned_rate": True, **NETWORK}}
    ),
    "af, residual": Case("af", {"reference": FLOW, "density": {"kind": "residual", **NETWORK}}),
    "fom": Case("fom", {"reference": FLOW, "density": {"kind": "morphing", **NETWORK}}),
    "mflow": Case("mflow", {**CHART, "chart": {"kind": "invertible", **FLOW}}),
    "emflow": Case(
        "emflow", {**CHART, "chart": {"encoder": {"hidden": 8, "blocks": 1}, "decoder": FLOW}}
    ),
    "pie": Case("pie", {"latent_dim": 1, "split": FLOW, "density": FLOW}),
    "pae": Case("pae", {**CHART, "chart": {"kind": "autoencoder", "hidden": 8, "blocks": 1}}),
    "nre": Case("nre", NETWORK),
    "alices": Case("alices", NETWORK),
    "histogram": Case("histogram", {"observables": ["x0"], "bins": 5}),
    "sally": Case("sally", {**NETWORK, "bins": 4}),
}
REFUSED = {name: recipe for name, recipe in RECIPES.items() if name.startswith("sbi_")}


def test_the_tables_cover_the_registry():
    assert {case.recipe for case in CASES.values()} | set(REFUSED) == set(RECIPES)


def _prior(theta: Array) -> Array:
    """Return N(theta; (1/2, 0), 0.7^2) / N(theta; 0, 1), up to a factor."""
    shift = np.square((theta - [0.5, 0.0]) / 0.7)
    return np.exp(0.5 * (np.square(theta) - shift)).prod(axis=1)


def _weighted(n: int, seed: int) -> EventSample:
    """Return toy events thinned in x_0, of another prior, with signs: weights undo all three."""
    events, rng = toy_events(n, seed), np.random.default_rng(seed)
    size = 1.0 + np.square(events.x[:, 0])
    kept = rng.random(n) * size < 1.0
    signs = np.where(rng.random(n) < 0.2, -1.0, 1.5)  # of mean one
    weight = size * _prior(events.require_theta()) * signs
    return replace(events, weight=weight).take(kept)


def _train(case: Case, events: EventSample, **phases: dict[str, object]) -> TrainingResult:
    recipe = RECIPES[case.recipe]
    schedule = recipe.schedule_for(recipe.parse_options(case.options))
    changes: dict[str, dict[str, object]] = {
        name: {"epochs": 1, "batch_size": 100, **phases.get(name, {})}
        for name in schedule.phase_names
    }
    return train(
        events,
        case.recipe,
        options=case.options,
        schedule=schedule.with_phases(**changes),
        settings=FitSettings(seed=2),
    )


@pytest.fixture(scope="module")
def samples() -> dict[str, EventSample]:
    torch.set_num_threads(1)
    wbf = read_events(WBF).take(np.arange(600))
    signs = np.where(np.arange(600) % 9 == 0, -0.5, 1.0)
    return {"toy": _weighted(2500, 3), "wbf": replace(wbf, weight=signs)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_recipe_trains_on_signed_weights(case: Case, samples, tmp_path: Path):
    events = samples["wbf" if case.recipe == "fom" else "toy"]
    plain, equal, signed = (
        _train(case, replace(events, weight=weight))
        for weight in (None, np.full(len(events), 0.3), events.weight)
    )
    tensors = [_tensors(result) for result in (plain, equal, signed)]
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert [r.validation for r in plain.history] == [r.validation for r in equal.history]
    assert plain.surrogate.record.notes == equal.surrogate.record.notes
    changed = {
        k.split(".")[0] for k, value in tensors[0].items() if (value != tensors[2][k]).any()
    }
    assert changed
    assert "chart" not in changed  # the surface is where events are
    record = signed.surrogate.record
    assert "weighted events have the effective size" in record.notes[0]
    unweighted = Standardizer.fit(events.x)  # units of the networks: events as they come
    assert record.observables.to_dict() == unweighted.to_dict()
    signed.surrogate.save(tmp_path)
    stored = json.loads((tmp_path / "surrogate.json").read_text())
    assert stored["notes"][0] == record.notes[0]
    assert stored["digests"]["training_events"] == events.digest
    theta = events.require_theta()[:20]
    here, there = (
        s.log_likelihood(events.x[:20], theta)
        for s in (signed.surrogate, load_surrogate(tmp_path))
    )
    assert np.array_equal(here, there)
    assert np.isfinite(here).all()


def _tensors(result: TrainingResult) -> dict[str, torch.Tensor]:
    module = result.surrogate.surrogate
    assert isinstance(module, torch.nn.Module)
    return module.state_dict()


LEARNED = {  # -> largest loss in nats per event; without the weights none is within
    "af, flow": 0.16,
    "af, morphing": 0.035,
    "af, residual": 0.06,
    "nre": 0.06,
}


@pytest.fixture(scope="module")
def learning() -> tuple[EventSample, EventSample, Array]:
    """Return weighted events, events of the density they stand for, and its exact log ratio."""
    events, others = _weighted(20_000, 1), toy_events(12_000, 2)
    test = others.take(spread_rows(len(others), 4000, _prior(others.require_theta())))
    prior = events.require_theta()[spread_rows(len(events), 4000, events.theta_weight)]
    return events, test, exact_log_ratio(test.x, test.require_theta(), prior)


@pytest.mark.parametrize("name", LEARNED)
def test_learns_the_density_that_the_weights_stand_for(name: str, learning):
    events, test, exact = learning
    case = CASES[name]
    if name == "af, morphing":
        density = {**case.options["density"], "inputs": "samples"}
        case = case._replace(options={**case.options, "density": density})
    long = {"epochs": 5, "learning_rate": 1e-2 if name == "nre" else 5e-3}
    surrogate = _train(case, events, ratio=long, density=long, reference={"epochs": 2}).surrogate
    theta = test.require_theta()
    learned = surrogate.log_likelihood(test.x, theta)
    if name == "af, flow":
        w, units = monomials(theta), np.log(surrogate.record.observables.std).sum()
        exact = np.log((components(test.x) * w).sum(axis=1) / (w @ CROSS_SECTION))
        exact = exact - 0.5 * np.square(test.x).sum(axis=1) - np.log(2 * np.pi)
        learned = surrogate.log_prob(test.x, theta) - units
    assert -0.01 < (exact - learned).mean() < LEARNED[name]


RUN = """
name: signed
events: {events}
recipe: nre
options: {{hidden: 8}}
phases: {{ratio: {{epochs: 2, batch_size: 200}}}}
"""


def test_from_a_file_of_signed_weights_to_a_run(samples, tmp_path: Path):
    events = samples["toy"]
    columns = dict(zip(events.observable_names, events.x.T, strict=True))
    names = [f"theta.{name}" for name in events.parameter_names]
    columns |= dict(zip(names, events.require_theta().T, strict=True)) | {"weight": events.weight}
    metadata = replace(events.metadata, tree="events", morphing=None)
    with uproot.recreate(tmp_path / "signed.root") as file:
        file.mktree("events", {k: v.dtype for k, v in columns.items()}).extend(columns)
        file["mflow_sbi"] = metadata.to_json()
    config = tmp_path / "run.yaml"
    config.write_text(RUN.format(events=tmp_path / "signed.root"))
    folder = tmp_path / "run"
    arguments = [str(word) for word in ("train", config, "--folder", folder)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    surrogate = load_surrogate(folder)
    assert surrogate.record.notes[0] == events.weight_notes[0]
    assert "negative weights" in result.output.replace("\n", " ")
    assert np.isfinite(surrogate.log_likelihood(events.x[:5], [0.0, 0.0])).all()


@pytest.mark.parametrize("name", REFUSED)
def test_trainers_of_sbi_refuse_weights(name: str):
    recipe = REFUSED[name]
    events = TrainingEvents(torch.zeros(5, 2), torch.zeros(5, 1), weight=torch.arange(5.0))
    with pytest.raises(EventDataError, match="know no weights"):
        recipe.learn(None, events, recipe.schedule, FitSettings())


def test_weights_that_nothing_can_be_learned_from_are_refused(samples):
    events = samples["toy"]
    few = np.where(np.arange(len(events)) < 50, 1.0, 1e-6)
    with pytest.raises(EventDataError, match=r"effective size .* = 50 .*at least 200"):
        train(replace(events, weight=few))
    with pytest.raises(EventDataError, match="not finite"):
        train(replace(events, weight=np.full(len(events), np.nan)))


def test_a_side_of_the_split_without_weight_is_refused():
    weight = torch.ones(40).double()
    weight[::2] = -0.99
    events = TrainingEvents(torch.zeros(40, 2), torch.arange(40.0)[:, None], weight=weight)
    with pytest.raises(TrainingError, match="on one side of the split .* expected a positive one"):
        split_events(events, 0.5, 1)
