"""Likelihoods of many sets at once are those of each set alone."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mflow_sbi.calibration import (
    LikelihoodOfSets,
    MorphingEventSets,
    RateSets,
    SeparateSets,
    TemperedSets,
    learned_sets,
)
from mflow_sbi.errors import EventDataError, LikelihoodError, MflowSbiError, ShapeError
from mflow_sbi.inference import CachedEventSets, MorphingLikelihood
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis

from .toys import NAMES, normal_sets

BASIS = MorphingBasis(np.array([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]))
CROSS_SECTION = np.array([1.0, 0.1, 0.0, 0.6, 0.0, 0.5])
THETA = np.random.default_rng(2).normal(size=(9, 2))
SIZES = (3, 0, 7, 1)


def _components() -> list[Array]:
    """Positive polynomials: products of amplitudes a + b . theta."""
    rng = np.random.default_rng(4)
    tables = []
    for size in SIZES:
        a, b = rng.normal(1, 0.3, size=(size, 1)), rng.normal(size=(size, 2))
        q = [a * a, 2 * a * b[:, :1], 2 * a * b[:, 1:], b[:, :1] ** 2]
        tables.append(np.hstack([*q, 2 * b[:, :1] * b[:, 1:], b[:, 1:] ** 2]))
    return tables


def _morphing() -> MorphingEventSets:
    return MorphingEventSets(NAMES, BASIS, _components(), CROSS_SECTION)


def _expected(theta: Array) -> Array:
    return 3.0 * BASIS.weights(theta) @ CROSS_SECTION


class _Linear:
    """u = x and u | theta ~ N(theta, 1)."""

    parameter_names = NAMES
    parameter_ranges = np.array([[-2.0, 2.0], [-2.0, 2.0]])

    def encode(self, x: Array) -> torch.Tensor:
        return torch.as_tensor(x)

    def latent_log_likelihood(self, u: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return -0.5 * (u - theta).square().sum(dim=-1)


def _learned() -> LikelihoodOfSets:
    rng = np.random.default_rng(3)
    return learned_sets(_Linear(), [rng.normal(size=(size, 2)) for size in SIZES])


MAKERS: dict[str, Callable[[], LikelihoodOfSets]] = {
    "morphing": _morphing,
    "learned": _learned,
    "morphing with rate": lambda: RateSets(_morphing(), SIZES, _expected),
    "learned with rate": lambda: RateSets(_learned(), SIZES, _expected),
    "separate": lambda: SeparateSets([_morphing().likelihood_of(s) for s in range(4)]),
    "tempered": lambda: TemperedSets(_morphing(), 2.5),
    "normal": lambda: normal_sets(4, 1)[0],
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_sets_together_equal_each_alone(make: Callable[[], LikelihoodOfSets]) -> None:
    sets = make()
    assert isinstance(sets, LikelihoodOfSets)
    alone = np.stack([sets.likelihood_of(s)(THETA) for s in range(sets.n_sets)], axis=1)
    np.testing.assert_allclose(sets(THETA), alone, rtol=1e-12, atol=1e-12)
    own = np.random.default_rng(5).normal(size=(9, sets.n_sets, 2))
    alone = np.stack([sets.likelihood_of(s)(own[:, s]) for s in range(sets.n_sets)], axis=1)
    np.testing.assert_allclose(sets.at_own_points(own), alone, rtol=1e-12, atol=1e-12)
    assert tuple(sets.parameter_names) == NAMES


def test_morphing_sets_are_the_exact_likelihood() -> None:
    expected = MorphingLikelihood(NAMES, BASIS, _components()[2], CROSS_SECTION)(THETA)
    np.testing.assert_allclose(_morphing()(THETA)[:, 2], expected, rtol=1e-12)


def test_a_rate_adds_the_poisson_probability() -> None:
    sets = RateSets(_morphing(), SIZES, _expected)
    mu = _expected(THETA)
    gain = sets(THETA) - _morphing()(THETA)
    for s, n in enumerate(SIZES):
        np.testing.assert_allclose(gain[:, s], n * np.log(mu) - mu, rtol=1e-12, atol=1e-12)


def test_an_empty_set_has_a_rate_and_no_shape() -> None:
    assert np.array_equal(_morphing()(THETA)[:, 1], np.zeros(9))
    assert np.array_equal(_learned()(THETA)[:, 1], np.zeros(9))
    rate = RateSets(_learned(), SIZES, _expected)
    np.testing.assert_allclose(rate(THETA)[:, 1], -_expected(THETA))
    assert rate.likelihood_of(1).n_events == 0


def test_sets_that_are_all_empty_say_nothing() -> None:
    sets = MorphingEventSets(NAMES, BASIS, [np.empty((0, 6))] * 2, CROSS_SECTION)
    assert np.array_equal(sets(THETA), np.zeros((9, 2)))


def test_nothing_expected_and_nothing_seen_is_certain() -> None:
    sets = RateSets(_morphing(), (3, 0, 7, 1), lambda theta: np.zeros(len(theta)))
    values = sets(THETA)
    assert np.array_equal(values[:, 1], np.zeros(9))
    assert np.isneginf(values[:, [0, 2, 3]]).all()


def test_full_sets_need_no_filling() -> None:
    assert isinstance(learned_sets(_Linear(), [np.ones((2, 2))]), CachedEventSets)


Case = tuple[Callable[[], object], type[MflowSbiError], str]
ERRORS: dict[str, Case] = {
    "no sets": (
        lambda: MorphingEventSets(NAMES, BASIS, [], CROSS_SECTION),
        EventDataError,
        "components: expected at least one set of events, got none",
    ),
    "components": (
        lambda: MorphingEventSets(NAMES, BASIS, [np.ones((2, 5))], CROSS_SECTION),
        ShapeError,
        "components: expected shape (N, 6)",
    ),
    "counts": (
        lambda: RateSets(_morphing(), (1, 2), _expected),
        ShapeError,
        "counts: expected one per set (4), got shape (2,)",
    ),
    "negative rate": (
        lambda: RateSets(_morphing(), SIZES, lambda theta: -np.ones(len(theta)))(THETA),
        LikelihoodError,
        "expected count: expected finite numbers >= 0, got -1.0 at theta",
    ),
    "own points": (
        lambda: _morphing().at_own_points(np.zeros((3, 2, 2))),
        ShapeError,
        "theta: expected shape (M, 4, 2), got (3, 2, 2)",
    ),
    "no such set": (
        lambda: _learned().likelihood_of(4),
        ShapeError,
        "expected a set from 0 to 3, got 4",
    ),
    "no likelihoods": (lambda: SeparateSets([]), EventDataError, "at least one set"),
    "other names": (
        lambda: SeparateSets(
            [
                _morphing().likelihood_of(0),
                MorphingLikelihood(("a", "b"), BASIS, _components()[0], CROSS_SECTION),
            ]
        ),
        ShapeError,
        "same parameters in one order",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call: Callable[[], object], error: type[MflowSbiError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
