"""What an observation refuses: NaN, weights, measures, numbers of events."""

import numpy as np
import pytest

from mflow_sbi.errors import (
    ConfigurationError,
    EventDataError,
    LikelihoodError,
    ParameterRangeError,
    ShapeError,
)
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.cross_section import CrossSection
from mflow_sbi.inference.event_densities import density_at
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.mixture import Component
from mflow_sbi.inference.observation import (
    CountingLikelihood,
    ExtendedLikelihood,
    ShapeLikelihood,
)
from mflow_sbi.inference.rates import FreeYield, RateModel
from mflow_sbi.interfaces import Array

from .toys import NAMES, QUADRATIC, BrokenSurrogate, LinearSurrogate

THETA = np.random.default_rng(2).normal(scale=0.7, size=(23, 2))
SM = np.zeros(2)


@pytest.fixture
def exact(quadratic: tuple[Array, Array]) -> MorphingLikelihood:
    return MorphingLikelihood(NAMES, QUADRATIC, *quadratic, measure="bins")


@pytest.fixture
def weights() -> Array:
    return np.random.default_rng(8).uniform(0.1, 3, size=60)


def test_a_value_that_is_no_number(observed: Array) -> None:
    broken = CachedLikelihood(BrokenSurrogate(), observed)
    likelihood = ExtendedLikelihood((Component("signal", broken, FreeYield("s")),))
    points = np.array([[0, 0, 9.0], [1.5, 0, 9.0]])
    for call in (likelihood, likelihood.value_and_gradient):
        with pytest.raises(LikelihoodError, match=r"CWL2 = 1.5, CPWL2 = 0"):
            call(points)
    rate_only = CountingLikelihood((FreeYield("s"),), 3)
    with pytest.raises(LikelihoodError, match="s = nan"):
        rate_only(np.array([[np.nan]]))
    with pytest.raises(LikelihoodError, match="s = nan"):
        ShapeLikelihood((Component("a", density_at(broken, SM), FreeYield("s")),))(
            np.array([[np.nan]])
        )


def test_cross_section_that_is_not_positive(exact: MorphingLikelihood) -> None:
    sigma = CrossSection(NAMES, QUADRATIC, np.array([-1.0, 0, 0, 0, 0, 0]))
    likelihood = ExtendedLikelihood((Component("signal", exact, RateModel(sigma, 1.0)),))
    with pytest.raises(ParameterRangeError, match="expected a positive one"):
        likelihood(THETA)


def test_refusals(exact: MorphingLikelihood, observed: Array, quadratic) -> None:
    signal = Component("signal", exact)
    other = MorphingLikelihood(NAMES, QUADRATIC, quadratic[0], quadratic[1], measure="masses")
    unnamed = MorphingLikelihood(NAMES, QUADRATIC, *quadratic)
    learned = CachedLikelihood(LinearSurrogate(), observed)
    again = CachedLikelihood(LinearSurrogate(), observed)
    elsewhere = CachedLikelihood(learned._events.surrogate, observed + 1)
    weighted = ShapeLikelihood((signal,), np.ones(60))
    refused = {
        "no components": ((), ConfigurationError, "at least one"),
        "one name twice": ((signal, signal), ConfigurationError, "every name once"),
        "two measures": (
            (signal, Component("b", other)),
            ConfigurationError,
            "signal and b: expected densities of one measure",
        ),
        "measures unknown": (
            (
                Component("a", unnamed),
                Component("b", MorphingLikelihood(NAMES, QUADRATIC, *quadratic)),
            ),
            ConfigurationError,
            "one measure",
        ),
        "two surrogates": (
            (Component("a", learned), Component("b", again)),
            ConfigurationError,
            "one measure",
        ),
        "no measure": (
            (Component("a", learned), Component("b", _Nameless(20))),  # type: ignore[arg-type]
            ConfigurationError,
            "does not say",
        ),
        "other events": (
            (Component("a", learned), Component("b", elsewhere)),
            ShapeError,
            "same 20 observed events",
        ),
        "another number": ((signal, Component("b", learned)), ShapeError, "same 60 observed"),
        "weights inside": ((Component("a", weighted),), ConfigurationError, "unweighted"),
        "no events": ((Component("a", FlatLikelihood(NAMES)),), EventDataError, "at least one"),
    }
    for components, error, words in refused.values():
        with pytest.raises(error, match=words):
            ShapeLikelihood(components)
    ShapeLikelihood((Component("a", unnamed), Component("b", density_at(unnamed, SM))))
    ShapeLikelihood((Component("a", learned), Component("b", density_at(learned, SM))))


class _Nameless:
    """Events of no known measure."""

    parameter_names = ()

    def __init__(self, n: int) -> None:
        self.n_events = n


def test_bad_weights(exact: MorphingLikelihood, weights: Array) -> None:
    signal = (Component("signal", exact),)
    negative, zero, broken = weights.copy(), weights.copy(), weights.copy()
    negative[[3, 5]] = -0.1
    zero[7] = 0
    broken[1] = np.nan
    for given, words in (
        (negative, "got 2 of 60 that are not .2 negative, 0 zero, 0 not finite"),
        (zero, "got 1 of 60 that are not .0 negative, 1 zero"),
        (broken, "got 1 of 60 that are not .0 negative, 0 zero, 1 not finite"),
    ):
        for kind in (ShapeLikelihood, ExtendedLikelihood):
            with pytest.raises(EventDataError, match=words):
                kind(signal, given)
    with pytest.raises(ShapeError, match=r"expected shape \(60,\)"):
        ShapeLikelihood(signal, weights[:5])


@pytest.mark.parametrize("n", [-1, np.nan, np.inf])
def test_impossible_counts(n: float) -> None:
    with pytest.raises(EventDataError, match="finite number >= 0"):
        CountingLikelihood((FreeYield("mu"),), n)
    with pytest.raises(ConfigurationError, match="at least one"):
        CountingLikelihood((), 1)
