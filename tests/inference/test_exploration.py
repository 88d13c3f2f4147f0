"""Weighted points stand for the posterior, propose by a density that is one, know what lacks."""

from collections.abc import Callable

import numpy as np
import pytest

from mflow_sbi.errors import SamplingError
from mflow_sbi.inference.exploration import Exploration, explore_prior
from mflow_sbi.inference.grid import Grid, GridPosterior, grid_posterior
from mflow_sbi.inference.points import log_joint
from mflow_sbi.inference.priors import BoxPrior, NormalPrior, RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood

from .sampler_toys import Normal, Ring, Spurious, TwoModes
from .toys import NAMES

PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
BOX = BoxPrior(NAMES, (-2, -1), (2, 2))
TOYS = {"two modes": TwoModes(), "ring": Ring(), "spurious": Spurious()}
each_toy = pytest.mark.parametrize("likelihood", TOYS.values(), ids=TOYS)


def _joint(likelihood: Likelihood, prior: RecordedPrior) -> Callable[[Array], Array]:
    return lambda theta: log_joint(likelihood, prior, theta)


def _explore(likelihood: Likelihood, prior: RecordedPrior = PRIOR, seed: int = 0) -> Exploration:
    rng = np.random.default_rng(seed)
    return explore_prior(_joint(likelihood, prior), prior, 2048, 32, rng)


def _exact(likelihood: Likelihood, prior: RecordedPrior = PRIOR) -> GridPosterior:
    return grid_posterior(likelihood, prior, Grid.regular([[-2.5, 2.5]] * 2, (500, 500)))


@each_toy
@pytest.mark.parametrize("prior", [PRIOR, BOX], ids=["normal", "box"])
def test_weights_make_the_points_a_sample(likelihood: Likelihood, prior: RecordedPrior) -> None:
    exploration, exact = _explore(likelihood, prior), _exact(likelihood, prior)
    weights = np.exp(exploration.log_weights - exploration.log_weights.max())
    weights /= weights.sum()
    assert exploration.effective_draws > 200
    error = 4 * exact.std / np.sqrt(exploration.effective_draws)
    assert np.all(np.abs(weights @ exploration.points - exact.mean) < error)
    joint = _joint(likelihood, prior)(exploration.points)
    np.testing.assert_allclose(joint, exploration.log_joint, rtol=1e-12)


@each_toy
def test_starts_are_different_draws_from_the_posterior(likelihood: Likelihood) -> None:
    exact = _exact(likelihood)
    points, log_joints = _explore(likelihood).starts(100, np.random.default_rng(1))
    assert len(np.unique(points, axis=0)) == 100
    assert np.all(np.abs(points.mean(axis=0) - exact.mean) < 0.4 * exact.std)
    np.testing.assert_allclose(log_joints, _joint(likelihood, PRIOR)(points), rtol=1e-12)
    right = exact.mass[exact.grid.points[:, 0] > 0].sum()
    assert (points[:, 0] > 0).mean() == pytest.approx(right, abs=0.2)


@each_toy
def test_the_jump_density_is_normalised_and_is_that_of_its_draws(likelihood: Likelihood) -> None:
    """E_q[f/q] is the integral of any f: of posterior and prior, and of theta times the former."""
    exact, rng = _exact(likelihood), np.random.default_rng(3)
    density = _explore(likelihood).jumps(rng)
    draws = density.sample(20000, rng)
    log_q = density.log_prob(draws)
    posterior = np.exp(exact.log_prob_at(draws) - log_q)
    assert posterior.mean() == pytest.approx(1, abs=0.03)
    assert np.exp(PRIOR.log_prob(draws) - log_q).mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(posterior @ draws / 20000, exact.mean, atol=0.04)


def test_jumps_are_accepted() -> None:
    """An independent walker moves by most of its jumps, in one mode or in two."""
    for likelihood in TOYS.values():
        exploration, rng = _explore(likelihood), np.random.default_rng(4)
        density = exploration.jumps(rng)
        here, lp = exploration.starts(100, rng)
        there = density.sample(100, rng)
        gain = _joint(likelihood, PRIOR)(there) - density.log_prob(there)
        gain -= lp - density.log_prob(here)
        assert np.exp(np.minimum(gain, 0)).mean() > 0.4


@pytest.mark.parametrize("parameters", [1, 6, 15])
def test_any_number_of_parameters(parameters: int) -> None:
    likelihood = Normal([0.3] * parameters, 0.04 * np.eye(parameters))
    prior = NormalPrior(likelihood.parameter_names, (0,) * parameters, (1,) * parameters)
    exploration = _explore(likelihood, prior)
    points, _ = exploration.starts(64, np.random.default_rng(1))
    density = exploration.jumps(np.random.default_rng(1))
    assert points.shape == (64, parameters)
    assert np.all(np.isfinite(density.log_prob(density.sample(50, np.random.default_rng(1)))))
    spread = np.abs(points - 0.3 / 1.04).mean()
    assert spread < np.abs(prior.sample(1000, np.random.default_rng(1)) - 0.3).mean()


def test_complete_draws_miss_nothing() -> None:
    for likelihood in TOYS.values():
        draws = _exact(likelihood).sample(1500, np.random.default_rng(5))
        lp = _joint(likelihood, PRIOR)(draws)
        for seed in range(5):
            assert _explore(likelihood, seed=seed).missed_share(draws, lp) < 0.01


@pytest.mark.parametrize("side", [-1, 1])
def test_a_mode_without_draws_is_missed(side: int) -> None:
    for likelihood in (TOYS["two modes"], TOYS["ring"]):
        exact = _exact(likelihood)
        draws = exact.sample(3000, np.random.default_rng(5))
        draws = draws[side * draws[:, 0] > 0.3]
        share = exact.mass[side * exact.grid.points[:, 0] < -0.3].sum()
        missed = _explore(likelihood).missed_share(draws, _joint(likelihood, PRIOR)(draws))
        assert 0.4 * share < missed < 1.3 * share


def test_a_mode_of_no_weight_is_not_missed() -> None:
    draws = _exact(Spurious()).sample(1000, np.random.default_rng(5))
    assert _explore(Spurious()).missed_share(draws, _joint(Spurious(), PRIOR)(draws)) < 1e-6


def test_stuck_draws_do_not_break_the_check() -> None:
    draws = np.ones((100, 2))
    assert _explore(TwoModes()).missed_share(draws, np.zeros(100)) == 0


class _Corner:
    """Density at one prior draw of two hundred or so."""

    parameter_names = NAMES
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return np.where((theta > 1.5).all(axis=1), 0.0, -np.inf)


def test_rare_usable_points_are_looked_for() -> None:
    assert len(_explore(_Corner()).points) >= 32
    joint, rng = _joint(_Corner(), PRIOR), np.random.default_rng(0)
    with pytest.raises(SamplingError, match="fewer than 500 of 1000 draws"):
        explore_prior(joint, PRIOR, 100, 500, rng)
