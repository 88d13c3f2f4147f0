"""Fixed and renamed parameters, and densities with the constants of their events."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.errors import ConfigurationError, LikelihoodError, ParameterRangeError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.event_densities import FixedDensity, density_at, normalised
from mflow_sbi.inference.likelihood import MorphingLikelihood
from mflow_sbi.inference.mixture import Component, HasWeights
from mflow_sbi.inference.observation import ExtendedLikelihood, ShapeLikelihood
from mflow_sbi.inference.rates import FreeYield
from mflow_sbi.inference.reduction import (
    FixedEventwiseParameters,
    FixedParameters,
    fix_parameters,
    rename_parameters,
)
from mflow_sbi.interfaces import Array, DifferentiableEventwiseLikelihood, EventwiseLikelihood

from .differences import central_differences
from .toys import NAMES, QUADRATIC, LinearSurrogate

THETA = np.random.default_rng(2).normal(size=(11, 2))


@pytest.fixture
def exact(quadratic: tuple[Array, Array]) -> MorphingLikelihood:
    return MorphingLikelihood(NAMES, QUADRATIC, *quadratic, parameter_units={"CWL2": "TeV^-2"})


@pytest.mark.parametrize("name", NAMES)
def test_fixed_likelihood_is_a_slice(exact: MorphingLikelihood, name: str) -> None:
    likelihood = fix_parameters(exact, {name: 0.3})
    k = NAMES.index(name)
    whole = THETA.copy()
    whole[:, k] = 0.3
    free = THETA[:, [1 - k]]
    assert likelihood.parameter_names == (NAMES[1 - k],)
    np.testing.assert_array_equal(likelihood(free), exact(whole))
    np.testing.assert_array_equal(likelihood.per_event(free), exact.per_event(whole))
    values, gradients = likelihood.value_and_gradient(free)
    np.testing.assert_allclose(values, exact(whole))
    np.testing.assert_allclose(gradients, central_differences(likelihood, free), rtol=1e-7)
    terms, pull = likelihood.per_event_with_pull(free)
    np.testing.assert_allclose(pull(np.ones_like(terms)), gradients, rtol=1e-9)
    assert (likelihood.n_events, likelihood.fixed) == (60, {name: 0.3})
    assert set(likelihood.observed) == {"components"}


def test_an_eventwise_likelihood_stays_so_and_others_do_not_become_so(
    exact: MorphingLikelihood,
) -> None:
    extended = ExtendedLikelihood((Component("signal", exact, FreeYield("s")),))
    assert isinstance(fix_parameters(exact, {"CWL2": 0.0}), FixedEventwiseParameters)
    fixed = fix_parameters(extended, {"CWL2": 0.0})
    assert isinstance(fixed, FixedParameters)
    assert not isinstance(fixed, EventwiseLikelihood)
    theta = np.array([[0.2, 50.0]])
    assert fixed.parameter_names == ("CPWL2", "s")
    assert fixed(theta) == extended(np.array([[0.0, 0.2, 50.0]]))


def test_weights_are_not_forgotten(exact: MorphingLikelihood) -> None:
    weights = np.linspace(1, 2, 60)
    shape = fix_parameters(ShapeLikelihood((Component("s", exact),), weights), {"CWL2": 0.0})
    assert isinstance(shape, HasWeights)
    np.testing.assert_array_equal(shape.weights, weights)
    with pytest.raises(ConfigurationError, match="unweighted"):
        ShapeLikelihood((Component("s", shape),))


def test_renamed_likelihood_is_the_same(exact: MorphingLikelihood) -> None:
    renamed = rename_parameters(exact, {"CWL2": "cW"})
    assert renamed.parameter_names == ("cW", "CPWL2")
    assert renamed.parameter_units == {"cW": "TeV^-2"}
    np.testing.assert_array_equal(renamed(THETA), exact(THETA))
    swapped = rename_parameters(exact, {"CWL2": "CPWL2", "CPWL2": "CWL2"})
    assert swapped.parameter_names == ("CPWL2", "CWL2")
    np.testing.assert_array_equal(swapped(THETA), exact(THETA))


def test_ranges_go_with_the_names(observed: Array) -> None:
    learned = CachedLikelihood(LinearSurrogate(), observed)
    likelihood = rename_parameters(fix_parameters(learned, {"CWL2": 1.0}), {"CPWL2": "a"})
    np.testing.assert_array_equal(likelihood.parameter_ranges, [[-2.0, 2.0]])
    likelihood(np.array([[0.0], [3.0]]))
    assert likelihood.evaluations.outside_training_range == 1
    with pytest.raises(ParameterRangeError, match=r"CWL2 = 2.5: .* \[-2, 2\]"):
        fix_parameters(learned, {"CWL2": 2.5})


ERRORS = {
    "unknown": (
        lambda exact: fix_parameters(exact, {"CBL2": 0.0}),
        r"unknown parameters \['CBL2'\]; expected some of",
    ),
    "unknown to rename": (
        lambda exact: rename_parameters(exact, {"CBL2": "b"}),
        r"unknown parameters \['CBL2'\]",
    ),
    "nothing left": (
        lambda exact: fix_parameters(exact, dict.fromkeys(NAMES, 0.0)),
        "at least one .* to stay free",
    ),
    "NaN": (lambda exact: fix_parameters(exact, {"CWL2": np.nan}), "finite value, got nan"),
    "names clash": (lambda exact: rename_parameters(exact, {"CWL2": "CPWL2"}), "every name once"),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(exact: MorphingLikelihood, call, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call(exact)


def test_density_at_a_point(exact: MorphingLikelihood) -> None:
    density = density_at(exact, THETA[0])
    nothing = np.zeros((3, 0))
    assert isinstance(density, DifferentiableEventwiseLikelihood)
    np.testing.assert_allclose(density(nothing), np.repeat(exact(THETA[:1]), 3))
    np.testing.assert_array_equal(density.per_event(nothing)[2], exact.per_event(THETA[:1])[0])
    terms, pull = density.per_event_with_pull(nothing)
    assert pull(np.ones_like(terms)).shape == nothing.shape
    for bad in (np.nan, np.inf):
        with pytest.raises(LikelihoodError, match="number or -inf"):
            FixedDensity(np.array([0.0, bad]), "x")
    with pytest.raises(ShapeError, match=r"expected shape \(N,\)"):
        FixedDensity(np.zeros((2, 2)), "x")


class NormalSurrogate(LinearSurrogate):
    """x / 10 | theta ~ N(A theta, 1), whose terms leave out a multiple of |x|."""

    def __init__(self, left_out: float) -> None:
        super().__init__()
        self.left_out = left_out

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        terms = -0.5 * (u - theta @ self.slope.T).square().sum(dim=-1)
        return terms + self.left_out * torch.linalg.vector_norm(u, dim=-1)

    def log_prob(self, x: Array, theta: Array) -> Array:
        """Normalised in x, ambient."""
        away = x / 10 - theta @ self.slope.numpy().T
        return -0.5 * np.square(away).sum(axis=1) - 2 * np.log(2 * np.pi) - 4 * np.log(10)


def test_normalised_densities_of_two_surrogates_mix(observed: Array) -> None:
    """Two surrogates that leave out different things are one density when normalised."""
    mixed: list[DifferentiableEventwiseLikelihood] = []
    for left_out in (0.3, -1.2):
        surrogate = NormalSurrogate(left_out)
        terms = CachedLikelihood(surrogate, observed)
        log_prob = lambda at, s=surrogate: s.log_prob(observed, at)  # noqa: E731
        mixed.append(normalised(terms, log_prob, THETA[:3], "ambient, GeV"))
    signal, background = mixed
    expected = np.stack([NormalSurrogate(0).log_prob(observed, at) for at in THETA])
    for density in mixed:
        np.testing.assert_allclose(density.per_event(THETA), expected, rtol=1e-12)
        np.testing.assert_allclose(density(THETA), expected.sum(axis=1), rtol=1e-12)
        values, gradients = density.value_and_gradient(THETA)
        np.testing.assert_allclose(values, expected.sum(axis=1), rtol=1e-12)
        terms, pull = density.per_event_with_pull(THETA)
        np.testing.assert_allclose(terms, expected, rtol=1e-12)
        np.testing.assert_allclose(pull(np.ones_like(terms)), gradients, rtol=1e-9)
    both = ShapeLikelihood(
        (
            Component("signal", signal, FreeYield("s")),
            Component("background", rename_parameters(background, {n: n + "_b" for n in NAMES})),
        )
    )
    point = np.array([[*THETA[0], 1.0, *THETA[1]]])
    sums = np.exp(expected[0]) + np.exp(expected[1])
    assert both(point)[0] == pytest.approx(np.log(sums / 2).sum())


def test_a_log_density_of_something_else_is_refused(observed: Array) -> None:
    terms = CachedLikelihood(NormalSurrogate(0.3), observed)
    other = NormalSurrogate(0.3)
    with pytest.raises(LikelihoodError, match="differ by a constant of each event"):
        normalised(terms, lambda at: other.log_prob(observed + 1, at), THETA[:2], "x")
    with pytest.raises(LikelihoodError, match="vary by nan"):
        normalised(terms, lambda at: at[0] * np.full(20, np.nan), THETA[:2], "x")
    with pytest.raises(ShapeError, match="at least two points"):
        normalised(terms, lambda at: other.log_prob(observed, at), THETA[:1], "x")
