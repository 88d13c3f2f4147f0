"""TARP: uniform for exact draws, whatever the references; telling for wrong ones."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from mflow_sbi.calibration import crossfitted_means, informed_references, tarp
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

from .toys import PRIOR, NormalSets, narrower, normal_sets, shifted

REPEATS, SETS, DRAWS = 60, 150, 60


def _rejected(wrong: Callable[[NormalSets], NormalSets], references: str) -> float:
    """Return the share of experiments with p < 5%."""
    p_values = []
    for seed in range(REPEATS):
        sets, theta = normal_sets(SETS, seed)
        rng = np.random.default_rng(1000 + seed)
        draws = wrong(sets).draws(DRAWS, rng)
        points = (
            PRIOR.sample(SETS, rng)
            if references == "prior"
            else informed_references(sets.means, theta, rng)
        )
        p_values.append(tarp(draws, theta, points, rng).test.p_value)
    return float((np.array(p_values) < 0.05).mean())


@pytest.mark.parametrize("references", ["prior", "informed"])
def test_exact_draws_are_rejected_as_often_as_claimed(references: str) -> None:
    assert _rejected(lambda sets: sets, references) <= 0.14  # 60 times 5%: at most 8 in 99.8%


WRONG = {
    "narrow": lambda sets: narrower(sets, 3.0),
    "wide": lambda sets: narrower(sets, 0.33),
    "shifted": lambda sets: shifted(sets, 0.5),
}


@pytest.mark.parametrize("wrong", ["narrow", "wide"])
def test_wrong_widths_are_caught(wrong: str) -> None:
    assert _rejected(WRONG[wrong], "informed") >= 0.95


def test_shifts_are_caught() -> None:
    """Balls see shifts less well than widths; ranks of parameters see them better."""
    assert _rejected(WRONG["shifted"], "prior") >= 0.5
    assert _rejected(WRONG["shifted"], "informed") >= 0.5


def _prior_as_posterior(references: Callable[[Array, Array], Array]) -> float:
    sets, theta = normal_sets(300, 3)
    rng = np.random.default_rng(4)
    draws = PRIOR.sample(300 * DRAWS, rng).reshape(300, DRAWS, 2)
    return tarp(draws, theta, references(sets.means, theta), rng).test.p_value


def test_only_references_that_know_the_events_catch_the_prior() -> None:
    rng = np.random.default_rng(5)
    assert _prior_as_posterior(lambda _, theta: PRIOR.sample(len(theta), rng)) > 0.05
    assert _prior_as_posterior(lambda y, theta: informed_references(y, theta, rng)) < 1e-6


def test_references_do_not_know_their_own_truth() -> None:
    """Noise as summaries: predictions by the other half do not lean towards the truth."""
    rng = np.random.default_rng(6)
    theta, noise = rng.normal(size=(400, 2)), rng.normal(size=(400, 20))
    means = crossfitted_means(noise, theta, rng)
    slope = (means * (theta - theta.mean(axis=0))).sum() / np.sqrt(
        np.square(means).sum() * np.square(theta).sum()
    )
    assert abs(slope) < 0.12


def test_units_of_the_parameters_do_not_matter() -> None:
    sets, theta = normal_sets(50, 7)
    draws = sets.draws(30, np.random.default_rng(1))
    points, units = PRIOR.sample(50, np.random.default_rng(2)), np.array([1e3, 1e-3])
    one = tarp(draws, theta, points, np.random.default_rng(3))
    two = tarp(draws * units, theta * units, points * units, np.random.default_rng(3))
    np.testing.assert_allclose(one.fractions, two.fractions)
    np.testing.assert_allclose(one.curve.shares, two.curve.shares)


RNG = np.random.default_rng(1)
ERRORS = {
    "draws": (
        lambda: tarp(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)), RNG),
        ShapeError,
        "expected draws (S, L, p)",
    ),
    "one truth": (
        lambda: tarp(np.zeros((3, 4, 2)), np.zeros((3, 2)), np.zeros((3, 2)), RNG),
        EventDataError,
        "columns that vary over the sets",
    ),
    "too few sets": (
        lambda: informed_references(np.zeros((10, 5)), np.zeros((10, 2)), RNG),
        EventDataError,
        "at least 24 sets for 5 summaries, got 10",
    ),
    "summaries": (
        lambda: informed_references(np.zeros(10), np.zeros((10, 2)), RNG),
        ShapeError,
        "expected summaries (S, k)",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
