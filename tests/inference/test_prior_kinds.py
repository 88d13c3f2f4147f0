"""Priors of every kind: they normalise, sample what they say, know their slopes and records."""

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.inference.priors import (
    BoxPrior,
    GaussianConstraint,
    HasSupport,
    LogNormalConstraint,
    LogNormalPrior,
    LogUniformPrior,
    NormalPrior,
    ProductPrior,
    RecordedPrior,
    TruncatedNormalPrior,
    UserPrior,
    prior_from_dict,
    support_of,
)
from mflow_sbi.interfaces import Array

from .differences import central_differences

LAPLACE = UserPrior(
    ("c",),
    density=lambda theta: np.log(0.5) - np.abs(theta[:, 0]),
    draw=lambda n, rng: rng.laplace(size=(n, 1)),
    limits=[[-16, 16]],
    ends=[[-np.inf, np.inf]],
    description="Laplace",
)
ONE = ("c",)
PRIORS: dict[str, RecordedPrior] = {
    "normal": NormalPrior(ONE, (0.5,), (0.3,)),
    "box": BoxPrior(ONE, (-1,), (2,)),
    "log-uniform": LogUniformPrior(ONE, (0.1,), (20,)),
    "log-normal": LogNormalPrior(ONE, (3,), (1.5,)),
    "truncated below": TruncatedNormalPrior(ONE, (0.5,), (1,), (0,), (np.inf,)),
    "truncated above": TruncatedNormalPrior(ONE, (0.5,), (1,), (-np.inf,), (1.2,)),
    "truncated twice": TruncatedNormalPrior(ONE, (0.5,), (1,), (-1,), (1.2,)),
    "truncated in the right tail": TruncatedNormalPrior(ONE, (0,), (1,), (9,), (np.inf,)),
    "truncated in the left tail": TruncatedNormalPrior(ONE, (0,), (1,), (-np.inf,), (-30,)),
    "not truncated": TruncatedNormalPrior(ONE, (0.5,), (0.3,), (-np.inf,), (np.inf,)),
    "user": LAPLACE,
    "Gaussian constraint": GaussianConstraint(ONE, (0.5,), (0.3,)),
    "log-normal constraint": LogNormalConstraint(ONE, (3,), (1.5,)),
}
each_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
BOTH = ProductPrior(
    (
        LogUniformPrior(("b",), (1,), (50,)),
        NormalPrior(("x", "y"), (0, 1), (1, 2)),
        TruncatedNormalPrior(("f",), (0,), (0.1,), (0,), (1,)),
        LAPLACE,
    ),
    ("x", "f", "y", "b", "c"),
)


def _density(prior: RecordedPrior, at: float) -> float:
    return float(np.exp(prior.log_prob(np.array([[at]])))[0])


@each_prior
def test_density_integrates_to_one_over_its_box(prior: RecordedPrior) -> None:
    ((low, high),) = prior.box()
    mass = quad(
        lambda at: _density(prior, at), low, high, epsabs=1e-9, points=[0.5 * (low + high)]
    )
    assert mass[0] == pytest.approx(1, abs=1e-6)


@each_prior
def test_draws_follow_the_density(prior: RecordedPrior) -> None:
    draws = prior.sample(5000, np.random.default_rng(7))
    np.testing.assert_array_equal(draws, prior.sample(5000, np.random.default_rng(7)))
    assert draws.shape == (5000, 1)
    assert np.isfinite(prior.log_prob(draws)).all()
    ((low, high),) = prior.box()
    edges = np.linspace(low, high, 20_001)
    centres = 0.5 * (edges[1:] + edges[:-1])
    mass = np.cumsum(np.exp(prior.log_prob(centres[:, None]))) * (edges[1] - edges[0])
    assert kstest(draws[:, 0], lambda at: np.interp(at, edges[1:], mass)).pvalue > 0.01


@each_prior
def test_support_holds_the_box_and_ends_where_the_density_does(prior: RecordedPrior) -> None:
    assert isinstance(prior, HasSupport)
    ((low, high),) = prior.box()
    ((first, last),) = support_of(prior)
    assert first <= low < high <= last
    for end, outwards in ((first, -1e-6), (last, 1e-6)):
        if np.isfinite(end):
            assert _density(prior, end - outwards) >= 0
            assert _density(prior, end + outwards) == 0
            assert np.isneginf(prior.log_prob(np.array([[end + outwards]])))
            assert prior.gradient(np.array([[end + outwards]])) == 0


@each_prior
def test_gradient_is_the_derivative(prior: RecordedPrior) -> None:
    ((low, high),) = prior.box()
    theta = low + (high - low) * np.linspace(0.0213, 0.979, 30)[:, None]
    expected = central_differences(prior.log_prob, theta, 1e-4 * (high - low))
    np.testing.assert_allclose(prior.gradient(theta), expected, rtol=1e-5, atol=1e-6)


@each_prior
def test_record_round_trip(prior: RecordedPrior) -> None:
    record = json.loads(json.dumps(prior.to_dict(), allow_nan=False))
    if prior is LAPLACE:
        with pytest.raises(ConfigurationError, match="user-defined prior cannot be made"):
            prior_from_dict(record)
    else:
        assert prior_from_dict(record) == prior


@each_prior
def test_theta_of_wrong_shape_and_no_points(prior: RecordedPrior) -> None:
    assert prior.log_prob(np.zeros((0, 1))).shape == (0,)
    assert prior.gradient(np.zeros((0, 1))).shape == (0, 1)
    for call in (prior.log_prob, prior.gradient):
        with pytest.raises(ShapeError, match=r"expected shape \(M, 1\), got \(1,\)"):
            call(np.zeros(1))


def test_normal_truncated_far_out_is_the_conditional_density() -> None:
    for name, sign in (("truncated in the right tail", 1), ("truncated in the left tail", -1)):
        prior = PRIORS[name]
        edge = 9 if sign > 0 else 30
        theta = sign * (edge + np.linspace(0, 0.3, 7)[:, None])
        expected = norm.logpdf(theta[:, 0]) - norm.logsf(edge)
        np.testing.assert_allclose(prior.log_prob(theta), expected, rtol=1e-10)
    very_far = TruncatedNormalPrior(ONE, (0,), (1,), (45,), (46,))
    assert very_far.log_prob(np.array([[45.0]]))[0] == pytest.approx(
        norm.logpdf(45) - norm.logsf(45), rel=1e-10
    )
    whole = PRIORS["not truncated"]
    theta = np.linspace(-1, 2, 9)[:, None]
    np.testing.assert_allclose(whole.log_prob(theta), PRIORS["normal"].log_prob(theta))
    np.testing.assert_allclose(whole.box(), PRIORS["normal"].box(), rtol=1e-9)


def test_product_is_the_sum_of_its_parts_in_the_order_asked_for() -> None:
    theta = BOTH.sample(50, np.random.default_rng(2))
    assert tuple(BOTH.parameter_names) == ("x", "f", "y", "b", "c")
    b, xy, f, c = BOTH.parts
    expected = (
        b.log_prob(theta[:, [3]])
        + xy.log_prob(theta[:, [0, 2]])
        + f.log_prob(theta[:, [1]])
        + c.log_prob(theta[:, [4]])
    )
    np.testing.assert_allclose(BOTH.log_prob(theta), expected, rtol=1e-14)
    inside = theta[(theta[:, 1] > 0.01) & (theta[:, 3] > 1.1) & (np.abs(theta[:, 4]) > 0.01)]
    np.testing.assert_allclose(
        BOTH.gradient(inside), central_differences(BOTH.log_prob, inside, 1e-4), rtol=1e-5
    )
    outside = theta[:1] * [1, -1, 1, 1, 1]
    assert np.isneginf(BOTH.log_prob(outside))
    assert not BOTH.gradient(outside).any()
    np.testing.assert_allclose(BOTH.box()[[3, 0]], [[1, 50], [-5, 5]])
    np.testing.assert_allclose(BOTH.support()[1:3], [[0, 1], [-np.inf, np.inf]])


def test_draws_of_a_product_are_those_of_its_parts() -> None:
    draws = BOTH.sample(5000, np.random.default_rng(3))
    assert kstest(draws[:, 0], norm(0, 1).cdf).pvalue > 0.01
    assert kstest(draws[:, 2], norm(1, 2).cdf).pvalue > 0.01
    assert kstest(np.log(draws[:, 3]) / np.log(50), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.05


def test_record_of_a_product() -> None:
    parts = PRIORS["box"], NormalPrior(("x", "y"), (0, 1), (1, 2))
    product = ProductPrior(parts, ("x", "c", "y"))
    record = json.loads(json.dumps(product.to_dict()))
    assert prior_from_dict(record) == product
    assert prior_from_dict(record) != ProductPrior(product.parts)
    del record["parameter_names"]
    assert tuple(prior_from_dict(record).parameter_names) == ("c", "x", "y")
    with pytest.raises(ConfigurationError, match="user-defined"):
        prior_from_dict(BOTH.to_dict())


def test_slopes_of_a_user_prior_may_be_supplied() -> None:
    given = UserPrior(ONE, LAPLACE.density, LAPLACE.draw, [[-16, 16]], lambda t: -np.sign(t))
    theta = np.array([[0.3], [-2.0]])
    np.testing.assert_array_equal(given.gradient(theta), -np.sign(theta))
    np.testing.assert_allclose(LAPLACE.gradient(theta), -np.sign(theta), rtol=1e-9)


def test_slopes_beside_the_edge_of_a_user_prior() -> None:
    """exp(-theta) for theta > 0: the slope is -1 up to the edge, zero beyond it."""

    def density(theta: Array) -> Array:
        return np.where(theta[:, 0] >= 0, -theta[:, 0], -np.inf)

    prior = UserPrior(ONE, density, lambda n, rng: rng.exponential(size=(n, 1)), [[0, 15]])
    slopes = prior.gradient(np.array([[0.0], [1e-5], [3.0], [-1.0]]))[:, 0]
    np.testing.assert_allclose(slopes, [-1, -1, -1, 0], rtol=1e-8)


ERRORS = {
    "log-uniform from zero": (lambda: LogUniformPrior(ONE, (0,), (1,)), "positive"),
    "log-uniform empty": (lambda: LogUniformPrior(ONE, (2,), (1,)), "low < high"),
    "median zero": (lambda: LogNormalPrior(ONE, (0,), (2,)), "median: expected positive"),
    "kappa one": (lambda: LogNormalPrior(ONE, (1,), (1,)), "above one"),
    "limits crossed": (
        lambda: TruncatedNormalPrior(ONE, (0,), (1,), (1,), (0,)),
        "limits of c: expected low < high",
    ),
    "limit NaN": (lambda: TruncatedNormalPrior(ONE, (0,), (1,), (np.nan,), (0,)), "low < high"),
    "std zero": (lambda: TruncatedNormalPrior(ONE, (0,), (0,), (1,), (2,)), "std: .* positive"),
    "limits too few": (lambda: TruncatedNormalPrior(ONE, (0,), (1,), (), (0,)), "one number per"),
    "no parts": (lambda: ProductPrior(()), "at least one"),
    "a parameter of two parts": (
        lambda: ProductPrior((PRIORS["box"], PRIORS["normal"])),
        r"every name once, got \['c'\]",
    ),
    "order of other names": (
        lambda: ProductPrior((PRIORS["box"],), ("x",)),
        r"order of \['c'\], got \['x'\]",
    ),
    "parts no list": (
        lambda: prior_from_dict({"kind": "product", "parts": "ab"}),
        "list of priors",
    ),
    "product with a field too many": (
        lambda: prior_from_dict({"kind": "product", "parts": [], "mean": 0}),
        "with parts and perhaps",
    ),
    "user limits": (
        lambda: UserPrior(ONE, LAPLACE.density, LAPLACE.draw, [[1, 1]]),
        "prior limits: expected",
    ),
    "user limits infinite": (
        lambda: UserPrior(ONE, LAPLACE.density, LAPLACE.draw, [[0, np.inf]]),
        "finite",
    ),
    "user density NaN": (
        lambda: UserPrior(ONE, lambda t: t[:, 0] * np.nan, LAPLACE.draw, [[0, 1]]).log_prob(
            np.zeros((2, 1))
        ),
        "2 NaN",
    ),
    "user density of another shape": (
        lambda: UserPrior(ONE, lambda t: t, LAPLACE.draw, [[0, 1]]).log_prob(np.zeros((2, 1))),
        r"shape \(2, 1\)",
    ),
    "user draws of another shape": (
        lambda: UserPrior(
            ONE, LAPLACE.density, lambda n, rng: rng.normal(size=n), [[0, 1]]
        ).sample(3, np.random.default_rng(1)),
        r"shape \(3, 1\), got shape \(3,\)",
    ),
    "user slopes of another shape": (
        lambda: UserPrior(
            ONE, LAPLACE.density, LAPLACE.draw, [[0, 1]], lambda t: t[:, 0]
        ).gradient(np.zeros((2, 1))),
        r"slopes of shape \(2, 1\)",
    ),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()
