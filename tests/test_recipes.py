"""Every recipe, its whole life: train, density, sample, save, load, refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.charting import EncodedOptions, invertible_options
from mflow_sbi.charts import InvertibleChart
from mflow_sbi.errors import (
    ConfigurationError,
    MissingReference,
    RunFolderError,
    ShapeError,
)
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.interfaces import EncodedLikelihood, ManifoldSurrogate
from mflow_sbi.recipes import RECIPES, TrainingResult, load_surrogate, train
from mflow_sbi.sbi_recipes import SBI_RECIPES
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import FitSettings

NAMES = ("a", "b", "c", "d", "total")
SMALL_FLOW = {"layers": 2, "hidden": 16, "bins": 5}
OPTIONS = {
    "mflow": {
        "latent_dim": 2,
        "chart": {"kind": "invertible", **SMALL_FLOW},
        "reference": SMALL_FLOW,
        "density": SMALL_FLOW,
    },
    "emflow": {
        "latent_dim": 2,
        "chart": {"encoder": {"hidden": 16, "blocks": 1}, "decoder": SMALL_FLOW},
        "reference": SMALL_FLOW,
        "density": SMALL_FLOW,
    },
    "autoencoder": {
        "latent_dim": 2,
        "chart": {"kind": "autoencoder", "hidden": 16, "blocks": 1},
        "reference": SMALL_FLOW,
        "density": SMALL_FLOW,
    },
    "af": {"reference": SMALL_FLOW, "density": SMALL_FLOW},
    "pie": {"latent_dim": 2, "split": SMALL_FLOW, "density": SMALL_FLOW, "width": 0.1},
}
RECIPE_OF = {name: name for name in OPTIONS} | {"autoencoder": "mflow"}
ESTIMATORS = ("nre", "alices", "histogram", "sally", *SBI_RECIPES)  # with tests of their own


def _sample(n: int = 1500, seed: int = 0) -> EventSample:
    """Return events on a 2-surface in R^5 (GeV-like scales), one exactly linear constraint."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 1))
    u = rng.normal(size=(n, 2)) * [1.0, 0.5] + 0.7 * theta
    a, b = 100 * u[:, 0], 100 * u[:, 1]
    x = np.stack([a, b, 100 * np.sin(u[:, 0]), 3 * u[:, 1] ** 2, a + b], axis=1)
    metadata = EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=(Parameter("mu"),),
        observables=tuple(Observable(name, name, "GeV") for name in NAMES),
    )
    return EventSample(x=x, theta=theta, metadata=metadata)


def _train(name: str, seed: int = 0) -> TrainingResult:
    recipe = RECIPE_OF[name]
    schedule = RECIPES[recipe].schedule
    quick = {
        phase.name: {"epochs": 3, "batch_size": 100, "learning_rate": 5e-3}
        for phase in schedule.phases
    }
    return train(
        _sample(),
        recipe,
        options=OPTIONS[name],
        schedule=schedule.with_phases(**quick),
        settings=FitSettings(seed=seed),
    )


def test_this_table_covers_the_registry():
    elsewhere = {
        "fom",  # tests/test_charting.py
        "pae",  # tests/surrogates/test_pseudo_inverses.py: it has no density of events
        *ESTIMATORS,  # tests/densities: test_estimators.py, test_binned.py
    }
    assert {*RECIPE_OF.values(), *elsewhere} == set(RECIPES)


@pytest.fixture(scope="module", params=OPTIONS)
def trained(request: pytest.FixtureRequest) -> TrainingResult:
    torch.set_num_threads(1)
    return _train(request.param)


def test_satisfies_the_protocol_of_inference(trained):
    surrogate = trained.surrogate
    assert isinstance(surrogate, EncodedLikelihood)
    assert tuple(surrogate.parameter_names) == ("mu",)
    theta = _sample().theta
    assert theta is not None
    assert np.array_equal(surrogate.parameter_ranges, [[theta.min(), theta.max()]])


def test_log_prob_differs_from_the_likelihood_by_a_constant_in_theta(trained):
    x = _sample(50, seed=1).x
    surrogate = trained.surrogate
    difference = [
        surrogate.log_prob(x, [[mu]]) - surrogate.log_likelihood(x, [[mu]]) for mu in (-1.0, 0.8)
    ]
    assert np.allclose(difference[0], difference[1], atol=1e-4)


def test_encoding_once_gives_the_likelihood(trained):
    x = _sample(50, seed=1).x
    surrogate = trained.surrogate
    theta = torch.full((50, 1), 0.4)
    with torch.no_grad():
        cached = surrogate.latent_log_likelihood(surrogate.encode(x), theta)
    assert np.allclose(cached.numpy(), surrogate.log_likelihood(x, [0.4]), atol=1e-4)


def test_samples_are_physical_repeat_and_obey_the_linear_constraint(trained):
    theta = np.linspace(-1, 1, 400)[:, None]
    x = trained.surrogate.sample(theta, seed=3)
    assert x.shape == (400, 5)
    assert np.abs(x[:, 4] - x[:, 0] - x[:, 1]).max() < 1e-9
    assert 20 < x[:, 0].std() < 500
    assert np.array_equal(x, trained.surrogate.sample(theta, seed=3))


def test_knows_that_events_follow_theta(trained):
    rng = np.random.default_rng(5)
    u = rng.normal(size=(300, 2)) * [1.0, 0.5] + 0.7 * 1.0  # at mu = 1
    x = np.stack(
        [
            100 * u[:, 0],
            100 * u[:, 1],
            100 * np.sin(u[:, 0]),
            3 * u[:, 1] ** 2,
            100 * u.sum(axis=1),
        ],
        axis=1,
    )
    here = trained.surrogate.log_likelihood(x, [1.0]).sum()
    assert here > trained.surrogate.log_likelihood(x, [-1.0]).sum() + 50


def test_projection_only_where_there_is_a_surface(trained):
    x = _sample(50, seed=1).x
    error = trained.surrogate.reconstruction_error(x)
    if trained.surrogate.is_manifold:
        assert isinstance(trained.surrogate.surrogate, ManifoldSurrogate)
        assert isinstance(trained.surrogate.surrogate, ManifoldFlow)
        if not isinstance(trained.surrogate.surrogate.chart, InvertibleChart):
            return  # a free encoder undoes the decoder only as far as it has learned to
        again = trained.surrogate.reconstruction_error(trained.surrogate.project(x))
        assert again.max() < 1e-3
        assert np.median(error) > 10 * np.median(again)
    else:
        assert error.max() < 1e-4  # float32 rounding of an invertible map


def test_save_and_load_give_the_same_numbers(trained, tmp_path: Path):
    trained.surrogate.save(tmp_path / "surrogate")
    loaded = load_surrogate(tmp_path)
    x = _sample(50, seed=1).x
    assert np.array_equal(loaded.log_prob(x, [0.3]), trained.surrogate.log_prob(x, [0.3]))
    assert loaded.record.digests == {"training_events": _sample().digest}
    assert not list(tmp_path.rglob("*.pkl"))
    assert not list(tmp_path.rglob("*.part"))
    record = json.loads((tmp_path / "surrogate" / "surrogate.json").read_text())
    assert record["versions"]["mflow_sbi"]
    assert record["seed"] == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "expected a surrogate folder"),
        (lambda f: (f / "surrogate.json").write_text("{"), "not a readable surrogate record"),
        (
            lambda f: (f / "weights.safetensors").write_bytes(b"x" * 100),
            "does not match the digest",
        ),
        (
            lambda f: (f / "surrogate.json").write_text(
                (f / "surrogate.json")
                .read_text()
                .replace('"format_version": 1,', '"format_version": 9,', 1)
            ),
            "got mflow_sbi.surrogate version 9",
        ),
    ],
    ids=["weights missing", "record cut", "weights altered", "other version"],
)
def test_a_damaged_folder_is_refused(trained, tmp_path: Path, damage, message):
    trained.surrogate.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunFolderError, match=message):
        load_surrogate(tmp_path)


def test_a_chart_given_in_part_stays_the_recipes_chart():
    # other than the flow's own defaults in every field left out
    chart = RECIPES["mflow"].parse_options({"chart": {"kind": "invertible", "layers": 4}}).chart
    assert (chart.layers, chart.coupling, chart.hidden, chart.blocks) == (4, "affine", 128, 2)
    chart = RECIPES["emflow"].parse_options({"chart": {"encoder": {"hidden": 7}}}).chart
    assert isinstance(chart, EncodedOptions)
    assert chart.decoder == invertible_options()


@pytest.mark.parametrize("name", OPTIONS)
def test_training_repeats_bit_for_bit(name):
    x = _sample(20, seed=1).x
    first, second, other = (_train(name, seed) for seed in (0, 0, 1))
    values = [r.surrogate.log_prob(x, [0.3]) for r in (first, second, other)]
    assert np.array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])


@pytest.mark.parametrize(
    ("x", "theta", "message"),
    [
        (np.zeros((3, 4)), [0.0], r"events: expected an array \(N, 5\), got shape \(3, 4\)"),
        (np.zeros((3, 5)), np.zeros((2, 1)), r"expected one row or one per event \(3\), got 2"),
        (np.zeros((3, 5)), np.zeros((3, 2)), r"theta: expected an array \(N, 1\)"),
    ],
)
def test_wrong_shapes_are_refused(trained, x, theta, message):
    with pytest.raises(ShapeError, match=message):
        trained.surrogate.log_prob(x, theta)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("pie", *ESTIMATORS)])
def test_options_left_out_keep_the_recipes_defaults(recipe):
    default = RECIPES[recipe].parse_options({})
    changed = RECIPES[recipe].parse_options({"reference": {"layers": 1}})
    assert changed.reference == replace(default.reference, layers=1)
    assert changed.density == default.density
    whole = RECIPES[recipe].parse_options({"density": {"bound": 5}})
    assert isinstance(whole.density.bound, float)


def test_impossible_requests_are_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'mflow'"):
        train(_sample(), "mflw")
    with pytest.raises(ConfigurationError, match="did you mean 'latent_dim'"):
        train(_sample(), "mflow", options={"latentdim": 2})
    with pytest.raises(ConfigurationError, match="expected 1 to 4"):
        train(_sample(), "mflow", options={"latent_dim": 5, "chart": "invertible"})
    with pytest.raises(ConfigurationError, match="latent_dim: expected int, got"):
        train(_sample(), "mflow", options={"latent_dim": {"layers": 5}})
    with pytest.raises(ConfigurationError, match="chart: expected AutomaticOptions, got 5"):
        train(_sample(), "mflow", options={"chart": 5})
    with pytest.raises(ConfigurationError, match="hidden: expected int, got 'many'"):
        train(_sample(), "mflow", options={"density": {"hidden": "many"}})
    sample = _sample()
    without = EventSample(x=sample.x, metadata=sample.metadata)
    with pytest.raises(MissingReference, match="theta"):
        train(without)
