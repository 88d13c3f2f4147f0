"""Coverage and Neyman's construction, where the answers are known."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from mflow_sbi.errors import IntervalError, ParameterRangeError, ShapeError
from mflow_sbi.inference import CachedEventSets
from mflow_sbi.intervals import (
    LEVELS,
    Coverage,
    NeymanBelt,
    SeparateSets,
    Wilks,
    expected_intervals,
    likelihood_ratios,
    neyman_belt,
    profile,
    toy_coverage,
)
from mflow_sbi.intervals.parameters import region_of

from .toys import Closed, NormalSets, ValuesOnly, normal, normal_toys

ONE = {"a": (-10.0, 10.0)}
WIDE = {"a": (-10.0, 10.0), "b": (-10.0, 10.0)}


@pytest.mark.parametrize("parameters", [None, ["a"], ["b"]])
def test_wilks_covers_exactly_where_means_are_normal(parameters):
    study = toy_coverage(
        normal_toys(25),
        (0.3, -0.4),
        WIDE,
        np.random.default_rng(1),
        names="ab",
        n_toys=4000,
        parameters=parameters,
    )
    assert study.levels == LEVELS
    assert np.abs(study.pull).max() < 3
    expected = np.sqrt(np.array([0.6827 * 0.3173, 0.05 * 0.95]) / 4000)
    np.testing.assert_allclose(study.error, expected, rtol=0.1)


def test_the_statistic_is_that_of_closed_form():
    means = np.random.default_rng(3).normal(size=(50, 2))
    sets, theta = NormalSets(means, n=4), np.array([0.2, 0.1])
    both = likelihood_ratios(sets, theta, ["a", "b"], region_of("ab", WIDE))
    np.testing.assert_allclose(both, 4 * np.square(means - theta).sum(axis=1), atol=1e-5)
    one = likelihood_ratios(sets, theta, ["b"], region_of("ab", WIDE))
    np.testing.assert_allclose(one, 4 * np.square(means - theta)[:, 1], atol=1e-5)


def test_held_parameters_are_held_in_toys():
    means = np.random.default_rng(3).normal(size=(50, 2))
    region = region_of("ab", WIDE, {"b": 1.0})
    found = likelihood_ratios(NormalSets(means, n=4), np.array([0.2, 1.0]), ["a"], region)
    np.testing.assert_allclose(found, 4 * np.square(means[:, 0] - 0.2), atol=1e-5)


SQUARED = {"a": (-3.0, 3.0)}  # x ~ N(a^2, 1/n): the maximum is at 0 for half of all toys at 0


def test_where_only_squares_tell_wilks_fails_and_neyman_holds():
    """At a = 0, q = 0 for half of the toys, chi^2 for the others: Wilks covers 84%, 97.5%."""
    simulate = normal_toys(10, power=2)

    def study(construction, seed):
        return toy_coverage(
            simulate,
            (0.0,),
            SQUARED,
            np.random.default_rng(seed),
            names="a",
            n_toys=3000,
            construction=construction,
        )

    wilks = study(Wilks(), 1)
    np.testing.assert_allclose(wilks.fraction, [0.5 + 0.6827 / 2, 0.975], atol=0.02)
    assert wilks.pull[0] > 10
    axes = {"a": np.array([-0.3, 0.0, 0.3])}
    belt = neyman_belt(simulate, axes, SQUARED, np.random.default_rng(2), names="a", n_toys=6000)
    toys = study(belt, 3)
    error = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) * (1 / 3000 + 1 / 6000))
    assert (np.abs(toys.fraction - LEVELS) < 3 * error).all()
    np.testing.assert_allclose(
        belt.threshold(np.zeros((1, 1)), 0.95), norm.ppf(0.95) ** 2, atol=3 * 0.1
    )


def _feldman_cousins(mu: float, level: float) -> float:
    """Threshold of q at mu >= 0 for one x ~ N(mu, 1), by physics/9711021, section IV."""

    def missing(c: float) -> float:
        high = mu + np.sqrt(c)
        # R(x) = exp(-c / 2): x = mu - sqrt(c), or (mu^2 - c) / (2 mu) if that is below zero
        low = mu - np.sqrt(c) if c < mu**2 else (mu**2 - c) / (2 * mu)
        return float(norm.cdf(high - mu) - norm.cdf(low - mu) - level)

    return float(np.asarray(brentq(missing, 1e-6, 30)))


def test_a_mean_that_cannot_be_negative_has_feldman_and_cousins_intervals():
    limits, axis = {"a": (0.0, 8.0)}, np.linspace(0, 4, 21)
    belt = neyman_belt(
        normal_toys(1), {"a": axis}, limits, np.random.default_rng(4), names="a", n_toys=3000
    )
    inner = axis[1:, None]
    expected = [_feldman_cousins(mu, 0.95) for mu in axis[1:]]
    pulls = (belt.threshold(inner, 0.95) - expected) / belt.threshold_error(inner, 0.95)
    assert np.abs(pulls).max() < 4
    assert abs(pulls.mean()) < 4 / np.sqrt(20)
    for x in (-1.0, 0.5, 2.0):
        observed = SeparateSets([normal([x], np.eye(1))]).likelihoods[0]
        scan = profile(observed, "a", {"a": (0.0, 4.0)}, axes=[np.linspace(0, 4, 81)])
        interval = scan.intervals(0.95, belt)
        top = max(x, 0.0)

        def excluded(mu: float, x: float = x, top: float = top) -> float:
            return (x - mu) ** 2 - (x - top) ** 2 - _feldman_cousins(mu, 0.95)

        assert interval.hull[1] == pytest.approx(brentq(excluded, top + 0.1, 9), abs=0.1)
        assert interval.parts[0].low_open == (excluded(1e-3) < 0)


def test_belt_values_are_quantiles_and_p_values_shares():
    statistics = np.arange(1.0, 101.0)[None] * np.array([[1.0], [2.0]])
    belt = NeymanBelt(("a",), (np.array([0.0, 1.0]),), statistics)
    psi = np.array([[0.0], [0.5], [1.0]])
    np.testing.assert_allclose(belt.threshold(psi, 0.9), [90, 135, 180])
    np.testing.assert_allclose(belt.p_value(psi[[0, 2]], np.array([91.0, 21.0])), [0.1, 0.9])
    assert belt.threshold_error(psi[:1], 0.9)[0] == pytest.approx(3, abs=1)


def test_belts_of_two_parameters_make_contours():
    axis = np.linspace(-1, 1, 3)
    belt = neyman_belt(
        normal_toys(25),
        {"a": axis, "b": axis},
        WIDE,
        np.random.default_rng(4),
        names="ab",
        n_toys=2000,
    )
    assert belt.statistics.shape == (3, 3, 2000)
    np.testing.assert_allclose(
        belt.threshold(np.zeros((1, 2)), 0.6827), chi2.ppf(0.6827, 2), rtol=0.1
    )
    inside = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    scan = profile(normal([0.0, 0.0], 0.04 * np.eye(2)), ("a", "b"), inside)
    area = scan.contour(0.6827, belt).area
    assert area == pytest.approx(np.pi * 0.04 * chi2.ppf(0.6827, 2), rel=0.12)


def test_other_parameters_are_where_the_observation_puts_them():
    asked = []

    def simulate(theta, n_toys, rng):
        asked.append(theta.copy())
        return normal_toys(25)(theta, n_toys, rng)

    covariance = np.array([[0.04, 0.03], [0.03, 0.04]])
    scan = profile(normal([0.5, 0.0], covariance), "a", WIDE, axes=[np.array([0.0, 0.5, 1.0])])
    belt = neyman_belt(
        simulate,
        {"a": scan.axes[0]},
        WIDE,
        np.random.default_rng(5),
        names="ab",
        n_toys=500,
        points=scan.points,
    )
    np.testing.assert_allclose(asked, [[0, -0.375], [0.5, 0], [1, 0.375]], atol=1e-3)
    assert belt.threshold(np.array([[0.5]]), 0.6827)[0] == pytest.approx(1, abs=0.2)


def test_belts_tell_how_far_they_are():
    told = []
    neyman_belt(
        normal_toys(25),
        {"a": np.array([0.0, 1.0])},
        {"a": (-3, 3)},
        np.random.default_rng(5),
        names="a",
        n_toys=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]


def test_expected_intervals_of_normal_means():
    toys = expected_intervals(
        normal_toys(25), (0.3, 0.0), "a", WIDE, np.random.default_rng(6), names="ab", n_toys=400
    )
    reach = 0.2 * np.sqrt(chi2.ppf(0.95, 1))
    np.testing.assert_allclose(np.diff(toys.ends, axis=1), 2 * reach, rtol=0.01)
    error = 1.25 * 0.2 / np.sqrt(400)
    np.testing.assert_allclose(toys.median, [0.3 - reach, 0.3 + reach], atol=4 * error)
    np.testing.assert_allclose(np.diff(toys.band, axis=1), 0.4, rtol=0.2)
    assert toys.disjoint_share == 0
    assert toys.to_dict()["n_toys"] == 400


class _Learned:
    """x ~ N((a, b), 1) in single precision, as a surrogate knows it."""

    parameter_names = ("a", "b")
    parameter_ranges = np.array([[-10.0, 10.0], [-10.0, 10.0]])

    def encode(self, x):
        return torch.as_tensor(x, dtype=torch.float32)

    def latent_log_likelihood(self, u, theta):
        return -0.5 * (u - theta).square().sum(dim=-1)


def test_learned_likelihoods_of_sets_serve_as_toys():
    def simulate(theta, n_toys, rng):
        return CachedEventSets(_Learned(), list(theta + rng.normal(size=(n_toys, 20, 2))))

    study = toy_coverage(
        simulate, (0.3, 0.1), WIDE, np.random.default_rng(7), names="ab", n_toys=400
    )
    assert np.abs(study.pull).max() < 3


def test_lists_of_likelihoods_serve_as_toys():
    def simulate(theta, n_toys, rng):
        means = theta + 0.2 * rng.normal(size=(n_toys, 1))
        return [ValuesOnly(normal(mean, 0.04 * np.eye(1))) for mean in means]

    limits = {"a": (-3.0, 3.0)}
    study = toy_coverage(simulate, (0.3,), limits, np.random.default_rng(7), names="a", n_toys=200)
    assert np.abs(study.pull).max() < 3


def _cover(**changes):
    given = {
        "simulate": normal_toys(4),
        "theta": (0.0,),
        "limits": {"a": (-1, 1)},
        "rng": np.random.default_rng(1),
        "names": "a",
        "n_toys": 2,
    }
    return toy_coverage(**(given | changes))


BELT = NeymanBelt(("a",), (np.array([0.0, 1.0]),), np.ones((2, 10)))
NOWHERE = Closed("a", lambda t: np.full(len(t), -np.inf), np.zeros_like)
ERRORS = {
    "no limits": (lambda: _cover(limits={}), IntervalError, "finite limits of a"),
    "truth outside": (lambda: _cover(theta=(2.0,)), IntervalError, "got 2"),
    "unknown": (lambda: _cover(parameters=["b"]), IntervalError, "free parameters"),
    "none": (lambda: _cover(parameters=[]), IntervalError, "one or more"),
    "no toys": (lambda: _cover(n_toys=0), IntervalError, "at least one"),
    "other names": (
        lambda: _cover(names="b", limits={"b": (0, 1)}),
        IntervalError,
        "expected para",
    ),
    "level": (lambda: _cover(levels=[68]), IntervalError, "between 0 and 1"),
    "no likelihood": (
        lambda: _cover(simulate=lambda theta, n, rng: [NOWHERE] * n),
        IntervalError,
        "data set 0",
    ),
    "no sets": (lambda: _cover(simulate=lambda theta, n, rng: []), IntervalError, "at least one"),
    "nonsense": (lambda: _cover(simulate=lambda theta, n, rng: ["x"]), ShapeError, "likelihood"),
    "points missing": (
        lambda: neyman_belt(
            normal_toys(4), {"a": np.array([0.0, 1.0])}, WIDE, np.random.default_rng(1), names="ab"
        ),
        IntervalError,
        "where the others",
    ),
    "beside the belt": (
        lambda: BELT.threshold(np.array([[2.0]]), 0.5),
        ParameterRangeError,
        "toys were generated",
    ),
    "too few toys": (
        lambda: BELT.threshold(np.array([[0.5]]), 0.95),
        IntervalError,
        "more than 20 toys",
    ),
    "belt of another shape": (
        lambda: NeymanBelt(("a",), (np.array([0.0, 1.0]),), np.ones((3, 10))),
        ShapeError,
        "statistics",
    ),
    "expected of a held one": (
        lambda: expected_intervals(
            normal_toys(4),
            (0.0, 0.0),
            "a",
            WIDE,
            np.random.default_rng(1),
            names="ab",
            fixed={"a": 0.0},
        ),
        IntervalError,
        "fixed",
    ),
    "no expected toys": (
        lambda: expected_intervals(
            normal_toys(4),
            (0.0,),
            "a",
            {"a": (0, 1)},
            np.random.default_rng(1),
            names="a",
            n_toys=0,
        ),
        IntervalError,
        "at least one",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_coverage_is_plain_numbers():
    record = Coverage((0.5,), (5,), 10).to_dict()
    assert record["coverage"] == [0.5]
    assert record["error"] == pytest.approx([np.sqrt(0.025)])
