"""The likelihood of an observation: shape, rate, mixtures, weights; laws and refusals."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import poisson

from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.cross_section import CrossSection, UncertainCrossSection
from mflow_sbi.inference.event_densities import FixedDensity, density_at
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.mixture import Component
from mflow_sbi.inference.observation import (
    CountingLikelihood,
    ExtendedLikelihood,
    ShapeLikelihood,
)
from mflow_sbi.inference.rates import (
    FixedYield,
    FreeYield,
    LinearFactor,
    LogNormalFactor,
    ProductRate,
    RateModel,
    RemainingFraction,
)
from mflow_sbi.inference.reduction import fix_parameters
from mflow_sbi.interfaces import (
    Array,
    DifferentiableEventwiseLikelihood,
    DifferentiableLikelihood,
)

from .differences import central_differences
from .toys import NAMES, QUADRATIC, CurvedSurrogate, LinearSurrogate

THETA = np.random.default_rng(2).normal(scale=0.7, size=(23, 2))
SM = np.zeros(2)


@pytest.fixture
def exact(quadratic: tuple[Array, Array]) -> MorphingLikelihood:
    return MorphingLikelihood(NAMES, QUADRATIC, *quadratic, measure="bins")


@pytest.fixture
def sigma(quadratic: tuple[Array, Array]) -> CrossSection:
    return CrossSection(NAMES, QUADRATIC, quadratic[1], 0.02 * np.abs(quadratic[1]))


@pytest.fixture
def signal_rate(sigma: CrossSection) -> RateModel:
    return RateModel(sigma, luminosity=1e-3)


@pytest.fixture
def weights() -> Array:
    return np.random.default_rng(8).uniform(0.1, 3, size=60)


@pytest.fixture
def observations(
    exact: MorphingLikelihood,
    sigma: CrossSection,
    signal_rate: RateModel,
    weights: Array,
    observed: Array,
) -> dict[str, DifferentiableLikelihood]:
    standard = Component("standard", density_at(exact, SM), FreeYield("b"))
    shifted = fix_parameters(exact, {"CPWL2": 0.7})
    systematic = RateModel(
        UncertainCrossSection(sigma, "mc"), 1e-3, 0.5, (LogNormalFactor("lumi", 1.1),)
    )
    third = ProductRate((FixedYield(12.0), LinearFactor("scale", 0.1)))
    fraction = (
        Component("signal", exact, RemainingFraction(("f",))),
        Component("standard", density_at(exact, SM), FreeYield("f")),
    )
    learned = CachedLikelihood(CurvedSurrogate(), observed, 7)
    elsewhere = Component("elsewhere", density_at(learned, np.array([0.3, -0.4])), FreeYield("b"))
    return {
        "shape": ShapeLikelihood((Component("signal", exact),)),
        "shape, weights": ShapeLikelihood((Component("signal", exact),), weights),
        "shape and rate": ExtendedLikelihood((Component("signal", exact, signal_rate),)),
        "shape and rate, weights": ExtendedLikelihood(
            (Component("s", exact, signal_rate),), weights
        ),
        "background": ExtendedLikelihood(
            (Component("signal", exact, signal_rate), standard), weights
        ),
        "everything": ExtendedLikelihood(
            (
                Component("signal", exact, systematic),
                standard,
                Component("shifted", shifted, third),
            )
        ),
        "fraction": ShapeLikelihood(fraction),
        "free background, shape": ShapeLikelihood(
            (Component("signal", exact, FixedYield(40.0)), standard), weights
        ),
        "mixture of mixtures": ShapeLikelihood(
            (Component("inner", ShapeLikelihood(fraction)), Component("signal", exact)), weights
        ),
        "learned": ExtendedLikelihood((Component("signal", learned, FreeYield("s")), elsewhere)),
        "rate": CountingLikelihood((systematic, FreeYield("b")), n=17),
    }


CASES = (
    "shape",
    "shape, weights",
    "shape and rate",
    "shape and rate, weights",
    "background",
    "everything",
    "fraction",
    "free background, shape",
    "mixture of mixtures",
    "learned",
    "rate",
)


@pytest.fixture(params=CASES)
def observation(
    request: pytest.FixtureRequest, observations: dict[str, DifferentiableLikelihood]
) -> DifferentiableLikelihood:
    assert tuple(observations) == CASES
    return observations[request.param]


def _points(names: Sequence[str], n: int = 23) -> Array:
    """Return points with small theory parameters and yields and fractions that are positive."""
    rng = np.random.default_rng(3)
    columns = {"b": (5, 15), "s": (5, 15), "f": (0.1, 0.9)}
    bounds = np.array([columns.get(name, (-0.8, 0.8)) for name in names])
    return rng.uniform(bounds[:, 0], bounds[:, 1], size=(n, len(names)))


def test_gradient_is_the_derivative(observation: DifferentiableLikelihood) -> None:
    theta = _points(observation.parameter_names)
    values, gradients = observation.value_and_gradient(theta)
    np.testing.assert_allclose(values, observation(theta), rtol=1e-12)
    assert values.dtype == gradients.dtype == np.float64
    np.testing.assert_allclose(
        gradients, central_differences(observation, theta), rtol=1e-7, atol=1e-7
    )


def test_no_points(observation: DifferentiableLikelihood) -> None:
    nothing = np.zeros((0, len(observation.parameter_names)))
    values, gradients = observation.value_and_gradient(nothing)
    assert (values.shape, gradients.shape) == ((0,), nothing.shape)
    assert isinstance(observation, DifferentiableLikelihood)


def test_order_of_names_is_that_of_first_appearance(
    observations: dict[str, DifferentiableLikelihood],
) -> None:
    assert observations["everything"].parameter_names == (*NAMES, "mc", "lumi", "b", "scale")


def test_extended_is_shape_plus_poisson(exact: MorphingLikelihood, signal_rate: RateModel) -> None:
    extended = ExtendedLikelihood((Component("signal", exact, signal_rate),))
    expected = exact(THETA) + poisson.logpmf(60, signal_rate(THETA))
    np.testing.assert_allclose(extended(THETA), expected, rtol=1e-12)
    count = CountingLikelihood((signal_rate,), 60)
    np.testing.assert_allclose(extended(THETA), exact(THETA) + count(THETA), rtol=1e-12)


def test_mixture_is_the_formula(exact: MorphingLikelihood, signal_rate: RateModel) -> None:
    """log Poisson(n|s + b) + sum_i log[s p_s + b p_b] - n log(s + b)."""
    background = density_at(exact, SM)
    likelihood = ExtendedLikelihood(
        (Component("signal", exact, signal_rate), Component("sm", background, FreeYield("b")))
    )
    points = np.column_stack([THETA, np.linspace(0, 50, len(THETA))])
    s, b = signal_rate(THETA)[:, None], points[:, 2:]
    sums = s * np.exp(exact.per_event(THETA)) + b * np.exp(exact.per_event(SM[None]))
    total = (s + b)[:, 0]
    expected = poisson.logpmf(60, total) + np.log(sums).sum(axis=1) - 60 * np.log(total)
    np.testing.assert_allclose(likelihood(points), expected, rtol=1e-12)
    np.testing.assert_allclose(likelihood.expected_events(points)["sm"], points[:, 2])
    shape = ShapeLikelihood(likelihood._mixture.components)
    np.testing.assert_allclose(
        shape(points), np.log(sums).sum(axis=1) - 60 * np.log(total), rtol=1e-12
    )


def test_densities_too_small_for_a_number_are_no_harm() -> None:
    """Terms lower by 5000 in all components: log L lower by 5000 n, slopes the same."""
    rng = np.random.default_rng(6)
    terms = rng.normal(size=(2, 30))
    points = rng.uniform(1, 9, size=(7, 2))

    def likelihood(shift: float) -> ExtendedLikelihood:
        names = ("s", "b")
        densities = [FixedDensity(row + shift, "x") for row in terms]
        return ExtendedLikelihood(
            [Component(n, d, FreeYield(n)) for n, d in zip(names, densities, strict=True)]
        )

    values, gradients = likelihood(0.0).value_and_gradient(points)
    for shift in (-5000.0, 5000.0):
        moved, slopes = likelihood(shift).value_and_gradient(points)
        np.testing.assert_allclose(moved, values + 30 * shift, rtol=1e-12)
        np.testing.assert_allclose(slopes, gradients, rtol=1e-9)


@pytest.mark.parametrize("kind", [ShapeLikelihood, ExtendedLikelihood])
def test_no_background_is_the_signal_alone(kind, exact, signal_rate) -> None:
    """mu_b = 0, and likewise a background fraction of zero."""
    signal = Component("signal", exact, signal_rate)
    background = density_at(exact, np.array([1.0, 1.0]))
    alone = kind((signal,))
    fixed = kind((signal, Component("sm", background, FixedYield(0.0))))
    free = kind((signal, Component("sm", background, FreeYield("b"))))
    np.testing.assert_allclose(fixed(THETA), alone(THETA), rtol=1e-12)
    for one, other in zip(
        fixed.value_and_gradient(THETA), alone.value_and_gradient(THETA), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    points = np.column_stack([THETA, np.zeros(len(THETA))])
    np.testing.assert_allclose(free(points), alone(THETA), rtol=1e-12)
    slope = free.value_and_gradient(points)[1][:, 2]
    ahead = [free(points + [0, 0, k * 1e-4]) for k in range(4)]
    one_sided = (-11 * ahead[0] + 18 * ahead[1] - 9 * ahead[2] + 2 * ahead[3]) / 6e-4
    np.testing.assert_allclose(slope, one_sided, rtol=1e-5)


def test_signal_fraction_one_is_the_signal(exact: MorphingLikelihood) -> None:
    background = density_at(exact, SM)
    free = ShapeLikelihood(
        (
            Component("signal", exact, RemainingFraction(("f",))),
            Component("sm", background, FreeYield("f")),
        )
    )
    none, all_of_it = (np.column_stack([THETA, np.full(len(THETA), f)]) for f in (0.0, 1.0))
    np.testing.assert_allclose(free(none), exact(THETA), rtol=1e-12)
    np.testing.assert_allclose(free(all_of_it), np.full(len(THETA), exact(SM[None])), rtol=1e-12)
    fixed = ShapeLikelihood(
        (Component("a", exact, FixedYield(0.8)), Component("b", background, FixedYield(0.2)))
    )
    fraction = np.column_stack([THETA, np.full(len(THETA), 0.2)])
    np.testing.assert_allclose(fixed(THETA), free(fraction), rtol=1e-12)


def test_weight_two_is_the_event_twice(
    quadratic: tuple[Array, Array], signal_rate: RateModel
) -> None:
    components, cross_section = quadratic
    times = np.random.default_rng(4).integers(1, 4, size=60)

    def likelihood(kind, rows: Array, weights: Array | None):
        exact = MorphingLikelihood(NAMES, QUADRATIC, rows, cross_section, measure="bins")
        background = Component("sm", density_at(exact, SM), FixedYield(9.0))
        return kind((Component("signal", exact, signal_rate), background), weights)

    for kind in (ShapeLikelihood, ExtendedLikelihood):
        weighted = likelihood(kind, components, times.astype(float))
        repeated = likelihood(kind, np.repeat(components, times, axis=0), None)
        assert weighted.sum_of_weights == repeated.n_events == times.sum()
        np.testing.assert_allclose(weighted(THETA), repeated(THETA), rtol=1e-12)


@pytest.mark.parametrize("observation", CASES[:-1], indirect=True)
def test_weights_of_one_change_nothing(observation: DifferentiableLikelihood) -> None:
    assert isinstance(observation, ShapeLikelihood | ExtendedLikelihood)
    components = observation._mixture.components
    plain, ones = (type(observation)(components, w) for w in (None, np.ones(observation.n_events)))
    theta = _points(observation.parameter_names)
    np.testing.assert_allclose(plain(theta), ones(theta), rtol=1e-12, atol=1e-11)


def test_shape_is_eventwise(observations: dict[str, DifferentiableLikelihood]) -> None:
    """Its terms, weighted, sum to it; the pull of the weights is the gradient."""
    for name in ("shape", "fraction", "free background, shape", "mixture of mixtures"):
        shape = observations[name]
        assert isinstance(shape, DifferentiableEventwiseLikelihood)
        assert isinstance(shape, ShapeLikelihood)
        theta = _points(shape.parameter_names)
        terms, pull = shape.per_event_with_pull(theta)
        w = np.ones(60) if shape.weights is None else shape.weights
        np.testing.assert_allclose(terms @ w, shape(theta), rtol=1e-12)
        np.testing.assert_allclose(terms, shape.per_event(theta), rtol=1e-12)
        np.testing.assert_allclose(
            pull(np.broadcast_to(w, terms.shape)), shape.value_and_gradient(theta)[1], rtol=1e-9
        )


def test_zero_events_are_an_observation_of_a_rate(signal_rate: RateModel) -> None:
    """log L = -mu."""
    nothing = FlatLikelihood(NAMES)
    for likelihood in (
        ExtendedLikelihood((Component("signal", nothing, signal_rate),)),
        CountingLikelihood((signal_rate,), 0),
    ):
        assert likelihood.n_events == 0
        values, gradients = likelihood.value_and_gradient(THETA)
        np.testing.assert_allclose(values, -signal_rate(THETA))
        np.testing.assert_allclose(gradients, -signal_rate.value_and_gradient(THETA)[1])


def test_negative_yields_are_impossible(exact: MorphingLikelihood) -> None:
    nothing = FlatLikelihood(())
    parts = (
        Component("signal", exact, FixedYield(50.0)),
        Component("sm", density_at(exact, SM), FreeYield("b")),
    )
    for likelihood, n_before in (
        (ExtendedLikelihood(parts), 2),
        (ShapeLikelihood(parts), 2),
        (ExtendedLikelihood((Component("nothing", nothing, FreeYield("b")),)), 0),
        (CountingLikelihood((FixedYield(5.0), FreeYield("b")), 3), 0),
    ):
        points = np.column_stack([np.zeros((2, n_before)), [3.0, -1.0]])
        for values in (likelihood(points), likelihood.value_and_gradient(points)[0]):
            assert np.isneginf(values).tolist() == [False, True]
        assert not likelihood.value_and_gradient(points)[1][1].any()


def test_terms_of_negative_fractions_are_impossible(
    observations: dict[str, DifferentiableLikelihood],
) -> None:
    fraction = observations["fraction"]
    assert isinstance(fraction, ShapeLikelihood)
    points = np.array([[0.0, 0.0, f] for f in (0.2, -0.1, 1.2)])
    for terms in (fraction.per_event(points), fraction.per_event_with_pull(points)[0]):
        assert np.isneginf(terms).all(axis=1).tolist() == [False, True, True]
        assert np.isneginf(terms).any(axis=1).tolist() == [False, True, True]


def test_an_event_that_nothing_explains_is_impossible(quadratic: tuple[Array, Array]) -> None:
    components, cross_section = quadratic
    rows = np.vstack([components, 0 * components[:1]])
    exact = MorphingLikelihood(NAMES, QUADRATIC, rows, cross_section)
    both = ExtendedLikelihood(
        (Component("s", exact, FreeYield("s")), Component("b", density_at(exact, SM)))
    )
    values, gradients = both.value_and_gradient(_points(both.parameter_names))
    assert np.isneginf(values).all()
    assert not gradients.any()


def test_all_yields_zero(exact: MorphingLikelihood) -> None:
    none = np.zeros((1, 3))
    signal = Component("signal", exact, FreeYield("s"))
    assert np.isneginf(ExtendedLikelihood((signal,))(none))
    assert np.isneginf(ShapeLikelihood((signal,))(none))
    assert np.isneginf(ShapeLikelihood((signal,), np.ones(60)).per_event(none)).all()
    nobody = ExtendedLikelihood((Component("none", FlatLikelihood(()), FreeYield("s")),))
    assert nobody(np.zeros((1, 1)))[0] == 0


def test_an_event_that_only_the_background_explains(quadratic: tuple[Array, Array]) -> None:
    components, cross_section = quadratic
    rows = np.vstack([components, 0 * components[:1]])
    signal = MorphingLikelihood(NAMES, QUADRATIC, rows, cross_section, measure="bins")
    assert np.isneginf(signal(THETA)).all()
    flat = FixedDensity(np.full(61, -np.log(12)), signal.event_measure)
    both = ExtendedLikelihood(
        (Component("signal", signal, FixedYield(50.0)), Component("flat", flat, FreeYield("b")))
    )
    points = np.column_stack([THETA, np.full(len(THETA), 6.0)])
    values, gradients = both.value_and_gradient(points)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(gradients, central_differences(both, points), rtol=1e-6, atol=1e-6)


def test_tells_ranges_units_and_events(exact: MorphingLikelihood, observed: Array) -> None:
    learned = CachedLikelihood(LinearSurrogate(), observed)
    likelihood = ExtendedLikelihood((Component("signal", learned, FreeYield("s")),))
    np.testing.assert_array_equal(likelihood.parameter_ranges[:2], learned.parameter_ranges)
    assert np.isinf(likelihood.parameter_ranges[2]).all()
    likelihood(np.array([[0, 0, 1], [3, 0, 1], [0, 0, 1e9]]))
    spent = likelihood.evaluations
    assert (spent.points, spent.outside_training_range) == (3, 1)
    assert likelihood.parameter_units == {"s": "1"}
    surrogate = LinearSurrogate()
    surrogate.parameter_units = {"CWL2": "TeV^-2"}  # pyright: ignore[reportAttributeAccessIssue]
    learned = CachedLikelihood(surrogate, observed)
    assert ShapeLikelihood((Component("s", learned),)).parameter_units == {"CWL2": "TeV^-2"}
    assert set(likelihood.observed) == {"x"}
    assert set(ShapeLikelihood((Component("s", exact),), np.ones(60)).observed) == {
        "components",
        "weights",
    }
