"""Many climbs at once: maxima, limits, saddles, and intervals' crossings."""

import numpy as np
import pytest

from mflow_sbi.intervals.climbing import climb, hesse_errors
from mflow_sbi.intervals.crossings import intervals_below, refine_crossings
from mflow_sbi.intervals.parameters import region_of
from mflow_sbi.intervals.sets import SeparateSets, as_sets, with_slopes
from mflow_sbi.intervals.starts import even_points, starts_of_sets
from mflow_sbi.intervals.toys import highest_points

from .toys import Closed, NormalSets, ValuesOnly, covariance, normal, two_wells


@pytest.mark.parametrize("p", [1, 3])
def test_a_normal_likelihood_is_climbed_from_anywhere(p):
    mean, matrix = np.linspace(-1, 1, p), covariance(p)
    sets, region = as_sets(normal(mean, matrix)), region_of("abc"[:p])
    starts = np.random.default_rng(1).normal(scale=3, size=(40, 1, p))
    ends = climb(sets, starts, region)
    assert ends.converged.all()
    np.testing.assert_allclose(ends.points, np.broadcast_to(mean, (40, 1, p)), atol=1e-5)
    errors = hesse_errors(sets, ends.points[:1], region)[0, 0]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(matrix)), rtol=1e-3)


def test_each_data_set_has_its_own_maximum():
    means = np.random.default_rng(2).normal(size=(200, 2))
    ends = climb(NormalSets(means, n=9), np.zeros((1, 200, 2)), region_of("ab"))
    np.testing.assert_allclose(ends.points[0], means, atol=1e-6)


def test_a_bent_valley_is_followed():
    def value(t):
        return -0.5 * (t[:, 0] ** 2 + 400 * (t[:, 1] - t[:, 0] ** 2) ** 2)

    def slope(t):
        bend = t[:, 1] - t[:, 0] ** 2
        return np.stack([-t[:, 0] + 800 * bend * t[:, 0], -400 * bend], axis=1)

    ends = climb(
        as_sets(Closed("ab", value, slope)), np.array([[[2.0, -2.0]], [[-2, 3]]]), region_of("ab")
    )
    assert ends.converged.all()
    np.testing.assert_allclose(ends.points, 0, atol=1e-4)


def test_at_a_limit_the_others_are_at_their_conditional_best():
    matrix = np.array([[1.0, 0.8], [0.8, 1.0]])
    ends = climb(
        as_sets(normal([2.0, 0.0], matrix)),
        np.array([[[-1.0, -1.0]], [[1.0, 1.0]]]),
        region_of("ab", {"a": (-3, 1)}),
    )
    assert ends.converged.all()
    np.testing.assert_allclose(ends.points[:, 0], [[1, -0.8], [1, -0.8]], atol=1e-5)


def test_a_saddle_and_a_minimum_are_left():
    ends = climb(as_sets(two_wells()), np.zeros((1, 1, 1)), region_of("a"))
    assert abs(ends.points[0, 0, 0]) == pytest.approx(1, abs=1e-4)


def test_held_parameters_stay():
    ends = climb(
        as_sets(normal([2.0, 0.0], np.eye(2))),
        np.array([[[5.0, 5.0]]]),
        region_of("ab", fixed={"b": 5.0}),
    )
    np.testing.assert_allclose(ends.points[0, 0], [2, 5], atol=1e-5)


def test_where_there_is_no_likelihood_nothing_moves():
    wall = Closed(
        "a", lambda t: np.where(t[:, 0] > 0, -t[:, 0], -np.inf), lambda t: -np.ones_like(t)
    )
    ends = climb(as_sets(wall), np.array([[[-1.0]], [[1.0]]]), region_of("a"))
    assert ends.points[0, 0, 0] == -1
    assert not ends.converged[0, 0]
    assert ends.values[1, 0] > -1e-3


def test_sets_without_slopes_are_climbed_by_differences():
    likelihoods = [normal([x, -x], covariance(2)) for x in (0.1, 0.5)]
    sets = as_sets([ValuesOnly(x) for x in likelihoods])
    assert isinstance(sets, SeparateSets)
    ends = climb(sets, np.zeros((1, 2, 2)), region_of("ab"))
    np.testing.assert_allclose(ends.points[0], [[0.1, -0.1], [0.5, -0.5]], atol=1e-4)


def test_slopes_by_differences_are_slopes():
    likelihood, theta = normal([0.1, -0.1], covariance(2)), np.array([[0.3, 0.2], [-1.0, 2.0]])
    known = likelihood.value_and_gradient(theta)
    found = with_slopes(as_sets(ValuesOnly(likelihood)), np.full(2, 1e-3))
    values, slopes = found.slopes_at_own_points(theta[:, None])
    np.testing.assert_allclose(values[:, 0], known[0])
    np.testing.assert_allclose(slopes[:, 0], known[1], rtol=1e-8)
    np.testing.assert_allclose(found(theta)[:, 0], known[0])


def test_starts_stand_apart():
    region = region_of("a", {"a": (-2, 2)})
    points = even_points(region, 80)
    starts = starts_of_sets(as_sets(two_wells(tilt=0.1)), region, points, keep=2)[:, 0, 0]
    np.testing.assert_allclose(starts, [1, 0.9], atol=0.1)
    assert 0.05 < abs(starts[0] - starts[1]) < 0.11  # neighbours stand 0.05 apart


def test_the_highest_of_narrow_maxima_is_found_for_every_set():
    """The best of the even points is often nearer to the lower maximum."""
    wells = [two_wells(place, height=300, tilt=0.5) for place in np.linspace(0.8, 1.6, 25)]
    ends = highest_points(as_sets(wells), region_of("a", {"a": (-3, 2.7)}))
    assert (ends.points > 0.5).all()


def test_crossings_are_zeros():
    low, high = np.array([0.0, 1.0, 3.0]), np.array([1.0, 3.0, 3.5])

    def function(x):
        return (x - 0.3) * (x - 2.9) * (x - 3.01) * np.exp(x)

    ends = refine_crossings(low, high, function(low), function(high), function)
    np.testing.assert_allclose(ends, [0.3, 2.9, 3.01], atol=1e-4)


def test_a_crossing_beside_a_cliff_is_found():
    def function(x):
        return np.where(x < 2, x - 1.99, np.inf)

    ends = refine_crossings(
        np.zeros(1), np.full(1, 5.0), np.full(1, -1.99), np.full(1, np.inf), function
    )
    assert function(ends)[0] == pytest.approx(0, abs=1e-3) or ends[0] == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([1, -1, 1, 1, -1], [(0.5, 1.5, False, False), (3.5, 4, False, True)]),
        ([-1, -1, 1, 1, 1], [(0, 1.5, True, False)]),
        ([-1, -1, -1, -1, -1], [(0, 4, True, True)]),
        ([1, 1, 1, 1, 1], []),
    ],
)
def test_all_crossings_become_intervals(heights, expected):
    parts = intervals_below(np.arange(5.0), np.array(heights, dtype=float))
    assert [(p.low, p.high, p.low_open, p.high_open) for p in parts] == expected
