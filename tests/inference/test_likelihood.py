"""Exact and flat likelihoods of a set of events, and the protocols of all likelihoods."""

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.likelihood import (
    CountsEvaluations,
    FlatLikelihood,
    MorphingLikelihood,
    ObservedData,
)
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, EncodedLikelihood, Likelihood

from .toys import NAMES, QUADRATIC, LinearSurrogate

THETA = np.random.default_rng(2).normal(size=(37, 2))


def test_morphing_likelihood_is_the_formula(quadratic: tuple[Array, Array]) -> None:
    components, cross_section = quadratic
    w = QUADRATIC.weights(THETA)
    expected = np.log(w @ components.T / (w @ cross_section)[:, None]).sum(axis=1)
    likelihood = MorphingLikelihood(NAMES, QUADRATIC, components, cross_section)
    np.testing.assert_allclose(likelihood(THETA), expected, rtol=1e-12)


def test_event_without_density_gives_minus_infinity(quadratic: tuple[Array, Array]) -> None:
    components, cross_section = quadratic
    components = np.vstack([components, np.zeros(6)])
    likelihood = MorphingLikelihood(NAMES, QUADRATIC, components, cross_section)
    assert np.all(likelihood(THETA) == -np.inf)


def test_flat_likelihood_is_zero() -> None:
    flat = FlatLikelihood(NAMES)
    assert flat.n_events == 0
    np.testing.assert_array_equal(flat(THETA), np.zeros(37))


def test_protocols(observed: Array, quadratic: tuple[Array, Array]) -> None:
    surrogate = LinearSurrogate()
    assert isinstance(surrogate, EncodedLikelihood)
    cached = CachedLikelihood(surrogate, observed)
    exact = MorphingLikelihood(NAMES, QUADRATIC, *quadratic)
    assert isinstance(cached, CountsEvaluations)
    for likelihood in (cached, exact):
        assert isinstance(likelihood, Likelihood)
        assert isinstance(likelihood, DifferentiableLikelihood)
        assert isinstance(likelihood, ObservedData)
    assert isinstance(FlatLikelihood(NAMES), DifferentiableLikelihood)


ERRORS = {
    "components of another basis": (
        lambda: MorphingLikelihood(NAMES, QUADRATIC, np.ones((2, 5)), np.ones(6)),
        ShapeError,
    ),
    "cross section of another basis": (
        lambda: MorphingLikelihood(NAMES, QUADRATIC, np.ones((2, 6)), np.ones(5)),
        ShapeError,
    ),
    "names of another basis": (
        lambda: MorphingLikelihood(("CWL2",), QUADRATIC, np.ones((2, 6)), np.ones(6)),
        ShapeError,
    ),
    "no components": (
        lambda: MorphingLikelihood(NAMES, QUADRATIC, np.ones((0, 6)), np.ones(6)),
        EventDataError,
    ),
}


@pytest.mark.parametrize(("call", "error"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error) -> None:
    with pytest.raises(error, match="expected"):
        call()
