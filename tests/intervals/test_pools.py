"""Toys and Asimov data from a pool of events: moments, likelihoods, luminosity."""

from dataclasses import replace

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError, IntervalError, MissingReference, ShapeError
from mflow_sbi.events import read_events
from mflow_sbi.inference import MorphingLikelihood
from mflow_sbi.inference.cross_section import CrossSection
from mflow_sbi.inference.mixture import Component
from mflow_sbi.inference.observation import ExtendedLikelihood, ShapeLikelihood
from mflow_sbi.inference.rates import RateModel
from mflow_sbi.interfaces import DifferentiableLikelihood
from mflow_sbi.intervals import (
    DifferentiableSets,
    EventPool,
    MorphingSets,
    hessian_information,
    maximise,
    score_information,
)
from mflow_sbi.morphing import total_cross_section

from .toys import POOL

THETAS = [(0.0, 0.0), (0.5, 0.0), (-1.0, -1.0)]
SOME = np.random.default_rng(7).normal(size=(9, 2))


def _sets(pool: EventPool, exposure: float | None = None) -> MorphingSets:
    """Four sets of 5, 0, 20 and 1 events."""
    components = pool.sample.require_components()[:26]
    return MorphingSets(
        pool.parameter_names, pool.basis, components, [5, 0, 20, 1], pool.cross_section, exposure
    )


def _exact(pool: EventPool, events: slice) -> MorphingLikelihood:
    components = pool.sample.require_components()[events]
    return MorphingLikelihood(pool.parameter_names, pool.basis, components, pool.cross_section)


def _rates(pool: EventPool, luminosity: float) -> RateModel:
    return RateModel(CrossSection.from_metadata(pool.sample.metadata), luminosity)


def test_sets_are_the_sums_over_their_events(pool):
    sets = _sets(pool)
    assert isinstance(sets, DifferentiableSets)
    for s, events in ((0, slice(0, 5)), (2, slice(5, 25)), (3, slice(25, 26))):
        alone = _exact(pool, events)
        np.testing.assert_allclose(sets(SOME)[:, s], alone(SOME), rtol=1e-12)
        own = np.broadcast_to(SOME[:, None], (9, 4, 2))
        values, slopes = sets.slopes_at_own_points(own)
        expected = alone.value_and_gradient(SOME)
        np.testing.assert_allclose(values[:, s], expected[0], rtol=1e-12)
        np.testing.assert_allclose(slopes[:, s], expected[1], rtol=1e-9, atol=1e-9)
        one = sets.likelihood_of(s)
        assert isinstance(one, DifferentiableLikelihood)
        np.testing.assert_allclose(one.value_and_gradient(SOME)[1], expected[1], rtol=1e-9)
    assert (sets(SOME)[:, 1] == 0).all()


def test_own_points_are_each_set_s_own(pool):
    sets = _sets(pool, exposure=30.0)
    own = np.random.default_rng(3).normal(size=(7, 4, 2))
    values, slopes = sets.slopes_at_own_points(own)
    h = 1e-6
    for s in range(4):
        np.testing.assert_allclose(values[:, s], sets(own[:, s])[:, s], rtol=1e-12)
        for k in range(2):
            step = h * np.eye(2)[k]
            rise = sets(own[:, s] + step)[:, s] - sets(own[:, s] - step)[:, s]
            np.testing.assert_allclose(slopes[:, s, k], rise / (2 * h), rtol=1e-5, atol=1e-4)


def test_with_exposure_it_is_the_extended_likelihood(pool):
    luminosity = 0.02
    sets = _sets(pool, exposure=1000 * luminosity)
    shape, rate = _exact(pool, slice(5, 25)), _rates(pool, luminosity)
    extended = ExtendedLikelihood([Component("signal", shape, rate)])
    gap = sets(SOME)[:, 2] - extended(SOME)
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)
    np.testing.assert_allclose(
        sets.likelihood_of(2).value_and_gradient(SOME)[1],
        extended.value_and_gradient(SOME)[1],
        rtol=1e-9,
    )
    empty = sets(SOME)[:, 1]
    np.testing.assert_allclose(empty, -rate(SOME), rtol=1e-12)


def test_an_event_without_density_has_no_likelihood_and_no_slope(pool):
    components = np.zeros((2, 6))
    sets = MorphingSets(pool.parameter_names, pool.basis, components, [1, 1], pool.cross_section)
    values, slopes = sets.slopes_at_own_points(np.zeros((1, 2, 2)))
    assert (values == -np.inf).all()
    assert (slopes == 0).all()


@pytest.mark.parametrize("theta", THETAS)
def test_weights_have_the_moments_of_infinitely_many_events(pool, theta):
    u = pool.weights(theta)
    assert (u > 0).all()
    assert u.sum() == pytest.approx(1)
    w = pool.basis.weights(np.array([theta]))[0]
    components = pool.sample.require_components()
    moments = u @ (components / (components @ w)[:, None])
    sigma = total_cross_section(pool.basis, pool.cross_section, np.array([theta]))[0]
    np.testing.assert_allclose(moments, pool.cross_section / sigma, rtol=1e-8, atol=1e-8)
    assert 2000 < pool.effective_events(theta) < len(pool)


@pytest.mark.parametrize("theta", THETAS)
def test_asimov_data_have_their_maximum_and_information_at_theta(pool, theta):
    shape = pool.asimov(theta, n_events=40.0)
    assert np.abs(shape.value_and_gradient(np.array([theta]))[1]).max() < 1e-8
    fit = maximise(shape, np.array(theta) + 0.05)
    np.testing.assert_allclose(fit.values, theta, atol=0.01 * fit.std.min())
    hessian = hessian_information(shape, theta).matrix
    scores = score_information(
        pool.parameter_names,
        pool.scores(theta),
        np.random.default_rng(1),
        weights=pool.weights(theta),
    )
    np.testing.assert_allclose(40 * scores.matrix, hessian, rtol=1e-5, atol=1e-5 * hessian.max())


def test_asimov_data_serve_any_likelihood_with_weights(pool):
    theta, luminosity = (0.5, 0.0), 0.02
    mean = pool.expected_events(theta, luminosity)
    assert mean == pytest.approx(_rates(pool, luminosity)(np.array([theta]))[0])
    weights = pool.asimov_weights(theta, luminosity=luminosity)
    assert weights.sum() == pytest.approx(mean)
    component = Component("signal", _exact(pool, slice(None)), _rates(pool, luminosity))
    pairs = (
        (pool.asimov(theta, luminosity=luminosity), ExtendedLikelihood([component], weights)),
        (pool.asimov(theta, n_events=mean), ShapeLikelihood([component], weights)),
    )
    for ours, theirs in pairs:
        gap = ours(SOME) - theirs(SOME)
        np.testing.assert_allclose(gap, gap[0], atol=1e-7)


def test_toys_are_draws_from_theta(pool):
    theta, rng = (-1.0, -1.0), np.random.default_rng(5)
    events, sizes = pool.draw(theta, 400, rng, n_events=20)
    assert (sizes == 20).all()
    scores = pool.scores(theta)[events]
    error = scores.std(axis=0) / np.sqrt(len(scores))
    assert (np.abs(scores.mean(axis=0)) < 4 * error).all()
    luminosity = 20 / pool.expected_events(theta, 1.0)
    _, counts = pool.draw(theta, 4000, rng, luminosity=luminosity)
    assert counts.mean() == pytest.approx(20, abs=4 * np.sqrt(20 / 4000))
    assert counts.var() == pytest.approx(20, rel=0.1)


def test_toys_repeat_with_their_seed(pool):
    first, second = (
        pool.simulator(n_events=20)(np.zeros(2), 5, np.random.default_rng(seed))(SOME)
        for seed in (4, 4)
    )
    np.testing.assert_array_equal(first, second)


def test_a_pool_at_one_theta_is_one_too(pool):
    events, _ = pool.draw((0.5, 0), 1, np.random.default_rng(1), n_events=500)
    sample = pool.sample.take(events)
    there = EventPool(replace(sample, theta=np.tile([0.5, 0.0], (500, 1))))
    assert there.effective_events((0.5, 0)) > 0.9 * 500
    assert there.effective_events((0, 0)) < 0.8 * 500


def test_efficiency_scales_rates_alone(pool):
    half = EventPool(pool.sample, efficiency=0.5)
    assert half.expected_events((0, 0), 2.0) == pytest.approx(pool.expected_events((0, 0), 1.0))
    np.testing.assert_allclose(half.weights((0.5, 0)), pool.weights((0.5, 0)))


def _of(pool: EventPool, **changes) -> MorphingSets:
    given = {
        "parameter_names": pool.parameter_names,
        "basis": pool.basis,
        "components": np.ones((2, 6)),
        "sizes": [2],
        "cross_section": pool.cross_section,
    }
    return MorphingSets(**(given | changes))


ERRORS = {
    "sizes": (lambda pool: _of(pool, sizes=[3]), ShapeError, "sets of 3 events"),
    "weights": (lambda pool: _of(pool, weights=-np.ones(2)), EventDataError, "weights >= 0"),
    "NaN": (lambda pool: _of(pool, components=np.full((2, 6), np.nan)), EventDataError, "finite"),
    "exposure": (lambda pool: _of(pool, exposure=0.0), EventDataError, "positive"),
    "set": (lambda pool: _of(pool).likelihood_of(1), ShapeError, "from 0 to 0"),
    "neither": (
        lambda pool: pool.draw((0, 0), 1, np.random.default_rng(1)),
        IntervalError,
        "one of them",
    ),
    "both": (lambda pool: pool.asimov((0, 0), n_events=1, luminosity=1), IntervalError, "or"),
    "small pool": (
        lambda pool: pool.draw((0, 0), 1, np.random.default_rng(1), n_events=2000),
        IntervalError,
        "simulate more",
    ),
    "selected": (
        lambda pool: EventPool(read_events(POOL, selection="a[0].pt > 100")),
        MissingReference,
        "a selection",
    ),
    "no theta": (
        lambda pool: EventPool(replace(pool.sample, theta=None)),
        MissingReference,
        "carry",
    ),
    "weighted": (
        lambda pool: EventPool(replace(pool.sample, weight=np.linspace(1, 2, len(pool)))),
        EventDataError,
        "unweighted",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(pool, call, error, words):
    with pytest.raises(error, match=words):
        call(pool)
