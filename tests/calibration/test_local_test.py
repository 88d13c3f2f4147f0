"""L-C2ST: passes exact posteriors as often as claimed, and says at which events others fail."""

import re

import numpy as np
import pytest

from mflow_sbi.calibration import LocalTest, fit_local_test
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

from .toys import PRIOR, NormalSets, narrower, normal_sets, shifted

N_NULL = 39


def _fitted(wrong, seed: int, n_sets: int = 150) -> tuple[LocalTest, NormalSets]:
    sets, theta = normal_sets(n_sets, seed)
    rng = np.random.default_rng(1000 + seed)
    draws = wrong(sets).draws(1, rng)[:, 0]
    return fit_local_test(draws, theta, sets.means, N_NULL, rng), sets


def test_exact_posteriors_are_rejected_as_often_as_claimed() -> None:
    everywhere, here = [], []
    for seed in range(40):
        test, sets = _fitted(lambda sets: sets, seed)
        draws = sets.draws(100, np.random.default_rng(seed))[0]
        everywhere.append(test.everywhere().p_value)
        here.append(test.at(draws, sets.means[0]).p_value)
    assert (np.array(everywhere) <= 0.05).mean() <= 0.15  # 40 times 5%: at most 6 in 99.7%
    assert (np.array(here) <= 0.05).mean() <= 0.15
    assert 0.3 < np.mean(everywhere) < 0.7


WRONG = {
    "narrow": lambda sets: narrower(sets, 3.0),
    "wide": lambda sets: narrower(sets, 0.33),
    "shifted": lambda sets: shifted(sets, 0.4),
    "prior": lambda sets: NormalSets(sets.means, 1e-9 * sets.precision),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_posteriors_are_caught(wrong) -> None:
    caught = [_fitted(wrong, seed, 300)[0].everywhere().p_value <= 0.05 for seed in range(5)]
    assert all(caught)


def test_a_posterior_wrong_at_some_events_is_caught_there_only() -> None:
    """The second parameter is moved by half the first mean: right where that is zero."""
    sets, theta = normal_sets(600, 1)
    rng = np.random.default_rng(2)
    draws = sets.draws(1, rng)[:, 0]
    draws[:, 1] += 0.5 * sets.means[:, 0]
    test = fit_local_test(draws, theta, sets.means, N_NULL, rng)

    def p_value(at: float) -> float:
        mean = np.array([at, 0.0])
        moved = NormalSets(mean[None], sets.precision).draws(300, rng)[0]
        return test.at(moved + np.array([0.0, 0.5 * at]), mean).p_value

    assert p_value(-1.5) == p_value(1.5) == 1 / (N_NULL + 1)
    assert p_value(0.0) > 0.05


def test_the_classifier_is_the_density_ratio_of_normals() -> None:
    """With S -> infinity d / (1 - d) -> p / q, also far from where p = q."""
    sets, theta = normal_sets(20_000, 3)
    rng = np.random.default_rng(4)
    wide = narrower(sets, 0.5)
    test = fit_local_test(wide.draws(1, rng)[:, 0], theta, sets.means, 0, rng)
    mean = np.array([[0.5, -0.3]])
    points = PRIOR.sample(200, rng) * 0.4

    def log_density(sets: NormalSets) -> Array:
        means, covariance = NormalSets(mean, sets.precision).posteriors()
        away = points - means
        squares = np.einsum("si,ij,sj->s", away, np.linalg.inv(covariance), away)
        return -0.5 * squares - 0.5 * np.linalg.slogdet(covariance)[1]

    odds = log_density(sets) - log_density(wide)
    half = 1 / (1 + np.exp(-odds)) - 0.5
    result = test.at(points, mean[0])
    assert result.statistic == pytest.approx(float(np.square(half).mean()), rel=0.1)


RNG = np.random.default_rng(1)
X = RNG.normal(size=(100, 2))
ERRORS = {
    "shapes": (
        lambda: fit_local_test(X, X[:50], X, 3, RNG),
        ShapeError,
        "expected draws and truths (S, p) and summaries (S, k)",
    ),
    "too few": (
        lambda: fit_local_test(X[:20], X[:20], X[:20], 3, RNG),
        EventDataError,
        "at least 28 sets for a classifier of 14 products, got 20",
    ),
    "constant": (
        lambda: fit_local_test(X, X[::-1], np.ones((100, 1)), 3, RNG),
        EventDataError,
        "leave out constants",
    ),
    "other summary": (
        lambda: fit_local_test(X, X[::-1], X, 1, RNG).at(X, np.zeros(3)),
        ShapeError,
        "p + k = 4",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
