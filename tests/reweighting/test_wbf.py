"""The WBF simulator's events, whose densities are known: benchmark weights and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mflow_sbi.errors import EventDataError
from mflow_sbi.events import EventMetadata, EventSample, Morphing, Observable, Parameter
from mflow_sbi.events import read_events as read
from mflow_sbi.morphing import (
    MorphingBasis,
    MorphingBenchmarks,
    joint_ratio,
    score,
    suggest_benchmarks,
    total_cross_section,
)
from mflow_sbi.reweighting import MorphingPool, resampled, reweighted, with_morphing
from simulators.wbf.constants import EXPONENTS, PARAMETERS
from simulators.wbf.event_model import fiducial_cross_section
from simulators.wbf.generator import SimulatedEvents, generate_events

WBF = Path(__file__).parents[2] / "data" / "wbf_tuned_train_small.root"
BASIS = MorphingBasis(np.array(EXPONENTS))
TOTAL = np.array(fiducial_cross_section("ud", "tuned"))
POINTS = suggest_benchmarks(BASIS, [(-1.5, 1.5)] * 2, 8, np.random.default_rng(1), [[0.0, 0.0]])
NEAR = np.array([[0.0, 0.0], [0.1, 0.0], [0.05, 0.05]])  # weights of the SM without long tails


def simulated(theta, n, seed):
    return generate_events(np.tile(theta, (n, 1)), np.random.default_rng(seed))


def as_sample(events: SimulatedEvents) -> EventSample:
    """Return pT of the Higgs, and of the jets m, delta phi."""
    j1, j2, a1, a2 = np.moveaxis(events.momenta, 1, 0)
    higgs, jets = a1 + a2, j1 + j2
    mass = np.sqrt(jets[:, 0] ** 2 - np.square(jets[:, 1:]).sum(axis=1))
    phi = np.arctan2(j1[:, 2], j1[:, 1]) - np.arctan2(j2[:, 2], j2[:, 1])
    x = np.stack([np.hypot(higgs[:, 1], higgs[:, 2]), mass, np.angle(np.exp(1j * phi))], axis=1)
    metadata = EventMetadata(
        process="wbf_h_aa",
        tree="t",
        layout="flat",
        parameters=tuple(map(Parameter, PARAMETERS)),
        observables=(Observable("pt_h"), Observable("m_jj"), Observable("dphi_jj")),
    )
    return EventSample(x, metadata, theta=events.theta)


def benchmark_weights(events, points):
    """Weights of events of sigma(theta_0) / N each, as a reweighting at benchmarks gives them."""
    density = (BASIS.weights(events.theta) * events.components).sum(axis=1)
    sigma = total_cross_section(BASIS, TOTAL, events.theta[:1])[0]
    return events.components @ BASIS.weights(points).T * (sigma / density / len(density))[:, None]


@pytest.fixture(scope="module")
def standard_model() -> SimulatedEvents:
    return simulated([0.0, 0.0], 16_000, 1)


@pytest.fixture(scope="module")
def pool(standard_model) -> EventSample:
    weights = benchmark_weights(standard_model, POINTS)
    sample, fit = with_morphing(
        as_sample(standard_model), MorphingBenchmarks(BASIS, POINTS), weights=weights
    )
    assert (fit.misfit or 0.0) < 1e-12
    return sample


@pytest.mark.parametrize("n_points", [6, 8])
def test_everything_comes_back_from_benchmark_weights(n_points):
    known = read(WBF).take(np.arange(500))
    points = suggest_benchmarks(BASIS, [(-1.5, 1.5)] * 2, n_points, np.random.default_rng(2))
    weights = known.require_components() @ BASIS.weights(points).T
    found, _ = with_morphing(known, MorphingBenchmarks(BASIS, points), weights=weights)
    components = found.require_components() / len(known)
    truth = known.require_components()
    np.testing.assert_allclose(components, truth, rtol=1e-9, atol=1e-12 * np.abs(truth).max())
    theta = known.require_theta()
    np.testing.assert_allclose(
        score(BASIS, components, TOTAL, theta), known.require_score(), rtol=1e-6, atol=1e-6
    )
    ratios = [
        joint_ratio(BASIS, c, TOTAL, theta, NEAR[:1]) for c in (found.require_components(), truth)
    ]
    np.testing.assert_allclose(*ratios, rtol=1e-9)


def test_cross_section_of_a_standard_model_sample_is_the_exact_one_within_its_error(
    standard_model, pool
):
    exact = total_cross_section(BASIS, TOTAL, NEAR)
    everything = MorphingPool.of(pool).estimate
    sigma, error = everything.cross_section(NEAR)
    assert sigma[0] == pytest.approx(exact[0], rel=1e-9)
    assert error[0] < 1e-6
    pulls = []
    for part in np.split(np.arange(len(pool)), 40):
        sigma, error = MorphingPool.of(pool.take(part)).estimate.cross_section(NEAR[1:])
        pulls.append((sigma - exact[1:]) / error)
    pulls = np.array(pulls)
    assert (np.abs(pulls.mean(axis=0)) < 4 / np.sqrt(40)).all()
    assert (np.abs(pulls.std(axis=0) - 1) < 0.35).all()


def test_the_record_carries_cross_sections_and_their_errors(pool):
    morphing = pool.metadata.morphing
    assert morphing is not None
    assert morphing.likelihood == "joint"
    pulls = (np.array(morphing.cross_section) - TOTAL)[1:] / morphing.cross_section_error[1:]
    assert (np.abs(pulls) < 4).all()
    assert EventMetadata.from_json(pool.metadata.to_json()) == pool.metadata


def test_resampled_events_are_those_of_the_simulator(pool):
    theta = np.array([-0.4, 0.3])
    events, report = resampled(pool, theta, 3000, np.random.default_rng(3))
    own = as_sample(simulated(theta, 3000, 4))
    standard = pool.take(np.arange(3000))
    for k in range(3):
        p_same = ks_2samp(events.x[:, k], own.x[:, k]).pvalue  # pyright: ignore
        assert p_same > 1e-3
    assert ks_2samp(standard.x[:, 0], own.x[:, 0]).pvalue < 1e-6  # pyright: ignore
    assert report.n_distinct > 2000
    assert report.least_effective == pytest.approx(report.n_effective)
    assert events.metadata.theta_sampling is not None
    assert events.metadata.theta_sampling.value == tuple(theta)


def test_expectations_at_another_theta(pool):
    theta = NEAR[2]
    events = reweighted(pool, theta)
    assert events.weight is not None
    sigma, _ = MorphingPool.of(pool).estimate.cross_section(theta[None])
    assert events.weight.sum() == pytest.approx(sigma[0])
    mean = events.weight @ events.require_score() / events.weight.sum()
    np.testing.assert_allclose(mean, 0, atol=1e-9)  # sigma and its slope are those of the pool
    morphing = pool.metadata.morphing
    assert morphing is not None
    total = np.array(morphing.cross_section)
    r = joint_ratio(BASIS, events.require_components(), total, NEAR[:1], theta[None])
    assert events.weight @ r / events.weight.sum() == pytest.approx(1, abs=1e-9)
    drawn, _ = resampled(pool, theta, 4000, np.random.default_rng(5))
    t = drawn.require_score()
    assert (np.abs(t.mean(axis=0)) < 4 * t.std(axis=0) / np.sqrt(4000)).all()


def test_score_where_events_were_generated(standard_model):
    sample = as_sample(standard_model)
    found, _ = with_morphing(
        replace(sample, theta=None),
        MorphingBenchmarks(BASIS, POINTS),
        weights=benchmark_weights(standard_model, POINTS),
        sampled_at=[0.0, 0.0],
    )
    exact = standard_model.score
    error = np.sqrt(MorphingPool.of(found).estimate.score_covariance(NEAR[:1])[0].diagonal())
    off = found.require_score() - exact  # that of the cross section, common to all events
    np.testing.assert_allclose(off, np.broadcast_to(off[0], off.shape), atol=1e-6)
    assert (np.abs(off[0]) < 4 * error).all()
    assert np.array_equal(found.require_theta(), np.zeros_like(exact))


def test_a_pool_of_the_standard_model_says_nothing_of_far_thetas(pool):
    few = pool.take(np.arange(1000))
    with pytest.raises(EventDataError, match=r"worth fewer than 100 at 100% of the thetas"):
        resampled(few, [1.5, -1.5], 100, np.random.default_rng(1))
    assert isinstance(pool.metadata.morphing, Morphing)
