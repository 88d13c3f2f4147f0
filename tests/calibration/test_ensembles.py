"""Ensembles: identical members change nothing, posteriors average, gradients are right."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from mflow_sbi.calibration import (
    EnsembleLikelihood,
    EnsembleSets,
    ensemble_likelihood,
    ensemble_sets,
    ensemble_spread,
    mean_spread,
    posteriors_of_sets,
)
from mflow_sbi.errors import ConfigurationError, LikelihoodError, ShapeError
from mflow_sbi.inference import CachedLikelihood, Grid, grid_posterior
from mflow_sbi.interfaces import Array

from .test_sets import _Linear
from .toys import PRECISION, PRIOR, NormalLikelihood, NormalSets, normal_sets

THETA = np.random.default_rng(2).normal(size=(30, 2))
GRID = Grid.regular(PRIOR.box(), (120, 120))


def _normal(x: float, y: float, factor: float = 1.0) -> NormalLikelihood:
    return NormalLikelihood(np.array([x, y]), factor * PRECISION)


class _Lifted:
    """A likelihood with another constant."""

    def __init__(self, likelihood: NormalLikelihood, constant: float) -> None:
        self.likelihood = likelihood
        self.constant = constant
        self.parameter_names = likelihood.parameter_names
        self.n_events = likelihood.n_events

    def __call__(self, theta: Array) -> Array:
        return self.likelihood(theta) + self.constant


def test_identical_members_are_the_member() -> None:
    one = _normal(0.3, -0.2)
    for ensemble in (
        EnsembleLikelihood([one] * 5),
        EnsembleLikelihood([one] * 3, np.array([0.0, 5.0, -2.0])),
    ):
        np.testing.assert_allclose(ensemble(THETA), one(THETA), atol=1e-12)
        np.testing.assert_allclose(
            ensemble.value_and_gradient(THETA)[1], one.value_and_gradient(THETA)[1]
        )


def test_identical_sets_are_the_sets() -> None:
    sets, _ = normal_sets(6, 1)
    ensemble = EnsembleSets([sets] * 3)
    own = np.random.default_rng(3).normal(size=(4, 6, 2))
    np.testing.assert_allclose(ensemble(THETA), sets(THETA), atol=1e-12)
    np.testing.assert_allclose(ensemble.at_own_points(own), sets.at_own_points(own), atol=1e-12)
    np.testing.assert_allclose(ensemble.likelihood_of(2)(THETA), sets(THETA)[:, 2], atol=1e-12)


def test_equal_weights_are_the_mean_likelihood() -> None:
    members = [_normal(0.0, 0.0), _normal(1.0, 0.5, 2.0)]
    mean = np.mean([np.exp(member(THETA)) for member in members], axis=0)
    np.testing.assert_allclose(np.exp(EnsembleLikelihood(members)(THETA)), mean, rtol=1e-12)


def test_equal_evidence_averages_posteriors_whatever_the_constants() -> None:
    members = [_normal(0.0, 0.0), _normal(1.0, 0.5, 2.0), _normal(-0.5, 1.0)]
    lifted = [_Lifted(m, c) for m, c in zip(members, (0.0, 300.0, -70.0), strict=True)]
    ensemble = EnsembleLikelihood.of_equal_evidence(lifted, PRIOR)
    mixture = grid_posterior(ensemble, PRIOR, GRID)
    mean = np.mean([grid_posterior(member, PRIOR, GRID).mass for member in members], axis=0)
    assert 0.5 * np.abs(mixture.mass - mean).sum() < 1e-3


def test_spreads_of_sets_are_averaged() -> None:
    first, _ = normal_sets(4, 1)
    second = NormalSets(first.means + 0.7, PRECISION)
    members = [list(posteriors_of_sets(sets, PRIOR)) for sets in (first, second)]
    found = mean_spread(members)
    (means, covariance), (others, _) = first.posteriors(), second.posteriors()
    np.testing.assert_allclose(found.within, np.sqrt(np.diag(covariance)), rtol=0.01)
    between = np.sqrt(np.square(0.5 * (others - means)).mean(axis=0))
    np.testing.assert_allclose(found.between, between, rtol=0.02)
    np.testing.assert_allclose(found.mean, 0.5 * (means + others).mean(axis=0), atol=5e-3)


def test_an_ensemble_tells_ranges_events_and_evaluations_of_its_members() -> None:
    x = np.random.default_rng(1).normal(size=(5, 2))
    members = [CachedLikelihood(_Linear(), x), CachedLikelihood(_Linear(), x)]
    ensemble = EnsembleLikelihood(members)
    np.testing.assert_array_equal(ensemble.observed["x"], x)
    np.testing.assert_array_equal(ensemble.parameter_ranges, members[0].parameter_ranges)
    ensemble(np.full((3, 2), 1e6))
    ensemble.value_and_gradient(np.zeros((2, 2)))
    assert (ensemble.evaluations.points, ensemble.evaluations.outside_training_range) == (5, 3)
    assert EnsembleLikelihood([_normal(0, 0)]).observed == {}


def test_sets_of_equal_evidence_average_posteriors() -> None:
    first, _ = normal_sets(4, 1)
    second = NormalSets(first.means + 0.7, 2 * PRECISION)
    ensemble = EnsembleSets.of_equal_evidence(
        [posteriors_of_sets(sets, PRIOR) for sets in (first, second)]
    )
    for s in range(4):
        mixture = grid_posterior(ensemble.likelihood_of(s), PRIOR, GRID)
        parts = [grid_posterior(x.likelihood_of(s), PRIOR, GRID).mass for x in (first, second)]
        assert 0.5 * np.abs(mixture.mass - np.mean(parts, axis=0)).sum() < 1e-3


def test_gradients_are_slopes() -> None:
    ensemble = EnsembleLikelihood([_normal(0.0, 0.0), _normal(1.0, 0.5, 2.0)], np.array([0.0, 1]))
    values, slopes = ensemble.value_and_gradient(THETA)
    np.testing.assert_allclose(values, ensemble(THETA))
    step = 1e-6
    for k in range(2):
        by = step * np.eye(2)[k]
        numeric = (ensemble(THETA + by) - ensemble(THETA - by)) / (2 * step)
        np.testing.assert_allclose(slopes[:, k], numeric, rtol=1e-6, atol=1e-6)


class _Cliff(NormalLikelihood):
    """Vanishes for positive CWL2."""

    def __call__(self, theta: Array) -> Array:
        return np.where(theta[:, 0] > 0, -np.inf, super().__call__(theta))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        values, slopes = self(theta), -(theta - self.mean) @ self.precision
        return values, np.where(np.isneginf(values)[:, None], 0.0, slopes)


def test_a_member_may_vanish_and_all_may() -> None:
    cliff, whole = _Cliff(np.zeros(2), PRECISION), _normal(0.0, 0.0)
    right = np.array([[1.0, 0.0]])
    values, slopes = EnsembleLikelihood([cliff, whole]).value_and_gradient(right)
    np.testing.assert_allclose(values, whole(right) - np.log(2))
    np.testing.assert_allclose(slopes, whole.value_and_gradient(right)[1])
    values, slopes = EnsembleLikelihood([cliff, cliff]).value_and_gradient(right)
    assert np.isneginf(values).all()
    assert np.array_equal(slopes, np.zeros((1, 2)))


def test_the_spread_is_of_means_between_and_widths_within() -> None:
    members = [_normal(0.0, 0.0), _normal(0.6, 0.0), _normal(-0.6, 0.0)]
    posteriors = [grid_posterior(member, PRIOR, GRID) for member in members]
    spread = ensemble_spread(posteriors)
    covariance = np.linalg.inv(np.eye(2) + PRECISION)
    shift = 0.6 * (covariance @ PRECISION)[:, 0]
    np.testing.assert_allclose(spread.within, np.sqrt(np.diag(covariance)), rtol=1e-2)
    np.testing.assert_allclose(spread.between, np.abs(shift) * np.sqrt(2 / 3), rtol=1e-2)
    mixture = grid_posterior(EnsembleLikelihood.of_equal_evidence(members, PRIOR), PRIOR, GRID)
    np.testing.assert_allclose(spread.width, mixture.std, rtol=1e-2)
    assert [row[0] for row in spread.rows()] == ["CWL2", "CPWL2"]


def test_trained_surrogates_make_ensembles() -> None:
    x = np.random.default_rng(4).normal(0.3, 1.0, size=(12, 2))
    one = CachedLikelihood(_Linear(), x)
    ensemble = ensemble_likelihood([_Linear(), _Linear()], x, PRIOR)
    np.testing.assert_allclose(ensemble(THETA), one(THETA), atol=1e-9)
    assert ensemble.n_events == 12
    sets = ensemble_sets([_Linear(), _Linear()], [x, x[:5], x[:0]], PRIOR)
    np.testing.assert_allclose(sets(THETA)[:, 0], one(THETA), atol=1e-9)
    np.testing.assert_allclose(sets(THETA)[:, 2], 0, atol=1e-9)


class _Measured(_Linear):
    def __init__(self, measure: str) -> None:
        self.surrogate = SimpleNamespace(measure=measure)


def test_densities_of_one_measure_mix_with_ratios() -> None:
    x = np.ones((3, 2))
    ensemble_likelihood([_Measured("manifold"), _Measured("none")], x, PRIOR)


X = np.ones((3, 2))
ERRORS = {
    "none": (lambda: EnsembleLikelihood([]), ConfigurationError, "at least one member, got none"),
    "parameters": (
        lambda: EnsembleLikelihood(
            [_normal(0, 0), NormalLikelihood(np.zeros(2), PRECISION, ("a", "b"))]
        ),
        ShapeError,
        "members of the same parameters",
    ),
    "events": (
        lambda: EnsembleLikelihood(
            [_normal(0, 0), NormalLikelihood(np.zeros(2), PRECISION, n_events=2)]
        ),
        ShapeError,
        "members of the same numbers of events, got [1, 2]",
    ),
    "sets": (
        lambda: EnsembleSets([normal_sets(2, 1)[0], normal_sets(3, 1)[0]]),
        ShapeError,
        "members of the same numbers of sets, got [2, 3]",
    ),
    "weights": (
        lambda: EnsembleLikelihood([_normal(0, 0)], np.zeros(2)),
        ShapeError,
        "log_weights: expected shape (1,), got (2,)",
    ),
    "infinite weights": (
        lambda: EnsembleLikelihood([_normal(0, 0)], np.array([np.inf])),
        ConfigurationError,
        "log_weights: expected finite numbers",
    ),
    "no gradient": (
        lambda: EnsembleLikelihood([_Lifted(_normal(0, 0), 0.0)]).value_and_gradient(THETA),
        LikelihoodError,
        "member 0 of the ensemble has no gradient",
    ),
    "measures": (
        lambda: ensemble_likelihood([_Measured("manifold"), _Measured("ambient")], X, PRIOR),
        ConfigurationError,
        "expected densities of one measure, got ['ambient', 'manifold']",
    ),
    "one member": (
        lambda: ensemble_spread([grid_posterior(_normal(0, 0), PRIOR, GRID)]),
        ConfigurationError,
        "at least two members, got 1",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
