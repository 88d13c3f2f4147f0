"""Intervals from the exact likelihood of simulated WBF events, against dense grids and toys."""

import numpy as np
import pytest
from scipy.stats import chi2

from mflow_sbi.events import read_events
from mflow_sbi.inference import exact_likelihood
from mflow_sbi.interfaces import Array, Likelihood
from mflow_sbi.intervals import (
    EventPool,
    Limits,
    expected_intervals,
    likelihood_ratios,
    maximise,
    profile,
    starts_in_box,
    toy_coverage,
)
from mflow_sbi.intervals.maximum import ONE_SIGMA
from mflow_sbi.intervals.parameters import region_of

from .toys import OBSERVED

NAMES = ("CWL2", "CPWL2")
LIMITS: Limits = {"CWL2": (-4.0, 4.0), "CPWL2": (-4.0, 4.0)}


def _on_a_grid(likelihood: Likelihood, centre: Array, reach: Array) -> Array:
    """Return both ends of the part around the maximum, from a dense grid alone, (p, 2)."""
    axes = [np.linspace(c - 3 * r, c + 3 * r, 241) for c, r in zip(centre, reach, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    heights = likelihood(points.reshape(-1, 2)).reshape(241, 241)
    ends = []
    for k, axis in enumerate(axes):
        ridge = heights.max(axis=1 - k)
        away = 2 * (heights.max() - ridge) - chi2.ppf(ONE_SIGMA, 1)
        top = int(ridge.argmax())
        lower = np.interp(0, -away[: top + 1], axis[: top + 1])
        ends.append((lower, np.interp(0, away[top:], axis[top:])))
    return np.array(ends)


def _cases(pool):
    for path in OBSERVED:
        yield path.stem, exact_likelihood(read_events(path))
    for theta in ((0.0, 0.0), (0.5, 0.0)):
        sets = pool.simulator(n_events=200)(np.array(theta), 1, np.random.default_rng(8))
        yield f"200 at {theta}", sets.likelihood_of(0)


def test_minos_is_the_dense_grid_profile_and_the_scan(pool):
    for name, likelihood in _cases(pool):
        fit = maximise(likelihood, starts_in_box(likelihood, LIMITS), limits=LIMITS)
        assert fit.valid, name
        both = _on_a_grid(likelihood, fit.values, fit.std)
        for k, (parameter, grid) in enumerate(zip(NAMES, both, strict=True)):
            minos = fit.values[k] + fit.minos[k]
            width = np.ptp(grid)
            np.testing.assert_allclose(minos, grid, atol=0.01 * width, err_msg=name)
            parts = profile(likelihood, parameter, LIMITS, maximum=fit).intervals().parts
            mine = [part for part in parts if part.low < fit.values[k] < part.high]
            np.testing.assert_allclose(
                (mine[0].low, mine[0].high), grid, atol=0.005 * width, err_msg=name
            )


@pytest.mark.parametrize(
    "setting", [{"n_events": 20}, {"luminosity": 0.03}], ids=["shape", "rate"]
)
def test_toys_cover_the_truth(pool, setting):
    study = toy_coverage(
        pool.simulator(**setting),
        (0.0, 0.0),
        LIMITS,
        np.random.default_rng(1),
        names=NAMES,
        n_toys=1000,
    )
    assert np.abs(study.pull).max() < 3


def test_the_toys_statistic_is_that_of_a_dense_grid(pool):
    """No toy's second maximum is missed, on the plane or on the line CWL2 = 0."""
    theta = np.array([0.0, 0.0])
    sets = pool.simulator(n_events=60)(theta, 60, np.random.default_rng(9))
    region = region_of(NAMES, LIMITS)
    axis = np.linspace(-1.6, 1.6, 81)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    plane = np.max([sets(part).max(axis=0) for part in np.array_split(points, 10)], axis=0)
    line = sets(np.stack([np.zeros(641), np.linspace(-1.6, 1.6, 641)], axis=1)).max(axis=0)
    here = sets(theta[None])[0]
    both, one = (likelihood_ratios(sets, theta, names, region) for names in (NAMES, ["CWL2"]))
    np.testing.assert_allclose(both, 2 * (plane - here), atol=0.2)
    np.testing.assert_allclose(both - one, 2 * (line - here), atol=0.01)


def test_asimov_data_give_the_toys_median(pool):
    theta, limits = np.array([0.5, 0.0]), {"CWL2": (-1.0, 1.5), "CPWL2": (-1.0, 1.5)}
    toys = expected_intervals(
        pool.simulator(n_events=100),
        theta,
        "CPWL2",
        limits,
        np.random.default_rng(2),
        names=NAMES,
        n_toys=100,
    )
    few = EventPool(pool.sample.take(np.arange(2000)))
    asimov = profile(few.asimov(theta, n_events=100.0), "CPWL2", limits).intervals(0.95)
    error = 1.25 * toys.ends.std(axis=0) / np.sqrt(100)
    np.testing.assert_allclose(asimov.hull, toys.median, atol=3 * error.max())
    assert toys.open_share == 0
    assert (toys.band[:, 0] < toys.median).all()
    assert (toys.band[:, 1] > toys.median).all()


def test_limits_scale_with_luminosity(pool):
    few = EventPool(pool.sample.take(np.arange(1000)))

    def width(luminosity: float) -> float:
        data = few.asimov((0.5, 0.0), luminosity=luminosity)
        return profile(data, "CPWL2", LIMITS).intervals(0.6827).length

    once = width(2.0)
    assert width(8.0) == pytest.approx(once / 2, rel=0.01)
