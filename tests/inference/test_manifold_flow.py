"""Chains on a real manifold flow in double precision: with the cache or without, the same."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mflow_sbi.charting import ChartingEvents
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter, Standardizer
from mflow_sbi.inference import (
    CachedEventSets,
    CachedLikelihood,
    EmceeSampler,
    NormalPrior,
    draws_of,
    sample_posterior,
)
from mflow_sbi.interfaces import Array, ManifoldSurrogate
from mflow_sbi.recipes import RECIPES
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord

NAMES = ("CWL2", "CPWL2")
N_OBSERVED = 12
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
SETTINGS = EmceeSampler(ensembles=2, walkers=8, burn_in=20, steps=40)
SMALL = {"layers": 2, "hidden": 16, "bins": 5}


def _events(n: int) -> tuple[Array, Array]:
    """Return events on a 3-surface in R^5 in GeV and their theta, (n, 5), (n, 2)."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(n, 2))
    u = rng.normal(size=(n, 3)) + theta @ [[0.7, 0.2, 0.0], [0.0, 0.3, 0.6]]
    x = np.column_stack([u, np.sin(u[:, 0]), 0.3 * u[:, 1] * u[:, 2]])
    return 50 * x + 100, theta


def _surrogate() -> TrainedSurrogate:
    """Return a manifold flow with random weights: curved, and moved by theta."""
    x, theta = _events(300)
    observables, parameters = Standardizer.fit(x), Standardizer.fit(theta)
    standardised = torch.from_numpy(observables.transform(x))
    recipe = RECIPES["mflow"]
    options = recipe.parse_options(
        {
            "latent_dim": 3,
            "chart": {"kind": "invertible", **SMALL},
            "reference": SMALL,
            "density": SMALL,
        }
    )
    names = tuple(f"x{i}" for i in range(x.shape[1]))
    events = ChartingEvents(x, standardised, observables.mean, observables.std, names)
    metadata = EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=tuple(Parameter(name) for name in NAMES),
        observables=tuple(Observable(name, name, "GeV") for name in "abcde"),
    )
    sample = EventSample(x=x, metadata=metadata, theta=theta)
    flow = recipe.begin(events, sample, options, 1).surrogate.double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += 0.2 * noise
    flow.prepare("reference", standardised)
    record = SurrogateRecord("mflow", {}, {}, 1, observables, parameters, metadata, {})
    return TrainedSurrogate(flow, record)


class DirectLikelihood:
    """log L = sum_i log p(x_i|theta), everything anew at every point, events paired with points.

    Args:
        log_density: (events (R, n), theta (R, p)) -> (R,).
        x: observed events.
    """

    parameter_names: Sequence[str] = NAMES
    n_events = N_OBSERVED

    def __init__(self, log_density, x: Array) -> None:
        self.log_density = log_density
        self.x = x

    def __call__(self, theta: Array) -> Array:
        events = np.tile(self.x, (len(theta), 1))
        points = np.repeat(theta, len(self.x), axis=0)
        return self.log_density(events, points).reshape(len(theta), -1).sum(axis=1)


@pytest.fixture(scope="module")
def surrogate() -> TrainedSurrogate:
    torch.set_num_threads(1)
    return _surrogate()


@pytest.fixture(scope="module")
def cached(surrogate: TrainedSurrogate) -> CachedLikelihood:
    return CachedLikelihood(surrogate, _events(N_OBSERVED)[0], chunk_rows=32)


@pytest.fixture(scope="module")
def visited(cached: CachedLikelihood) -> Array:
    """Return the different points of a chain with the cache."""
    draws = np.unique(draws_of(sample_posterior(cached, PRIOR, SETTINGS, seed=1)), axis=0)
    assert len(draws) > 100
    assert draws.std(axis=0).min() > 0.1
    return draws


@pytest.mark.parametrize("quantity", ["log_likelihood", "log_prob"])
def test_log_ratios_with_the_cache_are_those_without(
    surrogate: TrainedSurrogate, cached: CachedLikelihood, visited: Array, quantity: str
) -> None:
    """The volume, which `log_prob` has and the cache has not, is constant in theta."""
    x = cached.observed["x"]
    direct = DirectLikelihood(getattr(surrogate, quantity), x)(visited)
    fast = cached(visited)
    assert np.ptp(fast) > 3  # or the ratios would be trivial
    np.testing.assert_allclose(fast - fast[0], direct - direct[0], atol=1e-5, rtol=0)
    assert isinstance(surrogate.surrogate, ManifoldSurrogate)
    volume = surrogate.surrogate.log_volume(surrogate.encode(x)).sum().item()
    expected = volume if quantity == "log_prob" else 0.0
    np.testing.assert_allclose(fast - direct, expected, atol=1e-8)


@pytest.mark.parametrize("quantity", ["log_likelihood", "log_prob"])
def test_the_chain_with_the_cache_is_the_chain_without(
    surrogate: TrainedSurrogate, cached: CachedLikelihood, quantity: str
) -> None:
    direct = DirectLikelihood(getattr(surrogate, quantity), cached.observed["x"])
    fast, slow = (sample_posterior(x, PRIOR, SETTINGS, seed=1) for x in (cached, direct))
    np.testing.assert_allclose(draws_of(fast), draws_of(slow), rtol=1e-12)
    lp, lp_slow = (x["sample_stats"]["lp"].to_numpy() for x in (fast, slow))
    np.testing.assert_allclose(lp - lp[0, 0], lp_slow - lp_slow[0, 0], atol=1e-5, rtol=0)


def test_gradient_is_the_derivative(cached: CachedLikelihood, visited: Array) -> None:
    theta, step = visited[:40], 1e-5
    _, gradients = cached.value_and_gradient(theta)
    for k, shift in enumerate(step * np.eye(2)):
        slope = (cached(theta + shift) - cached(theta - shift)) / (2 * step)
        # a spline's log slope has kinks where an event crosses a knot within the step
        assert np.median(np.abs(gradients[:, k] - slope)) < 1e-7
        np.testing.assert_allclose(gradients[:, k], slope, rtol=1e-3, atol=1e-3)


def test_event_sets_equal_each_alone(surrogate: TrainedSurrogate) -> None:
    x, _ = _events(30)
    sets = [x[:1], x[1:8], x[8:28], x[28:]]
    together = CachedEventSets(surrogate, sets, chunk_rows=64)
    own = np.random.default_rng(2).normal(size=(7, 4, 2))
    alone = [CachedLikelihood(surrogate, one) for one in sets]
    expected = np.stack([one(own[:, s]) for s, one in enumerate(alone)], axis=1)
    np.testing.assert_allclose(together.at_own_points(own), expected, rtol=1e-12)
    expected = np.stack([one(own[:, 0]) for one in alone], axis=1)
    np.testing.assert_allclose(together(own[:, 0]), expected, rtol=1e-12)
