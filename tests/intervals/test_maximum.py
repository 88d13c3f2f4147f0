"""The maximum of a likelihood and its errors, against closed forms."""

import numpy as np
import pytest
import torch

from mflow_sbi.errors import IntervalError, LikelihoodError, ShapeError
from mflow_sbi.inference import BoxPrior, CachedLikelihood, FlatLikelihood
from mflow_sbi.intervals import maximise, starts_from_prior, starts_in_box
from mflow_sbi.intervals.parameters import region_of
from mflow_sbi.intervals.starts import even_points

from .toys import Closed, ValuesOnly, covariance, normal, two_wells


@pytest.mark.parametrize("p", [1, 2, 4])
def test_of_a_normal_likelihood_hesse_and_minos_are_its_covariance(p):
    mean, matrix = np.linspace(-1, 2, p), covariance(p)
    fit = maximise(normal(mean, matrix), np.zeros(p))
    assert fit.valid
    assert fit.remarks == ()
    np.testing.assert_allclose(fit.values, mean, atol=1e-4)
    np.testing.assert_allclose(fit.covariance, matrix, rtol=1e-3, atol=1e-6)
    std = np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(fit.minos, np.stack([-std, std], axis=1), rtol=2e-3)
    assert fit.log_likelihood == pytest.approx(0, abs=1e-6)


def test_minos_errors_grow_with_the_level():
    fit = maximise(normal([0.5], np.array([[0.04]])), [0.0], level=0.95)
    np.testing.assert_allclose(fit.minos, [[-0.2 * 1.95996, 0.2 * 1.95996]], rtol=2e-3)


def test_held_parameters_condition_the_others():
    mean, matrix = np.array([0.3, -0.2, 0.7]), covariance(3)
    fit = maximise(normal(mean, matrix), np.zeros(3), fixed={"b": 0.1})
    kept, held = [0, 2], [1]
    pull = matrix[np.ix_(kept, held)] / matrix[1, 1]
    np.testing.assert_allclose(fit.values[kept], mean[kept] + pull[:, 0] * 0.3, atol=1e-4)
    conditional = matrix[np.ix_(kept, kept)] - pull @ matrix[np.ix_(held, kept)]
    np.testing.assert_allclose(fit.covariance[np.ix_(kept, kept)], conditional, rtol=1e-3)
    assert fit.values[1] == 0.1
    assert fit.std[1] == 0
    assert np.isnan(fit.minos[1]).all()
    np.testing.assert_allclose(np.diag(fit.correlation), [1, 0, 1])


def test_all_parameters_held_is_a_value():
    fit = maximise(normal([0.3], np.eye(1)), [0.0], fixed={"a": 1.3})
    assert fit.valid
    assert fit.log_likelihood == pytest.approx(-0.5)


def test_without_a_gradient_the_same_is_found():
    likelihood = normal([0.3, -0.2], covariance(2))
    with_slope, without = (maximise(x, [0.0, 0.0]) for x in (likelihood, ValuesOnly(likelihood)))
    np.testing.assert_allclose(without.values, with_slope.values, atol=1e-3)
    np.testing.assert_allclose(without.covariance, with_slope.covariance, rtol=1e-2)


def test_the_highest_of_two_maxima_is_found_from_many_starts():
    likelihood = two_wells(tilt=0.5)
    alone = maximise(likelihood, [-0.9])
    assert alone.values[0] < 0
    assert maximise(likelihood, [[-0.9], [0.9]]).values[0] > 0
    starts = starts_in_box(likelihood, {"a": (-3, 3)})
    fit = maximise(likelihood, starts, limits={"a": (-3, 3)})
    assert fit.values[0] > 0
    assert [np.sign(mode.values[0]) for mode in fit.modes] == [1, -1]
    gap = 2 * (fit.modes[0].log_likelihood - fit.modes[1].log_likelihood)
    assert gap == pytest.approx(2.0, abs=0.02)
    assert "1 further maxima" in fit.remarks[0]


@pytest.mark.parametrize(("tilt", "told"), [(0.5, True), (1.4, True), (1.6, False), (2.75, False)])
def test_further_maxima_are_told_where_intervals_may_reach_them(tilt, told):
    """2 Delta log L = 4 tilt beside 3.84 + 2: the 95 % level of one parameter, and a margin."""
    fit = maximise(two_wells(tilt=tilt), [[-0.9], [0.9]], limits={"a": (-3, 3)})
    assert len(fit.modes) == 2
    assert any("further maxima" in words for words in fit.remarks) == told


def test_starts_from_a_prior_find_both_maxima():
    prior = BoxPrior(("a",), (-3,), (3,))
    starts = starts_from_prior(two_wells(), prior, np.random.default_rng(1), keep=4)
    assert {-1.0, 1.0} <= set(np.sign(starts[:, 0]).tolist())
    assert len(maximise(two_wells(), starts).modes) == 2


def test_even_points_fill_the_limits_and_keep_held_values():
    region = region_of("abc", {"a": (-1, 1), "c": (0, 10)}, {"b": 5.0})
    points = even_points(region, 256)
    assert (points[:, 1] == 5).all()
    counts, *_ = np.histogram2d(points[:, 0], points[:, 2], bins=(4, 4), range=[[-1, 1], [0, 10]])
    assert counts.sum() >= 255  # the last edge is not in a bin
    assert counts.min() >= 14


def test_a_maximum_at_a_limit_is_remarked():
    fit = maximise(normal([0.5, 0.0], 0.04 * np.eye(2)), [0.0, 0.0], limits={"a": (None, 0.4)})
    assert fit.values[0] == pytest.approx(0.4, abs=1e-4)
    words = " ".join(fit.remarks)
    assert "a is at its upper limit 0.4" in words
    assert np.isnan(fit.minos[0, 1])
    assert fit.minos[1, 1] == pytest.approx(0.2, rel=1e-2)


def test_an_error_beyond_the_limits_is_open():
    fit = maximise(normal([0.0], np.eye(1)), [0.1], limits={"a": (-0.5, 4)})
    assert np.isnan(fit.minos[0, 0])
    assert fit.minos[0, 1] == pytest.approx(1, rel=1e-2)
    assert fit.remarks == ("MINOS lower error of a: no crossing inside the limits (open)",)
    assert fit.to_dict()["minos"][0][0] is None


def test_a_flat_direction_is_a_complaint():
    flat = Closed("ab", lambda t: -(t[:, 0] ** 2), lambda t: t * [-2, 0])
    fit = maximise(flat, [0.3, 0.3], limits={"b": (-1, 1)})
    assert not fit.valid
    assert any("flat" in words for words in fit.complaints)
    assert not maximise(FlatLikelihood(("a",)), [0.3], limits={"a": (-1, 1)}).valid


def test_a_likelihood_that_rises_without_end_is_a_complaint_and_nothing_is_printed(capfd):
    fit = maximise(Closed("a", lambda t: t[:, 0], np.ones_like), [0.3])
    assert "MIGRAD found no valid maximum" in fit.complaints[0]
    assert np.isfinite(fit.values).all()
    assert capfd.readouterr() == ("", "")


def test_errors_on_a_plateau_are_open():
    rising = Closed("a", lambda t: -1 / (1 + t[:, 0] ** 2), lambda t: 2 * t / (1 + t**2) ** 2)
    fit = maximise(rising, [3.0], limits={"a": (1, 1e6)})
    assert np.isnan(fit.minos).all()
    assert sum("open" in words for words in fit.remarks) == 2


class _Learned:
    """u = x, x ~ N((a, b, a + b), 1), single precision."""

    parameter_names = ("a", "b")
    parameter_ranges = np.array([[-2.0, 2.0], [-2.0, 2.0]])
    slope = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def encode(self, x):
        return torch.as_tensor(x, dtype=torch.float32)

    def latent_log_likelihood(self, u, theta):
        return -0.5 * (u - theta @ self.slope.T).square().sum(dim=-1)


@pytest.mark.parametrize("n", [20, 2000])
def test_single_precision_does_not_spoil_the_fit(n):
    x = np.random.default_rng(1).normal(size=(n, 3))
    fit = maximise(CachedLikelihood(_Learned(), x), [0.5, 0.5])
    a = _Learned.slope.double().numpy()
    expected = np.linalg.solve(a.T @ a, a.T @ x.mean(axis=0))
    matrix = np.linalg.inv(n * a.T @ a)
    assert fit.valid
    std = np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(fit.values, expected, atol=0.02 * std.min())
    np.testing.assert_allclose(fit.covariance, matrix, rtol=0.02)
    np.testing.assert_allclose(fit.minos, np.stack([-std, std], axis=1), rtol=0.02)


NARROW = Closed("a", lambda t: np.where(abs(t[:, 0]) < 1e-3, 0, -np.inf), np.zeros_like)
WELLS = two_wells()
ERRORS = {
    "unknown limit": (
        lambda: maximise(WELLS, [0.0], limits={"A": (0, 1)}),
        IntervalError,
        "among",
    ),
    "empty limit": (lambda: maximise(WELLS, [0.0], limits={"a": (1, 0)}), IntervalError, "low <"),
    "unknown fixed": (lambda: maximise(WELLS, [0.0], fixed={"b": 0}), IntervalError, "among"),
    "fixed NaN": (lambda: maximise(WELLS, [0.0], fixed={"a": np.nan}), IntervalError, "finite"),
    "start NaN": (lambda: maximise(WELLS, [np.nan]), IntervalError, "a: expected finite"),
    "start outside": (
        lambda: maximise(WELLS, [2.0], limits={"a": (0, 1)}),
        IntervalError,
        "got 2",
    ),
    "start of another length": (lambda: maximise(WELLS, [0.0, 1.0]), ShapeError, r"\(..., 1\)"),
    "no starts": (lambda: maximise(WELLS, np.zeros((0, 1))), ShapeError, "starts"),
    "no likelihood": (lambda: maximise(NARROW, [[0.5], [1.0]]), IntervalError, "all of 2 starts"),
    "no likelihood in the box": (
        lambda: starts_in_box(NARROW, {"a": (0.1, 1)}),
        IntervalError,
        "vanishes at all",
    ),
    "no box": (
        lambda: starts_in_box(WELLS, {"a": (0, None)}),
        IntervalError,
        "finite limits of a",
    ),
    "prior of others": (
        lambda: starts_from_prior(WELLS, BoxPrior(("b",), (0,), (1,)), np.random.default_rng(1)),
        IntervalError,
        "prior of",
    ),
    "level": (lambda: maximise(WELLS, [0.0], level=68.0), IntervalError, "between 0 and 1"),
    "NaN": (
        lambda: maximise(CachedLikelihood(_Broken(), np.zeros((1, 3))), [0.0, 0.0]),
        LikelihoodError,
        "got nan",
    ),
}


class _Broken(_Learned):
    def latent_log_likelihood(self, u, theta):
        return super().latent_log_likelihood(u, theta) * torch.nan


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
