"""Draws agree with analytic and grid posteriors, reproduce, and know when they are poor."""

import numpy as np
import pytest

from mflow_sbi.errors import ConfigurationError, SamplingError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.convergence import autocorrelation_time
from mflow_sbi.inference.grid import common_grid, grid_posterior
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.mcmc import EmceeSampler
from mflow_sbi.inference.priors import BoxPrior, NormalPrior
from mflow_sbi.inference.result import diagnostics_of, draws_of, summarise
from mflow_sbi.inference.sampling import sample_posterior
from mflow_sbi.interfaces import Array, Likelihood

from .toys import NAMES, QUADRATIC, LinearSurrogate, NormalLikelihood

PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
SHORT = EmceeSampler(ensembles=3, walkers=16, burn_in=150, steps=250)
LONG = EmceeSampler(ensembles=4, walkers=32, burn_in=150, steps=600)


class Banana:
    """CPWL2 ~ N(CWL2^2 - 1, 0.15^2), CWL2 ~ N(0, 0.8^2)."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        a, b = theta.T
        return -0.5 * (np.square((b - a**2 + 1) / 0.15) + np.square(a / 0.8))


class TwoModes:
    """Normals of width 0.25 at (1.2, 0.8), weight 2/3, and (-1.3, -0.4), weight 1/3."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        first = -0.5 * np.square((theta - [1.2, 0.8]) / 0.25).sum(axis=1)
        second = -0.5 * np.square((theta - [-1.3, -0.4]) / 0.25).sum(axis=1)
        return np.logaddexp(first, second - np.log(2))


class Ring:
    """|theta| ~ N(1.4, 0.1^2): the shape of the posterior where the quadratic terms dominate."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return -0.5 * np.square((np.hypot(*theta.T) - 1.4) / 0.1)


@pytest.mark.parametrize("width", [0.04, 0.5])
def test_normal_posterior_within_monte_carlo_errors(width: float) -> None:
    likelihood = NormalLikelihood([0.5, -1.0], width**2 * np.array([[1, 0.5], [0.5, 1]]))
    covariance = np.linalg.inv(likelihood.precision + np.eye(2))
    mean = covariance @ likelihood.precision @ likelihood.mean
    posterior = sample_posterior(likelihood, PRIOR, SHORT, seed=3)
    summary = summarise(posterior)
    assert diagnostics_of(posterior).converged
    assert np.all(np.abs(summary.mean - mean) < 4 * summary.mean_error)
    np.testing.assert_allclose(summary.std, np.sqrt(np.diag(covariance)), rtol=0.06)
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert summary.correlation[0, 1] == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    "likelihood", [Banana(), TwoModes(), Ring()], ids=lambda x: type(x).__name__
)
def test_curved_and_multimodal_posteriors_agree_with_the_grid(likelihood: Likelihood) -> None:
    exact = grid_posterior(likelihood, PRIOR, common_grid([likelihood], PRIOR))
    posterior = sample_posterior(likelihood, PRIOR, LONG, seed=1)
    summary = summarise(posterior)
    assert np.all(np.abs(summary.mean - exact.mean) < 4 * summary.mean_error)
    np.testing.assert_allclose(summary.std, exact.std, rtol=0.05)


def test_exact_likelihood_agrees_with_the_grid(quadratic: tuple[Array, Array]) -> None:
    """The project's bar: means within 0.02, widths within 5 %."""
    likelihood = MorphingLikelihood(NAMES, QUADRATIC, *quadratic)
    exact = grid_posterior(likelihood, PRIOR, common_grid([likelihood], PRIOR))
    summary = summarise(sample_posterior(likelihood, PRIOR, LONG, seed=2))
    assert exact.is_resolved
    np.testing.assert_allclose(summary.mean, exact.mean, atol=0.02)
    np.testing.assert_allclose(summary.std, exact.std, rtol=0.05)
    for level, box in summary.intervals.items():
        for k in range(2):
            np.testing.assert_allclose(box[k], exact.credible_interval(k, level), atol=0.05)


def test_errors_of_the_mean_are_honest() -> None:
    """Over 12 seeds the pulls (mean - truth) / error have a spread of one."""
    likelihood = NormalLikelihood([0.0, 0.0], np.eye(2))
    settings = EmceeSampler(ensembles=2, walkers=16, burn_in=100, steps=150)
    runs = [summarise(sample_posterior(likelihood, PRIOR, settings, seed)) for seed in range(12)]
    pulls = np.array([run.mean / run.mean_error for run in runs])
    assert 0.6 < np.sqrt(np.square(pulls).mean()) < 1.5


def test_same_seed_same_draws_other_seed_other_draws(observed: Array) -> None:
    settings = EmceeSampler(ensembles=2, walkers=8, burn_in=5, steps=10)
    one, same, other = (
        draws_of(
            sample_posterior(CachedLikelihood(LinearSurrogate(), observed), PRIOR, settings, s)
        )
        for s in (7, 7, 8)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_numpy_s_global_state_plays_no_part() -> None:
    settings = EmceeSampler(ensembles=2, walkers=8, burn_in=5, steps=10)
    runs = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)  # noqa: NPY002
        runs.append(draws_of(sample_posterior(FlatLikelihood(NAMES), PRIOR, settings, 7)))
    assert np.array_equal(*runs)


def test_draws_respect_the_edges_of_a_box() -> None:
    prior = BoxPrior(NAMES, (0.6, -1), (1.2, 2))
    likelihood = NormalLikelihood([0.5, -1.0], np.diag([0.04, 0.04]))
    draws = draws_of(sample_posterior(likelihood, prior, SHORT, seed=4))
    assert np.all((draws >= [0.6, -1]) & (draws <= [1.2, 2]))
    exact = grid_posterior(likelihood, prior, common_grid([likelihood], prior))
    np.testing.assert_allclose(draws.mean(axis=0), exact.mean, atol=0.01)
    assert draws[:, 0].min() < 0.605


def test_flat_likelihood_gives_the_prior_back() -> None:
    draws = draws_of(sample_posterior(FlatLikelihood(NAMES), PRIOR, SHORT, seed=5))
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.12)
    np.testing.assert_allclose(draws.std(axis=0), 1, atol=0.07)


def test_leaving_the_training_range_is_reported(observed: Array) -> None:
    prior = NormalPrior(NAMES, (2, 0), (1, 1))
    likelihood = CachedLikelihood(LinearSurrogate(), observed + 18)  # truth near (2.3, 1.6)
    likelihood(np.full((50, 2), 9.0))  # not part of the run
    diagnostics = diagnostics_of(sample_posterior(likelihood, prior, SHORT, seed=6))
    steps = SHORT.ensembles * SHORT.walkers * (SHORT.burn_in + SHORT.steps)
    rounds = 64 * SHORT.walkers  # of weighted points, before the first step
    assert diagnostics.evaluated_points in [steps + k * rounds for k in range(1, 6)]
    assert diagnostics.evaluated_outside_training_range is not None
    assert 0 < diagnostics.evaluated_outside_training_range < diagnostics.evaluated_points
    assert diagnostics.draws_outside_training_range is not None
    assert diagnostics.draws_outside_training_range > 0.1
    assert any("training range" in caution for caution in diagnostics.cautions)
    assert diagnostics.converged


class Stuck:
    """Two walls of -inf apart, so that no walker crosses between the halves."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        islands = np.minimum(*(np.abs(theta - s).max(axis=1) for s in (-1.0, 1.0)))
        return np.where(islands < 0.2, 0.0, -np.inf)


def test_poor_convergence_is_written_down() -> None:
    settings = EmceeSampler(ensembles=4, walkers=8, burn_in=0, steps=20)
    diagnostics = diagnostics_of(
        sample_posterior(Stuck(), BoxPrior(NAMES, (-1.2,) * 2, (1.2,) * 2), settings, 0)
    )
    assert not diagnostics.converged
    assert max(diagnostics.r_hat) > 1.01
    assert any("R-hat" in complaint for complaint in diagnostics.complaints)
    assert any("effective draws" in complaint for complaint in diagnostics.complaints)


def test_autocorrelation_time_of_an_autoregressive_chain() -> None:
    """x_t = a x_{t-1} + noise has tau = (1 + a) / (1 - a)."""
    rng, a = np.random.default_rng(0), 0.8
    chain = np.empty((4000, 32))
    chain[0] = rng.normal(size=32) / np.sqrt(1 - a**2)
    for t in range(1, len(chain)):
        chain[t] = a * chain[t - 1] + rng.normal(size=32)
    assert autocorrelation_time(chain) == pytest.approx((1 + a) / (1 - a), rel=0.08)
    assert autocorrelation_time(np.ones((100, 4))) == 100


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    settings = EmceeSampler(ensembles=2, walkers=8, burn_in=3, steps=4)
    sample_posterior(
        FlatLikelihood(NAMES), PRIOR, settings, 0, lambda done, of: seen.append((done, of))
    )
    assert seen == [(k, 14) for k in range(1, 15)]


def test_walkers_starting_outside_the_support_are_drawn_again() -> None:
    settings = EmceeSampler(ensembles=2, walkers=8, burn_in=0, steps=5)
    posterior = sample_posterior(HalfPlane(), PRIOR, settings, seed=0)
    assert np.all(np.isfinite(posterior["sample_stats"]["lp"].to_numpy()))


class HalfPlane(Ring):
    """Density only at CWL2 > 0."""

    def __call__(self, theta: Array) -> Array:
        return np.where(theta[:, 0] > 0, 0.0, -np.inf)


class Nowhere(Ring):
    """No density anywhere."""

    def __call__(self, theta: Array) -> Array:
        return np.full(len(theta), -np.inf)


ERRORS = {
    "too few walkers": (
        lambda: sample_posterior(Ring(), PRIOR, EmceeSampler(walkers=6), 0),
        SamplingError,
        "at least 8 walkers for 2 parameters, got 6",
    ),
    "no finite start": (
        lambda: sample_posterior(Nowhere(), PRIOR, EmceeSampler(), 0),
        SamplingError,
        "no finite starting points",
    ),
    "other parameters": (
        lambda: sample_posterior(FlatLikelihood(("b", "a")), PRIOR, EmceeSampler(), 0),
        ShapeError,
        "same parameters",
    ),
    "one ensemble": (lambda: EmceeSampler(ensembles=1), ConfigurationError, "at least 2"),
    "no steps": (lambda: EmceeSampler(steps=0), ConfigurationError, "steps"),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
