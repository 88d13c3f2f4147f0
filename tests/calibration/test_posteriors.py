"""Batched posteriors are those of each set alone."""

import re

import numpy as np
import pytest

from mflow_sbi.calibration import GridSettings, SeparateSets, draw_sets, posteriors_of_sets
from mflow_sbi.calibration.interpolation import refined
from mflow_sbi.errors import ConfigurationError, SamplingError, ShapeError
from mflow_sbi.events import EventSample
from mflow_sbi.inference import BoxPrior, Grid, NormalPrior, common_grid, grid_posterior
from mflow_sbi.interfaces import Array

from .toys import NAMES, PRIOR, NormalLikelihood, NormalSets, normal_sets


def test_normal_posteriors_are_exact() -> None:
    sets, _ = normal_sets(40, 1)
    posteriors = posteriors_of_sets(sets, PRIOR)
    means, covariance = sets.posteriors()
    assert len(posteriors) == 40
    for posterior, mean in zip(posteriors, means, strict=True):
        assert posterior.is_resolved
        np.testing.assert_allclose(posterior.mean, mean, atol=1e-4)
        np.testing.assert_allclose(posterior.covariance, covariance, atol=2e-4)
        at_mean = posterior.log_prob_at(mean[None])[0]
        norm = -0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        assert at_mean == pytest.approx(norm, abs=1e-3)


def test_without_refinement_each_equals_the_grid_posterior_of_its_set() -> None:
    sets, _ = normal_sets(5, 2)
    settings = GridSettings(refinement=1)
    for s, posterior in enumerate(posteriors_of_sets(sets, PRIOR, settings)):
        alone = grid_posterior(sets.likelihood_of(s), PRIOR, posterior.grid)
        np.testing.assert_allclose(posterior.log_density, alone.log_density, atol=1e-10)
        assert posterior.log_evidence == pytest.approx(alone.log_evidence, abs=1e-10)
        theta = np.array([[0.1, 0.2]])
        np.testing.assert_allclose(posterior.log_prob_at(theta), alone.log_prob_at(theta))


def test_exact_posteriors_of_wbf_events_equal_fine_grids(pool: EventSample) -> None:
    drawn = draw_sets(pool, PRIOR, 12, 20, np.random.default_rng(1))
    sets = drawn.exact()
    for s, posterior in enumerate(posteriors_of_sets(sets, PRIOR)):
        likelihood = sets.likelihood_of(s)
        grid = common_grid([likelihood], PRIOR, 120)
        fine = grid_posterior(likelihood, PRIOR, grid)
        assert posterior.log_evidence == pytest.approx(fine.log_evidence, abs=0.03)
        np.testing.assert_allclose((posterior.mean - fine.mean) / fine.std, 0, atol=0.03)
        np.testing.assert_allclose(posterior.std / fine.std, 1, atol=0.03)
        assert posterior.border_mass < 1e-3


def test_narrow_posteriors_far_below_the_coarse_cells_are_found() -> None:
    correlated = 1e6 / (1 - 0.95**2) * np.array([[1.0, -0.95], [-0.95, 1.0]])
    means = np.random.default_rng(3).normal(size=(10, 2))
    for posterior, mean in zip(
        posteriors_of_sets(NormalSets(means, correlated), PRIOR), means, strict=True
    ):
        np.testing.assert_allclose(posterior.mean, mean, atol=3e-5)
        np.testing.assert_allclose(posterior.std, 1e-3, rtol=0.02)
        assert posterior.is_resolved


class _Bimodal:
    """Two equal normal peaks at -+ (0.7, 0), far narrower than the coarse cells."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        peaks = [NormalLikelihood(np.array([x, 0.0]), np.eye(2) / 0.03**2) for x in (-0.7, 0.7)]
        return np.logaddexp(*(peak(theta) for peak in peaks))


def test_both_peaks_are_found() -> None:
    (posterior,) = posteriors_of_sets(SeparateSets([_Bimodal()]), PRIOR)
    np.testing.assert_allclose(posterior.mean, 0, atol=0.01)
    np.testing.assert_allclose(posterior.std, [0.7, 0.03], rtol=0.05)


def test_the_prior_alone_stays_the_prior() -> None:
    sets = NormalSets(np.zeros((2, 2)), np.zeros((2, 2)))
    for posterior in posteriors_of_sets(sets, PRIOR):
        np.testing.assert_allclose(posterior.std, 1, rtol=2e-3)
        np.testing.assert_allclose(posterior.log_evidence, 0, atol=1e-3)


def test_a_box_prior_cuts_the_posterior() -> None:
    prior = BoxPrior(NAMES, (-1, -1), (1, 1))
    sets = NormalSets(np.array([[1.0, 0.0]]), np.eye(2) * 16.0)
    (posterior,) = posteriors_of_sets(sets, prior)
    half_normal = 1 - 0.25 * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(posterior.mean, [half_normal, 0], atol=2e-3)
    assert posterior.grid.edges[0][-1] == 1.0
    assert posterior.border_mass < 1e-3


@pytest.mark.parametrize("p", [1, 3])
def test_other_numbers_of_parameters(p: int) -> None:
    names = ("a", "b", "c")[:p]
    prior = NormalPrior(names, (0,) * p, (1,) * p)
    means = np.random.default_rng(4).normal(size=(3, p))
    sets = NormalSets(means, 9.0 * np.eye(p), names)
    for posterior, mean in zip(posteriors_of_sets(sets, prior), means, strict=True):
        np.testing.assert_allclose(posterior.mean, 0.9 * mean, atol=5e-3)
        np.testing.assert_allclose(posterior.std, 0.1**0.5, rtol=0.02)


def test_draws_have_the_moments_of_the_posterior() -> None:
    sets, _ = normal_sets(3, 5)
    draws = posteriors_of_sets(sets, PRIOR).draws(20_000, np.random.default_rng(1))
    means, covariance = sets.posteriors()
    assert draws.shape == (3, 20_000, 2)
    np.testing.assert_allclose(draws.mean(axis=1), means, atol=0.015)
    np.testing.assert_allclose(np.cov(draws[0].T), covariance, atol=0.01)


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_refinement_is_exact_for_parabolas(factor: int) -> None:
    def parabola(grid: Grid) -> Array:
        x, y = grid.points.T
        values = 1 - 0.03 * x**2 + 0.02 * x * y - 0.01 * y**2 + 0.1 * y
        return values.reshape(grid.shape)

    box = [[0.0, 6.0], [0.0, 5.0]]
    coarse, fine = Grid.regular(box, (6, 5)), Grid.regular(box, (6 * factor, 5 * factor))
    np.testing.assert_allclose(refined(parabola(coarse), factor), parabola(fine))


def test_refinement_keeps_cliffs() -> None:
    values = np.array([0.0, -1.0, -np.inf, -np.inf])
    fine = refined(values, 2)
    assert np.isneginf(fine[4:]).all()
    assert fine[:4].tolist() == [0.0, 0.0, -1.0, -1.0]


class _Half:
    """A normal prior cut at CWL2 = 0, whose box is not."""

    parameter_names = NAMES

    def log_prob(self, theta: Array) -> Array:
        return np.where(theta[:, 0] > 0, PRIOR.log_prob(theta) + np.log(2), -np.inf)

    def gradient(self, theta: Array) -> Array:
        return PRIOR.gradient(theta)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return np.abs(PRIOR.sample(n, rng)) * [1, 0] + PRIOR.sample(n, rng) * [0, 1]

    def box(self) -> Array:
        return PRIOR.box()

    def to_dict(self) -> dict:
        return {"kind": "half"}


class _OnlyRight:
    """Refuses to be asked where the prior vanishes."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        assert (theta[:, 0] > 0).all()
        return -2.0 * np.square(theta - 0.2).sum(axis=1)


def test_likelihoods_are_asked_only_where_the_prior_is_positive() -> None:
    (posterior,) = posteriors_of_sets(SeparateSets([_OnlyRight()]), _Half())
    fine = grid_posterior(_OnlyRight(), _Half(), common_grid([_OnlyRight()], _Half(), 200))
    np.testing.assert_allclose(posterior.mean, fine.mean, atol=0.02)
    np.testing.assert_allclose(posterior.std, fine.std, rtol=0.03)


def test_progress_ends_where_it_said() -> None:
    told = []
    sets, _ = normal_sets(3, 1)
    posteriors_of_sets(sets, PRIOR, progress=lambda done, of: told.append((done, of)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (256 + 400, 256 + 400)


class _Nowhere:
    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return np.full(len(theta), -np.inf)


ERRORS = {
    "nowhere": (
        lambda: posteriors_of_sets(SeparateSets([_Nowhere()]), PRIOR),
        SamplingError,
        "the posterior of set 0 vanishes on all 256 points",
    ),
    "other names": (
        lambda: posteriors_of_sets(normal_sets(2, 1)[0], NormalPrior(("a", "b"), (0, 0), (1, 1))),
        ShapeError,
        "sets and prior of the same parameters in one order",
    ),
    "too many parameters": (
        lambda: GridSettings.for_parameters(4),
        ConfigurationError,
        "expected at most 3 parameters, got 4",
    ),
    "too few cells": (lambda: GridSettings(cells=2), ConfigurationError, "3 cells or more"),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
