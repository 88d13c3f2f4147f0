"""Sets drawn from a pool are events at their own parameters."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mflow_sbi.calibration import (
    draw_counted_sets,
    draw_sets,
    draw_sets_at,
    group_counted_sets,
    group_sets,
)
from mflow_sbi.errors import EventDataError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.inference import CachedEventSets, exact_likelihood
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, score, total_cross_section

from .test_sets import _Linear
from .toys import NAMES, PRIOR


@dataclass(frozen=True)
class _At:
    """All draws of this prior are one point."""

    point: tuple[float, ...]
    parameter_names: tuple[str, ...] = NAMES

    def log_prob(self, theta: Array) -> Array:
        return np.zeros(len(theta))

    def sample(self, n: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        return np.tile(self.point, (n, 1))


def _expected(pool: EventSample, at_zero: float):
    morphing = pool.metadata.morphing
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    return lambda theta: at_zero * total_cross_section(basis, total, theta) / total[0]


@pytest.mark.parametrize("point", [(0.0, 0.0), (0.5, 0.0), (-1.0, 0.8)])
def test_the_mean_score_at_the_truth_vanishes(pool: EventSample, point) -> None:
    drawn = draw_sets(pool, _At(point), 1000, 20, np.random.default_rng(1))
    morphing, components = pool.metadata.morphing, pool.require_components()
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    slopes = score(basis, components[np.concatenate(drawn.members)], total, np.array([point]))
    error = slopes.std(axis=0) * np.sqrt(1 / len(slopes) + 1 / drawn.effective_events[0])
    assert np.abs(slopes.mean(axis=0) / error).max() < 4
    uncorrected = score(basis, components, total, np.array([point]))  # the pool is elsewhere
    pulls = uncorrected.mean(axis=0) / uncorrected.std(axis=0) * np.sqrt(len(pool))
    assert np.abs(pulls).max() > 5


def test_sets_at_given_thetas_are_those_of_a_prior_there(pool: EventSample) -> None:
    theta = np.tile([0.5, 0.0], (30, 1))
    drawn = draw_sets_at(pool, theta, np.full(30, 20), np.random.default_rng(1))
    rng = np.random.default_rng(1)
    same = draw_sets(pool, _At((0.5, 0.0)), 30, 20, rng)
    assert all(np.array_equal(a, b) for a, b in zip(drawn.members, same.members, strict=True))
    assert draw_sets_at(pool, theta[:2], [0, 3], rng).sizes.tolist() == [0, 3]


def test_sizes_thetas_and_likelihoods_belong_together(pool: EventSample) -> None:
    drawn = draw_sets(pool, PRIOR, 7, 20, np.random.default_rng(2))
    assert drawn.theta.shape == (7, 2)
    assert drawn.sizes.tolist() == [20] * 7
    assert np.array_equal(drawn.events[3], pool.x[drawn.members[3]])
    theta = np.random.default_rng(3).normal(size=(5, 2))
    alone = exact_likelihood(pool.take(drawn.members[3]))(theta)
    np.testing.assert_allclose(drawn.exact()(theta)[:, 3], alone)
    some = drawn.take([3, 5])
    assert np.array_equal(some.theta, drawn.theta[[3, 5]])
    np.testing.assert_allclose(some.exact()(theta), drawn.exact()(theta)[:, [3, 5]])


def test_counts_are_poisson_and_enter_the_likelihood(pool: EventSample) -> None:
    expected = _expected(pool, 10.0)
    drawn = draw_counted_sets(pool, _At((0.5, 0.0)), 400, expected, np.random.default_rng(4))
    mu = float(expected(np.array([[0.5, 0.0]]))[0])
    assert drawn.sizes.mean() == pytest.approx(mu, abs=4 * np.sqrt(mu / 400))
    assert drawn.sizes.var() == pytest.approx(mu, rel=0.3)
    theta = np.array([[0.0, 0.0], [0.3, -0.2]])
    shape = replace(drawn, expected=None).exact()(theta)
    means = expected(theta)[:, None]
    rate = drawn.sizes * np.log(means) - means
    np.testing.assert_allclose(drawn.exact()(theta) - shape, rate)


def test_the_learned_likelihood_gets_the_events(pool: EventSample) -> None:
    two = replace(pool, x=pool.x[:, :2], metadata=pool.metadata.with_observables(()))
    drawn = draw_sets(two, PRIOR, 3, 5, np.random.default_rng(2))
    learned = drawn.learned(_Linear())
    assert isinstance(learned, CachedEventSets)
    theta = np.zeros((1, 2))
    np.testing.assert_allclose(learned(theta), CachedEventSets(_Linear(), drawn.events)(theta))


def test_a_seed_gives_the_same_sets(pool: EventSample) -> None:
    one, two = (draw_sets(pool, PRIOR, 5, 20, np.random.default_rng(9)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one.members, two.members, strict=True))


def _at_few_thetas(pool: EventSample) -> EventSample:
    thetas = PRIOR.sample(6, np.random.default_rng(7))
    return replace(pool, theta=thetas[np.random.default_rng(8).integers(6, size=len(pool))])


def test_groups_hold_events_of_one_theta_each_once(pool: EventSample) -> None:
    events = _at_few_thetas(pool)
    drawn = group_sets(events, 30, 5, np.random.default_rng(1))
    assert len(np.unique(drawn.theta, axis=0)) == 5
    for theta, rows in zip(drawn.theta, drawn.members, strict=True):
        assert len(set(rows.tolist())) == 30
        assert (events.require_theta()[rows] == theta).all()
    assert drawn.expected is None


def test_counted_groups_are_poisson(pool: EventSample) -> None:
    expected = _expected(pool, 50.0)
    drawn = group_counted_sets(_at_few_thetas(pool), expected, 6, np.random.default_rng(1))
    pulls = (drawn.sizes - expected(drawn.theta)) / np.sqrt(expected(drawn.theta))
    assert np.abs(pulls).max() < 4
    assert drawn.expected is expected


def _fixed(pool: EventSample) -> EventSample:
    return replace(pool, theta=np.zeros_like(pool.require_theta())).take(np.arange(200))


ERRORS = {
    "no components": (
        lambda pool, rng: draw_sets(replace(pool, components=None), PRIOR, 2, 5, rng),
        MissingReference,
        "do not carry the morphing components",
    ),
    "no theta": (
        lambda pool, rng: draw_sets(replace(pool, theta=None), PRIOR, 2, 5, rng),
        MissingReference,
        "do not carry the parameters",
    ),
    "weighted": (
        lambda pool, rng: draw_sets(
            replace(pool, weight=np.linspace(1, 2, len(pool))), PRIOR, 2, 5, rng
        ),
        EventDataError,
        "expected unweighted events",
    ),
    "poor pool": (
        lambda pool, rng: draw_sets(_fixed(pool), _At((4.0, 4.0)), 1, 150, rng),
        EventDataError,
        "the pool of 200 events is worth",
    ),
    "nothing asked": (
        lambda pool, rng: draw_sets(pool, PRIOR, 0, 5, rng),
        EventDataError,
        "at least one set of at least one event, got 0 of 5",
    ),
    "few thetas": (
        lambda pool, rng: group_sets(_at_few_thetas(pool), 5, 7, rng),
        EventDataError,
        "at least 7 different thetas, one per set, got 6",
    ),
    "few events": (
        lambda pool, rng: group_sets(_at_few_thetas(pool), 5000, 2, rng),
        EventDataError,
        "expected at least 5000 events at theta",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(pool: EventSample, call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call(pool, np.random.default_rng(1))
