"""Densities learn a theory whose answer is known, from each kind of truth, and are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.densities import MorphingRatio
from mflow_sbi.errors import ConfigurationError, EventDataError, MissingReference
from mflow_sbi.evaluation import ratio_quality
from mflow_sbi.events import EventSample
from mflow_sbi.inference import CachedLikelihood
from mflow_sbi.recipes import RECIPES, TrainingResult, load_surrogate, train
from mflow_sbi.surrogates import TiltedFlow
from mflow_sbi.training import FitSettings

from .toys import CROSS_SECTION, exact_log_ratio, metadata, toy_events

FLOW = {"layers": 2, "hidden": 16, "bins": 5}
TRAIN, TEST = toy_events(8000, 1), toy_events(3000, 2)
THETA, TEST_THETA = TRAIN.require_theta(), TEST.require_theta()


def _train(events: EventSample = TRAIN, epochs: int = 6, **density) -> TrainingResult:
    options = {"reference": FLOW, "density": {"hidden": 32, "layers": 2, **density}}
    schedule = RECIPES["af"].schedule.with_phases(
        reference={"epochs": 3}, ratio={"epochs": epochs, "batch_size": 100}
    )
    return train(events, "af", options=options, schedule=schedule, settings=FitSettings(seed=2))


CASES = {  # density, inputs -> largest information lost per event, of 0.24 nats
    ("morphing", "samples"): 0.01,
    ("morphing", "score"): 0.005,
    ("morphing", "components"): 0.003,
    ("residual", "samples"): 0.05,
}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def trained(request: pytest.FixtureRequest) -> tuple[tuple[str, str], TrainingResult]:
    torch.set_num_threads(1)
    kind, inputs = request.param
    return request.param, _train(kind=kind, inputs=inputs)


def test_learns_the_ratio(trained):
    case, result = trained
    exact = exact_log_ratio(TEST.x, TEST_THETA, THETA)
    lost = float((exact - result.surrogate.log_likelihood(TEST.x, TEST_THETA)).mean())
    assert exact.mean() > 0.2
    assert lost < CASES[case]
    phases = {record.phase for record in result.history}
    assert phases == {"reference", "ratio"}


def test_save_and_load_give_the_same_numbers(trained, tmp_path: Path):
    surrogate = trained[1].surrogate
    surrogate.save(tmp_path)
    loaded = load_surrogate(tmp_path)
    here, there = (s.log_prob(TEST.x[:50], TEST_THETA[:50]) for s in (surrogate, loaded))
    assert np.array_equal(here, there)


def test_cached_posterior_is_the_direct_one(trained):
    surrogate = trained[1].surrogate
    x, points = TEST.x[:15], THETA[:30]
    cached = CachedLikelihood(surrogate, x)(points)
    direct = np.array([surrogate.log_likelihood(x, point).sum() for point in points])
    assert np.abs((cached - cached[0]) - (direct - direct[0])).max() < 1e-4
    assert surrogate.encode(x).shape[1] == (6 if trained[0][0] == "morphing" else 33)


def test_quality_is_reported(trained):
    (kind, _), result = trained
    quality = ratio_quality(result.surrogate, TEST.x, TEST_THETA, 1, points=[(0.0, 0.0)])
    assert quality["cover"][0]["theta"] == (0.0, 0.0)
    assert quality["normalisation_error_mean"] < (0.1 if kind == "morphing" else 0.25)
    assert 0.2 < quality["effective_share_least"] <= 1
    assert quality["reliability"]["calibration_error"] < 0.05


def test_samples_follow_theta(trained):
    (kind, _), result = trained
    n = 2000 if kind == "morphing" else 200
    x = result.surrogate.sample(np.tile([[2.0, 0.0]], (n, 1)), seed=1)
    # sigma p = N(x) [(1 + 2 x_0)^2 + 1]: E x_0 = 4 / 6
    assert abs(x[:, 0].mean() - 4 / 6) < 0.05 + 4 / n**0.5


def test_a_learned_rate_needs_no_cross_section():
    result = _train(kind="morphing", inputs="components", learned_rate=True)
    tilted = result.surrogate.surrogate
    assert isinstance(tilted, TiltedFlow)
    ratio = tilted.ratio
    assert isinstance(ratio, MorphingRatio)
    rate = (ratio.rates()[0] / ratio.theory.unit).detach().numpy()
    exact = CROSS_SECTION
    assert np.abs(rate / rate[0] - exact / exact[0]).max() < 0.15
    lost = exact_log_ratio(TEST.x, TEST_THETA, THETA)
    lost = lost - result.surrogate.log_likelihood(TEST.x, TEST_THETA)
    assert lost.mean() < 0.005


def test_training_repeats_bit_for_bit():
    first, second = (_train(kind="residual", inputs="score", epochs=1) for _ in range(2))
    values = [r.surrogate.log_prob(TEST.x[:20], TEST_THETA[:20]) for r in (first, second)]
    assert np.array_equal(values[0], values[1])


@pytest.mark.parametrize(
    ("density", "events", "error", "message"),
    [
        (
            {"kind": "morphing"},
            EventSample(x=TRAIN.x, theta=THETA, metadata=metadata(with_morphing=False)),
            ConfigurationError,
            "needs the monomials and the cross section.*density: residual",
        ),
        (
            {"kind": "morphing", "inputs": "score"},
            EventSample(x=TRAIN.x, theta=THETA, metadata=metadata()),
            MissingReference,
            "score",
        ),
        (
            {"kind": "morphing"},
            replace(TRAIN, components=np.r_[[[0.0] * 6], TRAIN.require_components()[1:]]),
            EventDataError,
            "1 of 8000 events",
        ),
        ({"kind": "residual", "inputs": "components"}, TRAIN, ConfigurationError, "inputs: score"),
        ({"kind": "morphing", "inputs": "sample"}, TRAIN, ConfigurationError, "expected one of"),
        ({"kind": "morphin"}, TRAIN, ConfigurationError, "expected one of .*'morphing'"),
        ({"kind": "morphing", "exchange": True}, TRAIN, ConfigurationError, "four-momenta"),
        (
            {"kind": "morphing", "reflection": True, "odd_parameters": ["t2"]},
            TRAIN,
            ConfigurationError,
            "unknown .*t2",
        ),
        ({"kind": "morphing", "odd_parameters": ["t1"]}, TRAIN, ConfigurationError, "reflection"),
        ({"kind": "morphing", "objects": ["a", "b"]}, TRAIN, ConfigurationError, "e_a"),
    ],
)
def test_impossible_densities_are_refused(density, events, error, message):
    with pytest.raises(error, match=message):
        train(events, "af", options={"density": density})
