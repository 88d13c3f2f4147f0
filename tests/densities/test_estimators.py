"""Ratio estimators: their optimum, their labels, their shapes, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.config import read_config
from mflow_sbi.densities import PairNetwork, PairShape, SymmetryGroup
from mflow_sbi.densities.symmetries import Reflection
from mflow_sbi.errors import ConfigurationError, MissingReference
from mflow_sbi.estimating import EstimatorOptions, told_jointly
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter, SelectionReport
from mflow_sbi.inference import CachedLikelihood
from mflow_sbi.interfaces import CondensingSurrogate, EncodedLikelihood, ManifoldSurrogate
from mflow_sbi.recipes import RECIPES, TrainingResult, load_surrogate, train
from mflow_sbi.runs import compare_runs, evaluate_run, train_run
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.ratio import JointRatio, RatioEstimator
from mflow_sbi.training import FitSettings, TrainingBatch
from mflow_sbi.training.classifier_objectives import AlicesLoss, BinaryCrossEntropy

from .toys import CROSS_SECTION, EXPONENTS, components, exact_log_ratio, monomials, toy_events

DATA = Path(__file__).parents[2] / "data"
SMALL = {"hidden": 32, "layers": 2}
TRAIN, TEST = toy_events(8000, 1), toy_events(3000, 2)
THETA, TEST_THETA = TRAIN.require_theta(), TEST.require_theta()


def _train(recipe: str, events: EventSample = TRAIN, epochs: int = 5) -> TrainingResult:
    quick = {"epochs": epochs, "batch_size": 100, "learning_rate": 1e-2}
    schedule = RECIPES[recipe].schedule.with_phases(ratio=quick)
    return train(events, recipe, options=SMALL, schedule=schedule, settings=FitSettings(seed=2))


LOST = {"nre": 0.08, "alices": 0.02}  # nats per event, of 0.24


@pytest.fixture(scope="module", params=LOST)
def trained(request: pytest.FixtureRequest) -> tuple[str, TrainingResult]:
    torch.set_num_threads(1)
    return request.param, _train(request.param)


def test_learns_the_ratio_to_all_events(trained):
    recipe, result = trained
    exact = exact_log_ratio(TEST.x, TEST_THETA, THETA)
    lost = exact - result.surrogate.log_likelihood(TEST.x, TEST_THETA)
    assert exact.mean() > 0.2
    assert lost.mean() < LOST[recipe]
    assert {record.phase for record in result.history} == {"ratio"}


def test_inference_sees_a_likelihood_and_nothing_else(trained):
    surrogate: TrainedSurrogate = trained[1].surrogate
    module: object = surrogate.surrogate
    assert isinstance(trained[1].surrogate, EncodedLikelihood)
    assert isinstance(module, CondensingSurrogate)
    assert not isinstance(module, ManifoldSurrogate)
    x, points = TEST.x[:15], THETA[:30]
    cached, slope = CachedLikelihood(surrogate, x).value_and_gradient(points)
    direct = np.array([surrogate.log_likelihood(x, point).sum() for point in points])
    assert np.abs(cached - direct).max() < 1e-4
    moved = CachedLikelihood(surrogate, x)(points + [[0.01, 0.0]])
    assert np.abs((moved - cached) / 0.01 - slope[:, 0]).max() < 0.05 * np.abs(slope).max()


def test_save_and_load_give_the_same_numbers(trained, tmp_path: Path):
    surrogate = trained[1].surrogate
    surrogate.save(tmp_path)
    here, there = (
        s.log_likelihood(TEST.x[:50], [0.3, 0.1]) for s in (surrogate, load_surrogate(tmp_path))
    )
    assert np.array_equal(here, there)
    assert load_surrogate(tmp_path).record.recipe == trained[0]


def test_what_needs_a_density_is_refused(trained):
    surrogate = trained[1].surrogate
    calls = {
        "log_prob": lambda: surrogate.log_prob(TEST.x[:2], [0.0, 0.0]),
        "samples": lambda: surrogate.sample([[0.0, 0.0]], seed=1),
        "latents": lambda: surrogate.project(TEST.x[:2]),
    }
    for what, call in calls.items():
        with pytest.raises(ConfigurationError, match=f"{what}.*: a ratio estimator knows"):
            call()


def test_the_optimum_is_the_ratio_to_the_density_of_all_events():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(20_000, 1))
    metadata = EventMetadata("toy", "t", "flat", (Parameter("mu"),), (Observable("x"),))
    events = EventSample(x=theta + rng.normal(size=theta.shape), theta=theta, metadata=metadata)
    surrogate = _train("nre", events, 6).surrogate
    x, at = rng.uniform(-1.5, 1.5, size=(2, 500, 1))
    # x ~ N(theta, 1), theta ~ N(0, 1): p(x) = N(0, 2)
    exact = 0.25 * x[:, 0] ** 2 + 0.5 * np.log(2) - 0.5 * (x - at)[:, 0] ** 2
    off = surrogate.log_likelihood(x, at) - exact
    assert np.abs(off).mean() < 0.06  # no constant, no function of x left open
    assert exact.std() > 0.5


def test_noisy_joint_labels_leave_the_optimum_in_place():
    # x_1 is not observed: joint ratios scatter around that of x_0 alone
    metadata = replace(TRAIN.metadata, observables=TRAIN.metadata.observables[:1])
    seen = replace(TRAIN, x=TRAIN.x[:, :1], metadata=metadata)
    surrogate = _train("alices", seen).surrogate
    nodes, heights = np.polynomial.hermite_e.hermegauss(8)

    def marginal(x: np.ndarray) -> np.ndarray:
        pieces = [
            h * components(np.stack([x, 0 * x + n], axis=1))
            for n, h in zip(nodes, heights, strict=True)
        ]
        return np.sum(pieces, axis=0)

    def densities(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        w = monomials(theta)
        return marginal(x) @ w.T / (w @ CROSS_SECTION)

    x = TEST.x[:, 0]
    exact = np.log(np.diagonal(densities(x, TEST_THETA)))
    exact = exact - np.log(densities(x, THETA).mean(axis=1))
    off = surrogate.log_likelihood(x[:, None], TEST_THETA) - exact
    joint = exact_log_ratio(TEST.x, TEST_THETA, THETA)
    assert np.abs(off).mean() < 0.06
    assert np.abs(joint - exact).mean() > 0.2  # the labels are noisy


def _network(order: int = 2) -> tuple[PairNetwork, SymmetryGroup]:
    reflections = [Reflection(np.array([1, -1, 1, -1.0]), np.array([1, -1.0]))] * (order > 1)
    group = SymmetryGroup.generated_by(reflections, 4, 2)
    network = PairNetwork(PairShape(4, 2, group.order, 16, 2, 1), seed=3).double()
    theta = np.random.default_rng(1).normal(size=(400, 2)) * [0.7, 1.5] + [0.2, -0.4]
    return network.fill(theta, group), group


def test_pairs_broadcast_and_are_symmetric():
    network, group = _network()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(7, 4, generator=generator).double()
    theta = torch.randn(5, 2, generator=generator).double()
    encoded = network.encode(features)
    table = network.log_ratio(encoded, theta[:, None])
    assert table.shape == (5, 7)
    rows = network.log_ratio(encoded[:5], theta)
    torch.testing.assert_close(rows, table.diagonal())
    each = network.log_ratio(encoded, theta[:, None].expand(5, 7, 2))
    torch.testing.assert_close(each, table)
    signs = group.feature_signs[1], group.parameter_signs[1]
    mean, std = network.images.mean, network.images.std
    assert mean.abs().min() > 0.1  # signs are those of physical, not of standardised, parameters
    turned = ((theta * std + mean) * signs[1] - mean) / std
    there = network.log_ratio(network.encode(features * signs[0]), turned[:, None])
    torch.testing.assert_close(there, table)
    in_turn = network.log_ratio_in_turn(network.encode_in_turn(features), theta.expand(7, 5, 2))
    again = network.log_ratio_in_turn(
        network.encode_in_turn(features.roll(1, 0)), theta.expand(7, 5, 2)
    ).roll(-1, 0)
    torch.testing.assert_close((0.5 * (in_turn + again)).T[:, :6], table[:, :6])


def _batch() -> tuple[RatioEstimator, TrainingBatch]:
    network, _ = _network(order=1)
    joint = JointRatio(EXPONENTS, CROSS_SECTION, np.zeros(2), np.ones(2))
    surrogate = RatioEstimator(2, torch.nn.Identity(), network, joint)  # pyright: ignore[reportArgumentType]
    some = TRAIN.take(np.arange(60))
    score, c = told_jointly(some, EstimatorOptions(), np.ones(2))
    assert score is not None
    assert c is not None
    theta = torch.from_numpy(some.require_theta())
    resting = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).double()
    return surrogate, TrainingBatch(theta, theta, resting, score.double(), c.double())


def test_joint_labels_and_scores_are_those_of_the_events():
    surrogate, batch = _batch()
    some = TRAIN.take(np.arange(60))
    assert surrogate.joint is not None
    ratio = (batch.require_components() * surrogate.joint.weights(batch.theta)).sum(dim=1)
    exact = exact_log_ratio(some.x, some.require_theta(), some.require_theta())
    assert np.allclose(ratio.log().numpy(), exact, atol=1e-5)
    assert np.allclose(batch.require_score().numpy(), some.require_score(), atol=1e-5)


def test_the_losses_are_their_definitions():
    surrogate, batch = _batch()
    network = surrogate.ratio
    own = batch.theta.detach().requires_grad_()
    f = network.log_ratio(network.encode(batch.require_resting()), own)
    (slope,) = torch.autograd.grad(f.sum(), own)
    other = batch.theta.roll(-1, 0)
    g = network.log_ratio(network.encode(batch.require_resting()), other)
    hard = -0.5 * (torch.log(f.sigmoid()) + torch.log(1 - g.sigmoid())).mean()
    torch.testing.assert_close(BinaryCrossEntropy(2)(surrogate, batch), hard)
    assert surrogate.joint is not None
    c, soft = batch.require_components(), torch.zeros(())
    for value, theta in ((f, batch.theta), (g, other)):
        r = (c * surrogate.joint.weights(theta)).sum(dim=1)
        s, guess = r / (1 + r), value.sigmoid()
        soft = soft - 0.5 * (s * guess.log() + (1 - s) * (1 - guess).log()).mean()
    scores = (slope - batch.require_score()).square().mean()
    torch.testing.assert_close(AlicesLoss(2, 0.7)(surrogate, batch), soft + 0.7 * scores)
    torch.testing.assert_close(AlicesLoss(2, 0.0)(surrogate, batch), soft)


SELECTED = SelectionReport(8000, 8000, {}, ("x0 > 0",))
POOR = SelectionReport(9000, 8000, {"fewer than 2 jets": 1000})


@pytest.mark.parametrize(
    ("events", "options", "error", "message"),
    [
        (replace(TRAIN, components=None), {}, MissingReference, "components in the file.*'nre'"),
        (replace(TRAIN, report=SELECTED), {}, ConfigurationError, "after a selection .x0 > 0"),
        (replace(TRAIN, report=POOR), {}, ConfigurationError, "selection .not fewer than 2 jets"),
        (TRAIN, {"head_layers": 0}, ConfigurationError, "head_layers: expected at least 1"),
        (TRAIN, {"odd_parameters": ["t1"]}, ConfigurationError, "reflection"),
        (TRAIN, {"density": "flow"}, ConfigurationError, "unknown option 'density'"),
    ],
)
def test_impossible_trainings_are_refused(events, options, error, message):
    with pytest.raises(error, match=message):
        train(events, "alices", options=options)


RUN = """
name: {name}
events: {events}
max_events: 1000
recipe: {name}
options: {{hidden: 16}}
phases: {{ratio: {{epochs: 1, batch_size: 250}}}}
"""


def test_evaluate_and_compare_say_what_is_lacking(tmp_path: Path):
    folders = [tmp_path / name for name in LOST]
    for folder in folders:
        config = tmp_path / f"{folder.name}.yaml"
        config.write_text(RUN.format(name=folder.name, events=DATA / "wbf_tuned_train_small.root"))
        train_run(read_config(config), folder)
    observed = str(DATA / "wbf_tuned_observed_theta_0.5_0.root")
    metrics = evaluate_run(folders[0], str(DATA / "wbf_tuned_train_small.root"))
    stored = json.loads((folders[0] / "metrics.json").read_text())
    assert stored["lacks"] == metrics["lacks"]
    assert metrics["log_prob_mean"] is metrics["reconstruction_error"] is None
    assert "no density" in metrics["lacks"]
    assert metrics["ratio"]["reliability"]["calibration_error"] < 0.2
    comparison = compare_runs(folders, observed, tmp_path / "table")
    row = comparison.table.row("NRE")
    assert row.surface.closure is None
    assert 0 < (row.posterior.total_variation or 0) < 1
    for title in ("NRE", "ALICES"):
        assert f"{title}: a ratio estimator knows" in comparison.table.caption
