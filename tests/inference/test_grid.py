"""Grid posteriors are normalised, exact on normal densities, and measure distances properly."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import chi2

from mflow_sbi.errors import SamplingError, ShapeError
from mflow_sbi.inference.grid import Grid, GridPosterior, common_grid, grid_posterior
from mflow_sbi.inference.likelihood import FlatLikelihood
from mflow_sbi.inference.priors import BoxPrior, NormalPrior
from mflow_sbi.interfaces import Array

from .toys import NAMES, NormalLikelihood

PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
WIDTHS = pytest.mark.parametrize("width", [0.04, 0.3, 1.5])


def _normal(width: float, correlation: float = 0.6, mean: Array | None = None) -> NormalLikelihood:
    covariance = width**2 * np.array([[1, correlation], [correlation, 1]])
    return NormalLikelihood([0.7, -0.9] if mean is None else mean.tolist(), covariance)


def _analytic(likelihood: NormalLikelihood) -> tuple[Array, Array, float]:
    """Posterior mean, covariance and log evidence under the standard normal prior."""
    covariance = np.asarray(np.linalg.inv(likelihood.precision + np.eye(2)), dtype=np.float64)
    mean = covariance @ likelihood.precision @ likelihood.mean
    spread = np.linalg.inv(likelihood.precision) + np.eye(2)
    log_det = np.linalg.slogdet(spread)[1] + np.linalg.slogdet(likelihood.precision)[1]
    evidence = -0.5 * (likelihood.mean @ np.linalg.solve(spread, likelihood.mean) + log_det)
    return np.asarray(mean, dtype=np.float64), covariance, float(evidence)


def _posterior(likelihood: NormalLikelihood) -> GridPosterior:
    return grid_posterior(likelihood, PRIOR, common_grid([likelihood], PRIOR))


@WIDTHS
def test_normal_posterior_is_exact(width: float) -> None:
    likelihood = _normal(width)
    mean, covariance, evidence = _analytic(likelihood)
    posterior = _posterior(likelihood)
    assert posterior.mass.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-5)
    np.testing.assert_allclose(posterior.covariance, covariance, rtol=1e-4)
    assert posterior.log_evidence == pytest.approx(evidence, abs=1e-5)
    entropy = 1 + np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(covariance)[1]
    assert posterior.entropy == pytest.approx(entropy, abs=1e-4)
    assert posterior.is_resolved


@WIDTHS
def test_log_prob_at_is_evaluated_exactly_between_the_cells(width: float) -> None:
    likelihood = _normal(width)
    mean, covariance, _ = _analytic(likelihood)
    theta = mean + 0.37 * width
    away = theta - mean
    expected = (
        -0.5 * away @ np.linalg.solve(covariance, away)
        - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    log_prob = _posterior(likelihood).log_prob_at(theta[None])
    assert log_prob[0] == pytest.approx(expected, abs=1e-5)


@WIDTHS
def test_credible_regions_of_a_normal(width: float) -> None:
    likelihood = _normal(width)
    mean, covariance, _ = _analytic(likelihood)
    posterior = _posterior(likelihood)
    for level in (0.68, 0.95):
        pull = chi2(1).ppf(level) ** 0.5
        for k in range(2):
            reach = pull * covariance[k, k] ** 0.5
            interval = posterior.credible_interval(k, level)
            np.testing.assert_allclose(
                interval, [mean[k] - reach, mean[k] + reach], atol=reach / 30
            )
        area = np.pi * chi2(2).ppf(level) * np.linalg.det(covariance) ** 0.5
        assert posterior.region_volume(level) == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize("shift", [0.1, 1.0, 2.5])
def test_total_variation_and_divergence_of_shifted_normals(shift: float) -> None:
    """For N(a, C) and N(b, C): TV = 2 Phi(|a-b|_C / 2) - 1 and KL = |a-b|_C^2 / 2."""
    width = 0.1
    first, second = _normal(width), _normal(width, mean=np.array([0.7 + shift * width, -0.9]))
    grid = common_grid([first, second], PRIOR)
    p, q = (grid_posterior(likelihood, PRIOR, grid) for likelihood in (first, second))
    (a, covariance, _), (b, _, _) = _analytic(first), _analytic(second)
    distance = float(np.sqrt((a - b) @ np.linalg.solve(covariance, a - b)))
    assert p.total_variation(q) == pytest.approx(2 * ndtr(distance / 2) - 1, abs=2e-3)
    assert p.kullback_leibler(q) == pytest.approx(distance**2 / 2, rel=1e-3)


def test_narrow_posterior_against_the_prior_on_one_grid() -> None:
    """The prior on the common grid keeps its analytic mean, width and entropy."""
    narrow = _normal(0.04)
    grid = common_grid([narrow], PRIOR)
    prior = grid_posterior(FlatLikelihood(NAMES), PRIOR, grid)
    np.testing.assert_allclose(prior.mean, 0, atol=2e-3)
    np.testing.assert_allclose(prior.std, 1, rtol=2e-3)
    assert prior.entropy == pytest.approx(1 + np.log(2 * np.pi), abs=5e-3)
    assert prior.log_prob_at(np.zeros((1, 2)))[0] == pytest.approx(-np.log(2 * np.pi), abs=5e-3)
    exact = grid_posterior(narrow, PRIOR, grid)
    assert 0.98 < exact.total_variation(prior) < 1


class TwoModes:
    """Equal narrow normals at +-(1, 1)."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return np.logaddexp(
            *(-0.5 * np.square((theta - s) / 0.05).sum(axis=1) for s in (1.0, -1.0))
        )


def test_both_modes_are_found_and_resolved() -> None:
    posterior = grid_posterior(TwoModes(), PRIOR, common_grid([TwoModes()], PRIOR))
    np.testing.assert_allclose(posterior.mean, 0, atol=1e-8)
    centre, within = 1 / (1 + 0.05**2), 0.05**2 / (1 + 0.05**2)
    np.testing.assert_allclose(np.diag(posterior.covariance), centre**2 + within, rtol=1e-4)
    assert posterior.covariance[0, 1] == pytest.approx(centre**2, rel=1e-4)
    assert posterior.is_resolved


def test_coarse_grid_says_that_it_does_not_resolve() -> None:
    coarse = grid_posterior(_normal(0.04), PRIOR, Grid.regular(PRIOR.box(), (21, 21)))
    assert not coarse.is_resolved
    assert coarse.effective_cells < 5


def test_narrow_box_says_that_mass_is_cut_off() -> None:
    cut = grid_posterior(_normal(0.3), PRIOR, Grid.regular([[0, 0.7], [-2, 1]], (50, 50)))
    assert cut.border_mass > 1e-2
    assert not cut.is_resolved


def test_edge_of_a_box_prior_is_no_cut() -> None:
    prior = BoxPrior(NAMES, (-1, -1), (1, 1))
    flat = grid_posterior(FlatLikelihood(NAMES), prior, common_grid([], prior))
    assert flat.border_mass == 0
    np.testing.assert_allclose(flat.std, 1 / np.sqrt(3), rtol=1e-3)


def test_draws_follow_the_masses() -> None:
    posterior = _posterior(_normal(0.3))
    draws = posterior.sample(50_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), posterior.mean, atol=5e-3)
    np.testing.assert_allclose(draws.std(axis=0), posterior.std, rtol=0.02)


def test_one_parameter() -> None:
    prior = NormalPrior(("CWL2",), (0,), (1,))
    likelihood = NormalLikelihood([1.0], np.eye(1))
    posterior = grid_posterior(likelihood, prior, common_grid([likelihood], prior))
    assert posterior.mean[0] == pytest.approx(0.5, abs=1e-6)
    assert posterior.std[0] == pytest.approx(0.5**0.5, rel=1e-4)


CELLS = (3, 4)
SMALL = Grid.regular([[0, 1], [0, 2]], CELLS)


def _of(weights: list[float]) -> GridPosterior:
    """A posterior with the given relative masses."""
    mass = np.asarray(weights) / np.sum(weights)
    with np.errstate(divide="ignore"):
        log_density = np.log(mass / SMALL.volumes)
    return GridPosterior(NAMES, SMALL, log_density, 0.0, 0.0, lambda theta: theta[:, 0])


weights = st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.0]), min_size=12, max_size=12).filter(any)


@settings(deadline=None)
@given(weights, weights, weights)
def test_total_variation_is_a_bounded_metric(a: list, b: list, c: list) -> None:
    p, q, r = _of(a), _of(b), _of(c)
    assert p.total_variation(p) == 0
    assert p.total_variation(q) == pytest.approx(q.total_variation(p), abs=1e-15)
    assert 0 <= p.total_variation(q) <= 1
    assert p.total_variation(r) <= p.total_variation(q) + q.total_variation(r) + 1e-12
    # Pinsker: 2 TV^2 <= KL
    assert 2 * p.total_variation(q) ** 2 <= p.kullback_leibler(q) + 1e-12


def test_disjoint_posteriors_are_at_distance_one() -> None:
    left, right = _of([1.0] * 6 + [0.0] * 6), _of([0.0] * 6 + [1.0] * 6)
    assert left.total_variation(right) == pytest.approx(1)
    assert left.kullback_leibler(right) == np.inf


def test_common_grid_spans_the_prior_and_increases() -> None:
    grid = common_grid([_normal(0.04), TwoModes(), FlatLikelihood(NAMES)], PRIOR)
    for k, edges in enumerate(grid.edges):
        assert (edges[0], edges[-1]) == tuple(PRIOR.box()[k])
        assert all(low < high for low, high in pairwise(edges))


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    grid_posterior(_normal(0.3), PRIOR, SMALL, lambda done, of: seen.append((done, of)))
    assert seen[-1] == (12, 12)


class Vanishing(TwoModes):
    """No density anywhere."""

    def __call__(self, theta: Array) -> Array:
        return np.full(len(theta), -np.inf)


ERRORS = {
    "two grids": (
        lambda: _of([1.0] * 12).total_variation(_posterior(_normal(0.3))),
        ShapeError,
        "on one grid",
    ),
    "vanishes on the grid": (
        lambda: grid_posterior(Vanishing(), PRIOR, SMALL),
        SamplingError,
        "every cell",
    ),
    "vanishes on the prior": (
        lambda: common_grid([Vanishing()], PRIOR),
        SamplingError,
        "coarse grid",
    ),
    "edges do not increase": (
        lambda: Grid((np.array([0.0, 0.0, 1.0]),)),
        ShapeError,
        "increasing edges",
    ),
    "axes do not match": (
        lambda: grid_posterior(TwoModes(), PRIOR, Grid.regular([[0, 1]], (3,))),
        ShapeError,
        "one grid axis per parameter",
    ),
    "other parameters": (
        lambda: grid_posterior(FlatLikelihood(("a", "b")), PRIOR, SMALL),
        ShapeError,
        "same parameters",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
