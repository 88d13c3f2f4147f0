"""Profile likelihood intervals and contours: closed forms, invariance, disjoint and open ones."""

import numpy as np
import pytest
from scipy.stats import chi2

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.intervals import maximise, profile
from mflow_sbi.intervals.contours import contour_of

from .toys import Closed, covariance, normal, two_wells

WIDE = dict.fromkeys("abc", (-4.0, 4.0))


@pytest.mark.parametrize("level", [0.6827, 0.95])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_of_a_normal_likelihood_intervals_are_marginal(p, level):
    mean, matrix = np.linspace(-0.5, 0.5, p), covariance(p)
    limits = {name: WIDE[name] for name in "abc"[:p]}
    found = profile(normal(mean, matrix), "a", limits).intervals(level)
    reach = np.sqrt(chi2.ppf(level, 1) * matrix[0, 0])
    assert not found.is_open
    np.testing.assert_allclose(found.hull, [mean[0] - reach, mean[0] + reach], atol=1e-4 * reach)


def test_profile_is_zero_at_the_maximum_and_nowhere_below():
    scan = profile(normal([0.1, 0.2], covariance(2)), "b", WIDE_AB)
    assert scan.statistic.min() == pytest.approx(0, abs=1e-5)
    assert scan.remarks == ()
    np.testing.assert_allclose(scan.maximum, [0.1, 0.2], atol=1e-3)


def test_all_crossings_of_two_wells_are_found():
    height, level = 4.0, 0.95
    found = profile(two_wells(height=height), "a", {"a": (-3, 3)}).intervals(level)
    depth = np.sqrt(chi2.ppf(level, 1) / (2 * height))  # |a^2 - 1| on the border
    ends = np.sqrt([1 - depth, 1 + depth])
    parts = [(part.low, part.high) for part in found.parts]
    np.testing.assert_allclose(parts, [(-ends[1], -ends[0]), (ends[0], ends[1])], atol=1e-4)
    assert found.contains(-1)
    assert not found.contains(0)


def test_a_well_that_the_maximum_does_not_know_is_seen_by_the_scan():
    likelihood = two_wells(tilt=0.5)
    lower = maximise(likelihood, [-0.9], limits={"a": (-3, 3)})
    scan = profile(likelihood, "a", {"a": (-3, 3)}, maximum=lower)
    assert scan.maximum[0] > 0
    assert "above the maximum" in scan.remarks[0]
    assert scan.statistic.min() == 0


def test_narrow_peaks_in_wide_limits_are_resolved():
    found = profile(normal([0.4321], np.array([[1e-8]])), "a", {"a": (-100, 100)}).intervals()
    np.testing.assert_allclose(found.hull, [0.4320, 0.4322], atol=2e-8)


def test_intervals_beyond_the_limits_are_open_and_say_so():
    found = profile(normal([0.0], np.eye(1)), "a", {"a": (-0.5, 4)}).intervals()
    assert found.is_open
    assert found.parts[0].low_open
    assert not found.parts[0].high_open
    assert found.hull == pytest.approx((-0.5, 1), abs=1e-3)
    assert "open below -0.5" in str(found)


def test_intervals_do_not_depend_on_the_parametrisation():
    """phi = (exp(a), b + a^3) is another name for theta: intervals are images of each other."""
    mean, matrix = np.array([0.3, -0.2]), covariance(2)
    theta = normal(mean, matrix)

    def back(phi):
        a = np.log(phi[:, 0])
        return np.stack([a, phi[:, 1] - a**3], axis=1)

    def slope(phi):
        t = back(phi)
        g = theta.value_and_gradient(t)[1]
        a = (g[:, 0] - 3 * t[:, 0] ** 2 * g[:, 1]) / phi[:, 0]
        return np.stack([a, g[:, 1]], axis=1)

    phi = Closed("ab", lambda x: theta(back(x)), slope)
    plain = profile(theta, "a", WIDE_AB)
    named = profile(phi, "a", {"a": (np.exp(-4), np.exp(4)), "b": (-80, 80)})
    for level in (0.6827, 0.95):
        np.testing.assert_allclose(
            named.intervals(level).hull, np.exp(plain.intervals(level).hull), rtol=1e-4
        )


def test_neighbours_lead_the_others_along_a_ridge():
    """Far from the maximum, only the path along the ridge ends on its top (b = a)."""

    def value(t):
        away = t[:, 1] - t[:, 0]
        return 30 * (np.cos(3 * away) - 1) - 0.05 * away**2 - 0.05 * t[:, 0] ** 2

    def slope(t):
        away = t[:, 1] - t[:, 0]
        pull = -90 * np.sin(3 * away) - 0.1 * away
        return np.stack([-pull - 0.1 * t[:, 0], pull], axis=1)

    limits = {"a": (-6, 6), "b": (-10, 10)}
    ridge = Closed("ab", value, slope)
    alone = maximise(ridge, [0.0, 0.0], limits=limits)
    scan = profile(ridge, "a", limits, maximum=alone)
    np.testing.assert_allclose(scan.statistic, 0.1 * scan.axes[0] ** 2, atol=1e-4)
    np.testing.assert_allclose(scan.points[:, 1], scan.axes[0], atol=1e-3)


def test_held_parameters_are_not_profiled():
    matrix = np.array([[1.0, 0.6], [0.6, 1.0]])
    found = profile(normal([0.0, 0.0], matrix), "a", WIDE_AB, fixed={"b": 0.0}).intervals()
    assert found.hull == pytest.approx((-0.8, 0.8), abs=1e-4)


@pytest.mark.parametrize("p", [2, 3])
def test_contours_of_a_normal_likelihood_are_ellipses(p):
    mean, matrix = np.linspace(-0.5, 0.5, p), covariance(p)
    limits = {name: WIDE[name] for name in "abc"[:p]}
    scan = profile(normal(mean, matrix), ("a", "b"), limits)
    block = matrix[:2, :2]
    for level in (0.6827, 0.95):
        contour = scan.contour(level)
        reach = chi2.ppf(level, 2)
        assert not contour.is_open
        assert contour.area == pytest.approx(
            np.pi * reach * np.sqrt(np.linalg.det(block)), rel=0.02
        )
        (line,) = contour.lines
        np.testing.assert_array_equal(line[0], line[-1])
        away = line - mean[:2]
        heights = np.einsum("ki,ij,kj->k", away, np.linalg.inv(block), away)
        np.testing.assert_allclose(np.sqrt(heights / reach), 1, atol=0.03)
        inside = mean[:2] + 0.99 * away[::20]
        assert scan.contains(inside, level).all()
        assert not scan.contains(mean[:2] + 1.05 * away[::20], level).any()


def test_a_ring_has_two_borders_and_two_wells_two_rings():
    ring = Closed(
        "ab",
        lambda t: -8 * (np.square(t).sum(axis=1) - 1) ** 2,
        lambda t: -32 * (np.square(t).sum(axis=1, keepdims=True) - 1) * t,
    )
    depth = np.sqrt(chi2.ppf(0.95, 2) / 16)
    contour = profile(ring, ("a", "b"), {"a": (-2, 2), "b": (-2, 2)}).contour(0.95)
    assert len(contour.lines) == 2
    assert contour.area == pytest.approx(2 * np.pi * depth, rel=0.03)
    wells = Closed(
        "ab",
        lambda t: -8 * (t[:, 0] ** 2 - 1) ** 2 - 20 * t[:, 1] ** 2,
        lambda t: np.stack([-32 * (t[:, 0] ** 2 - 1) * t[:, 0], -40 * t[:, 1]], axis=1),
    )
    assert len(profile(wells, ("a", "b"), WIDE_AB).contour(0.6827).lines) == 2


def test_contours_of_linear_functions_are_exact_and_may_be_open():
    axes = (np.array([0.0, 0.4, 1.0, 2.0]), np.array([0.0, 0.3, 1.0]))
    x, y = np.meshgrid(*axes, indexing="ij")
    contour = contour_of(("a", "b"), 0.95, axes, x + y - 0.75)
    assert contour.area == pytest.approx(0.5 * 0.75**2)
    assert contour.is_open
    (line,) = contour.lines
    np.testing.assert_allclose(line.sum(axis=1), 0.75)
    np.testing.assert_allclose(np.sort(line[[0, -1]], axis=0), [[0, 0], [0.75, 0.75]], atol=1e-12)
    assert contour_of(("a", "b"), 0.95, axes, x + 1).lines == ()


WIDE_AB = {"a": (-4.0, 4.0), "b": (-4.0, 4.0)}
TWO = normal([0.0, 0.0], np.eye(2))
SCAN = profile(TWO, "a", WIDE_AB)
ERRORS = {
    "unknown": (lambda: profile(TWO, "A", WIDE_AB), IntervalError, "among"),
    "twice": (lambda: profile(TWO, ("a", "a"), WIDE_AB), IntervalError, "two different"),
    "three": (lambda: profile(TWO, ("a", "b", "a"), WIDE_AB), IntervalError, "one parameter or"),
    "fixed": (lambda: profile(TWO, "a", WIDE_AB, fixed={"a": 0}), IntervalError, "fixed at 0"),
    "no limits": (lambda: profile(TWO, "a", {"b": (0, 1)}), IntervalError, "finite limits of a"),
    "unordered": (
        lambda: profile(TWO, "a", WIDE_AB, axes=[np.array([1.0, 0.0])]),
        ShapeError,
        "increasing",
    ),
    "contour of one": (lambda: SCAN.contour(), IntervalError, "two parameters"),
    "level": (lambda: SCAN.intervals(1.0), IntervalError, "between 0 and 1"),
    "intervals of two": (
        lambda: profile(TWO, ("a", "b"), WIDE_AB).intervals(),
        IntervalError,
        "one parameter",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
