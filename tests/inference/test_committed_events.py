"""The exact posterior of the committed observed events: MCMC against the grid, and its doors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError, LikelihoodError, MissingReference
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.inference import (
    EmceeSampler,
    Grid,
    NormalPrior,
    exact_likelihood,
    grid_posterior,
    sample_posterior,
    summarise,
)
from mflow_sbi.interfaces import Array

OBSERVED = Path(__file__).parents[2] / "data" / "wbf_tuned_observed_theta_0.5_0.root"
NAMES = ("CWL2", "CPWL2")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))


@pytest.fixture(scope="module")
def observed() -> EventSample:
    return read_events(OBSERVED)


def test_mcmc_of_the_exact_likelihood_agrees_with_the_grid(observed: EventSample):
    likelihood = exact_likelihood(observed)
    grid = grid_posterior(likelihood, PRIOR, Grid.regular(PRIOR.box(), (300, 300)))
    assert grid.is_resolved
    settings = EmceeSampler(ensembles=2, walkers=128, burn_in=200, steps=1200)
    mcmc = summarise(sample_posterior(likelihood, PRIOR, settings, seed=1))
    assert mcmc.mean_error.max() < 0.007  # so that 0.02 is three standard errors or more
    np.testing.assert_allclose(mcmc.mean, grid.mean, atol=0.02)
    np.testing.assert_allclose(mcmc.std, grid.std, rtol=0.05)
    slope = grid.covariance[0, 1] / np.prod(grid.std)
    assert mcmc.correlation[0, 1] == pytest.approx(slope, abs=0.05)


def test_selected_events_have_no_exact_likelihood(observed: EventSample):
    loose = read_events(OBSERVED, selection="a[0].pt > 1")
    assert len(loose) == len(observed)
    with pytest.raises(MissingReference, match="selected by"):
        exact_likelihood(loose)


def test_events_that_lost_their_objects_are_selected(observed: EventSample):
    hard = read_events(OBSERVED, objects={"a": "pt > 60"})
    assert 0 < len(hard) < len(observed)
    with pytest.raises(MissingReference, match="selected by .'not fewer than 2 photons'"):
        exact_likelihood(hard)
    exact_likelihood(read_events(OBSERVED, objects={"a": "pt > 1"}))


def test_weighted_events_have_no_exact_likelihood(observed: EventSample):
    weighted = replace(observed, weight=np.linspace(1, 2, len(observed)))
    with pytest.raises(EventDataError, match="unweighted"):
        exact_likelihood(weighted)


class _Cliff:
    """A likelihood that is a number at the starting points only."""

    parameter_names = NAMES
    n_events = 1
    calls = 0

    def __call__(self, theta: Array) -> Array:
        self.calls += 1
        if self.calls > 1:
            message = "not a number"
            raise LikelihoodError(message)
        return np.zeros(len(theta))


def test_an_error_of_the_likelihood_is_raised_and_not_printed(capsys: pytest.CaptureFixture[str]):
    settings = EmceeSampler(ensembles=2, walkers=8, burn_in=1, steps=4)
    with pytest.raises(LikelihoodError, match="not a number"):
        sample_posterior(_Cliff(), PRIOR, settings, seed=1)
    assert capsys.readouterr() == ("", "")
