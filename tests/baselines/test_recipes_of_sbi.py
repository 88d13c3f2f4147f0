"""Every baseline of sbi on a toy of known posteriors: learns, repeats, is saved, is refused."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.baselines.estimators import SbiSetPosterior
from mflow_sbi.baselines.set_likelihood import SetLikelihood
from mflow_sbi.errors import (
    ConfigurationError,
    EventDataError,
    MissingReference,
    TrainingError,
)
from mflow_sbi.events import EventSample, SelectionReport
from mflow_sbi.events.metadata import ThetaSampling
from mflow_sbi.inference import FlatLikelihood, common_grid, grid_posterior
from mflow_sbi.interfaces import DifferentiableLikelihood
from mflow_sbi.recipes import RECIPES, TrainingResult, likelihood_of, load_surrogate, train
from mflow_sbi.sbi_recipes import SBI_RECIPES
from mflow_sbi.training import FitSettings

from .toys import (
    NAMES,
    PRIOR,
    LinearLikelihood,
    events_at,
    linear_events,
    log_density,
    log_evidence,
)

EVENTS = linear_events(2000, 1)
GROUPED = linear_events(250, 1, each=8)
FLOW = {"hidden": 20, "transforms": 2}
OF_SETS = {"sets": 2000, "event_hidden": 20, "summaries": 8, "embedding": 8}
OPTIONS = {
    "sbi_npe": {**FLOW, **OF_SETS},
    "sbi_npe_single": FLOW,
    "sbi_nle_maf": {"hidden": 20, "transforms": 5},
    "sbi_nle_nsf": FLOW,
    "sbi_nre_a": {"hidden": 20},
    "sbi_nre_b": {"hidden": 20},
    "sbi_nre_c": {"hidden": 20},
}
EPOCHS = {"sbi_nre_a": 15, "sbi_nre_b": 15, "sbi_nre_c": 15, "sbi_npe": 12}
DISTANCE = {"sbi_npe": 0.45, "sbi_npe_single": 0.5}
"""Allowed mean total variation to the exact posteriors of 6 events; the prior's is 0.7."""


def _train(
    name: str,
    events: EventSample | None = None,
    epochs: int | None = None,
    seed: int = 2,
    options: Mapping[str, object] | None = None,
) -> TrainingResult:
    if events is None:
        events = GROUPED if name == "sbi_npe" else EVENTS
    quick = {
        "epochs": epochs or EPOCHS.get(name, 8),
        "batch_size": 50,
        "learning_rate": 3e-3,
    }
    schedule = RECIPES[name].schedule.with_phases(inference=quick)
    wanted = {**OPTIONS[name], **(options or {})}
    return train(events, name, options=wanted, schedule=schedule, settings=FitSettings(seed=seed))


@cache
def _usual(name: str) -> TrainingResult:
    torch.set_num_threads(1)
    return _train(name)


@pytest.fixture(params=OPTIONS)
def trained(request: pytest.FixtureRequest) -> tuple[str, TrainingResult]:
    return request.param, _usual(request.param)


def test_this_table_covers_the_registry() -> None:
    assert set(OPTIONS) == set(SBI_RECIPES) <= set(RECIPES)


def test_posteriors_are_near_the_known_ones(trained: tuple[str, TrainingResult]) -> None:
    name, result = trained
    rng, distances, far = np.random.default_rng(5), [], []
    for theta in rng.normal(size=(6, 2)):
        x = events_at(np.repeat(theta[None], 6, axis=0), rng)
        exact = LinearLikelihood(x)
        grid = common_grid([exact], PRIOR, 40)
        true = grid_posterior(exact, PRIOR, grid)
        learned = grid_posterior(likelihood_of(result.surrogate, x), PRIOR, grid)
        distances.append(true.total_variation(learned))
        far.append(true.total_variation(grid_posterior(FlatLikelihood(NAMES), PRIOR, grid)))
    assert np.mean(distances) < DISTANCE.get(name, 0.25)
    assert np.mean(far) > 0.65


def test_the_history_has_every_epoch(trained: tuple[str, TrainingResult]) -> None:
    name, result = trained
    epochs = len(result.history)
    assert EPOCHS.get(name, 8) - 3 < epochs <= EPOCHS.get(name, 8)  # sbi's patience is ours
    assert [record.epoch for record in result.history] == list(range(epochs))
    assert {record.phase for record in result.history} == {"inference"}
    assert min(r.validation for r in result.history[1:]) < result.history[0].validation
    assert all(record.seconds > 0 for record in result.history)


def test_save_and_load_give_the_same_numbers(
    trained: tuple[str, TrainingResult], tmp_path: Path
) -> None:
    name, result = trained
    result.surrogate.save(tmp_path)
    loaded, points = load_surrogate(tmp_path), PRIOR.sample(40, np.random.default_rng(0))
    x = EVENTS.x[:6]
    here, there = (likelihood_of(one, x)(points) for one in (result.surrogate, loaded))
    assert np.array_equal(here, there)
    assert np.ptp(here) > 3
    assert loaded.record.recipe == name
    assert not list(tmp_path.rglob("*.pkl"))
    here, there = (one.log_likelihood(x, points[:6]) for one in (result.surrogate, loaded))
    assert np.array_equal(here, there)


def test_likelihoods_know_their_slope(trained: tuple[str, TrainingResult]) -> None:
    likelihood = likelihood_of(trained[1].surrogate, EVENTS.x[:6])
    assert isinstance(likelihood, DifferentiableLikelihood)
    points = PRIOR.sample(60, np.random.default_rng(1))
    _, slopes = likelihood.value_and_gradient(points)
    step = np.array([[0.02, 0.0]])
    differences = (likelihood(points + step) - likelihood(points - step)) / 0.04
    off = np.abs(differences - slopes[:, 0])
    assert np.median(off) < 0.02 * np.abs(slopes[:, 0]).max()  # kinks: networks of ReLU


@pytest.mark.parametrize("name", OPTIONS)
def test_training_repeats_bit_for_bit(name: str) -> None:
    few = (linear_events(60, 3, each=5) if name == "sbi_npe" else EVENTS).take(np.arange(300))
    fewer = {"sets": 200} if name == "sbi_npe" else {}
    results = []
    for seed in (1, 1, 2):
        torch.rand(1)  # whatever happened before
        state = torch.get_rng_state()
        results.append(_train(name, few, 2, seed, fewer))
        assert torch.equal(torch.get_rng_state(), state)
    assert [len(result.history) for result in results] == [2, 2, 2]
    weights = [one.surrogate.surrogate.state_dict() for one in results]  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][key]) for key, value in weights[0].items())


@pytest.mark.parametrize("name", ["sbi_nle_maf", "sbi_nle_nsf"])
def test_densities_integrate_to_one_and_are_those_of_standardised_events(name: str) -> None:
    surrogate = _usual(name).surrogate
    assert surrogate.surrogate.measure == "ambient"
    scale = surrogate.record.observables
    edge, n = 8.0, 240
    axis = (np.arange(n) + 0.5) * 2 * edge / n - edge
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    x = scale.inverse(z)
    for theta in ([0.3, -1.0], [0.0, 0.5]):
        values = surrogate.log_prob(x, theta)
        assert abs(np.exp(values).sum() * (2 * edge / n) ** 2 - 1) < 5e-3
        assert np.allclose(values, surrogate.log_likelihood(x, theta))
        drawn = surrogate.sample(np.tile([theta], (4000, 1)), seed=1)
        density = np.exp(values) / np.exp(values).sum()
        error = np.abs(scale.transform(drawn).mean(axis=0) - density @ z)
        assert error.max() < 5 / np.sqrt(4000)


def test_the_density_is_the_known_one() -> None:
    surrogate = _usual("sbi_nle_nsf").surrogate
    test = linear_events(1000, 9)
    theta = test.require_theta()
    physical = surrogate.log_prob(test.x, theta) - np.log(surrogate.record.observables.std).sum()
    lost = log_density(test.x, theta) - physical
    assert lost.mean() < 0.15  # of 0.37 nats that theta tells
    assert (log_density(test.x, theta) - log_evidence(test.x)).mean() > 0.35


@pytest.mark.parametrize("name", ["sbi_nre_a", "sbi_nre_c", "sbi_npe_single"])
def test_ratios_are_those_to_all_events(name: str) -> None:
    surrogate = _usual(name).surrogate
    test = linear_events(1000, 9)
    theta = test.require_theta()
    exact = log_density(test.x, theta) - log_evidence(test.x)
    lost = exact - surrogate.log_likelihood(test.x, theta)
    assert exact.mean() > 0.35
    assert abs(lost.mean()) < 0.2


def test_the_set_is_one_and_knows_its_size() -> None:
    surrogate = _usual("sbi_npe").surrogate
    x, points = EVENTS.x[:7], PRIOR.sample(30, np.random.default_rng(0))
    whole, turned = SetLikelihood(surrogate, x), SetLikelihood(surrogate, x[::-1])
    assert np.allclose(whole(points), turned(points), atol=1e-4)
    assert whole.n_events == 7
    assert np.array_equal(whole.observed["x"], x)
    again = SetLikelihood(surrogate, np.concatenate([x[:1]] * 7))
    assert np.abs(again(points) - SetLikelihood(surrogate, x[:1])(points)).max() > 0.1
    assert whole.evaluations.points == 30
    with pytest.raises(ConfigurationError, match="at most 8, as in training, got 9"):
        SetLikelihood(surrogate, EVENTS.x[:9])
    with pytest.raises(ConfigurationError, match="latents: a posterior estimator of sets"):
        surrogate.encode(x)


def test_the_likelihood_of_a_set_is_the_networks_over_the_prior() -> None:
    surrogate = _usual("sbi_npe").surrogate
    x, points = EVENTS.x[:7], PRIOR.sample(30, np.random.default_rng(0))
    estimator = surrogate.surrogate
    assert isinstance(estimator, SbiSetPosterior)
    theta = torch.from_numpy(surrogate.record.parameters.transform(points)).float()
    (embedding,) = estimator._embedding
    table = embedding.table
    embedding.keep(surrogate.standardise(x).float())  # rows of 7 events, 7 for none
    try:
        with torch.no_grad():
            rows = torch.tensor([[3, 0, 1, 6, 2, 4, 5, 7]]).float()
            log_posterior = estimator.network.log_prob(theta[:, None], rows)[:, 0]
    finally:
        embedding.table = table
    expected = log_posterior.double() - estimator.prior.log_prob(theta)
    values = SetLikelihood(surrogate, x)(points)
    assert np.allclose(values, expected.numpy(), atol=1e-4)
    assert np.ptp(estimator.prior.log_prob(theta).numpy()) > 1


BOX = ThetaSampling("uniform", low=(-1.0, -2.0), high=(1.0, 2.0))


def _in_a_box() -> EventSample:
    rng = np.random.default_rng(4)
    theta = rng.uniform(-1, 1, size=(600, 2)) * [1, 2]
    flat = linear_events(600, 4, sampling=BOX)
    return replace(flat, x=events_at(theta, rng), theta=theta)


def test_nothing_is_learned_outside_the_box_of_the_training() -> None:
    surrogate = _train("sbi_npe_single", _in_a_box(), epochs=2).surrogate
    likelihood = likelihood_of(surrogate, EVENTS.x[:4])
    values = likelihood(np.array([[0.0, 0.0], [0.99, 1.9], [1.01, 0.0], [0.0, 2.1]]))
    assert np.isfinite(values).tolist() == [True, True, False, False]
    assert np.isneginf(values[2:]).all()


SELECTED = SelectionReport(2000, 2000, {}, ("a > 0",))
DRAWN_OTHERWISE = ThetaSampling("normal", mean=(0.0, 0.0), std=(1.5, 1.0))


@pytest.mark.parametrize(
    ("name", "events", "error", "message"),
    [
        ("sbi_npe", EVENTS, MissingReference, "2000 events at 2000 thetas.*sbi_npe_single"),
        ("sbi_npe_single", linear_events(300, 1, sampling=None), MissingReference, "got nothing"),
        (
            "sbi_npe_single",
            linear_events(300, 1, sampling=ThetaSampling("fixed", value=(0.0, 0.0))),
            MissingReference,
            "got a fixed theta",
        ),
        (
            "sbi_npe_single",
            linear_events(2000, 1, sampling=DRAWN_OTHERWISE),
            EventDataError,
            "parameter 0 was drawn normal .centre 0, scale 1.5.",
        ),
        ("sbi_npe_single", replace(EVENTS, report=SELECTED), ConfigurationError, "selection .a >"),
        (
            "sbi_nre_a",
            replace(EVENTS, weight=np.linspace(1, 2, 2000)),
            EventDataError,
            "unweighted",
        ),
    ],
)
def test_events_that_do_not_serve_are_refused(
    name: str, events: EventSample, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _train(name, events)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sbi_nle_maf", {"inputs": "latent"}, "inputs: expected one of .*, got 'latent'"),
        ("sbi_nle_maf", {"bins": 4}, "unknown option 'bins'"),
        ("sbi_nle_nsf", {"bins": 0}, "bins: expected at least 1"),
        ("sbi_npe_single", {"flow": "mdn"}, "flow: expected one of"),
        ("sbi_nre_c", {"gamma": 0.0}, "gamma: expected a positive number"),
        ("sbi_npe", {"most_events": 0}, "most_events: expected at least 1"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(EVENTS, name, options=options)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"weight_decay": 1e-3}, FitSettings(), "weight_decay 0.001, expected 0"),
        ({"epochs": 1}, FitSettings(), "one epoch, expected at least two"),
        ({}, FitSettings(compiled=True), "compiled layers"),
    ],
)
def test_what_the_trainers_cannot_do_is_refused(
    changes: dict, settings: FitSettings, message: str
) -> None:
    schedule = RECIPES["sbi_nre_a"].schedule.with_phases(inference=changes)
    with pytest.raises(ConfigurationError, match=message):
        train(EVENTS, "sbi_nre_a", schedule=schedule, settings=settings)
    with pytest.raises(ConfigurationError, match="2 cycles, expected one"):
        train(EVENTS, "sbi_nre_a", schedule=replace(schedule, cycles=2))


def test_a_diverging_training_is_told() -> None:
    schedule = RECIPES["sbi_nle_maf"].schedule.with_phases(
        inference={"learning_rate": 1e12, "clip_norm": 1e12, "epochs": 3, "batch_size": 50}
    )
    with pytest.raises(TrainingError, match="'inference' diverged after"):
        train(EVENTS, "sbi_nle_maf", options=FLOW, schedule=schedule)
