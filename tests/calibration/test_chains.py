"""Chains of all sets at once sample each set's posterior."""

import re

import numpy as np
import pytest

from mflow_sbi.calibration import ChainSettings, sample_sets
from mflow_sbi.errors import ConfigurationError, SamplingError
from mflow_sbi.inference import BoxPrior, NormalPrior
from mflow_sbi.interfaces import Array

from .toys import NAMES, PRIOR, NormalSets, normal_sets

SHORT = ChainSettings(walkers=16, burn_in=100, steps=600, thin=20)


@pytest.mark.parametrize("p", [1, 2, 5])
def test_normal_posteriors_have_their_moments(p: int) -> None:
    names = tuple("abcde"[:p])
    prior = NormalPrior(names, (0,) * p, (1,) * p)
    means = np.random.default_rng(p).normal(size=(20, p))
    sets = NormalSets(means, 8.0 * np.eye(p), names)
    found = sample_sets(sets, prior, SHORT, np.random.default_rng(1))
    assert found.draws.shape == (20, 480, p)
    pulls = (found.draws.mean(axis=1) - 8 / 9 * means) * 3
    assert np.sqrt(np.square(pulls).mean()) < 0.15
    assert found.draws.std(axis=1).mean() * 3 == pytest.approx(1, abs=0.05)
    assert found.worst_r_hat < 1.35


def test_values_belong_to_the_draws() -> None:
    sets, _ = normal_sets(5, 2)
    found = sample_sets(sets, PRIOR, SHORT, np.random.default_rng(2))
    values = sets.at_own_points(found.draws.transpose(1, 0, 2)).T
    np.testing.assert_allclose(found.log_likelihood, values)
    prior = PRIOR.log_prob(found.draws.reshape(-1, 2)).reshape(values.shape)
    np.testing.assert_allclose(found.log_posterior, values + prior)


def test_walkers_stay_inside_a_box() -> None:
    prior = BoxPrior(NAMES, (-1, -1), (1, 1))
    sets = NormalSets(np.array([[1.0, 0.0]]), np.eye(2) * 16.0)
    draws = sample_sets(sets, prior, SHORT, np.random.default_rng(3)).draws[0]
    assert np.abs(draws).max() <= 1
    assert draws[:, 0].mean() == pytest.approx(1 - 0.25 * np.sqrt(2 / np.pi), abs=0.03)


def test_chains_cut_short_show_it() -> None:
    sets = NormalSets(np.array([[3.0, 3.0]]), 1e6 * np.eye(2))
    short = ChainSettings(walkers=16, burn_in=0, steps=16, thin=1, starts=16)
    assert sample_sets(sets, PRIOR, short, np.random.default_rng(4)).worst_r_hat > 1.5


def test_a_seed_gives_the_same_draws() -> None:
    sets, _ = normal_sets(3, 2)
    one, two = (
        sample_sets(sets, PRIOR, ChainSettings(8, 5, 8, 2), np.random.default_rng(5))
        for _ in range(2)
    )
    assert np.array_equal(one.draws, two.draws)


class _Nowhere(NormalSets):
    def __call__(self, theta: Array) -> Array:
        return np.full((len(theta), self.n_sets), -np.inf)


RNG = np.random.default_rng(1)
ERRORS = {
    "odd": (lambda: ChainSettings(walkers=7), ConfigurationError, "an even number of walkers"),
    "steps": (lambda: ChainSettings(steps=10), ConfigurationError, "steps >= 4 thin"),
    "few walkers": (
        lambda: sample_sets(
            NormalSets(np.zeros((1, 3)), np.eye(3), ("a", "b", "c")),
            NormalPrior(("a", "b", "c"), (0,) * 3, (1,) * 3),
            ChainSettings(walkers=4),
            RNG,
        ),
        ConfigurationError,
        "at least 6 walkers for 3 parameters, got 4",
    ),
    "nowhere": (
        lambda: sample_sets(_Nowhere(np.zeros((2, 2)), np.eye(2)), PRIOR, SHORT, RNG),
        SamplingError,
        "set 0: the likelihood is positive at 0 of 2000 draws",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
