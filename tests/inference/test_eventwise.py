"""The terms of a likelihood, event by event: they sum to it, and so do their slopes."""

import numpy as np
import pytest

from mflow_sbi.errors import LikelihoodError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.interfaces import Array, DifferentiableEventwiseLikelihood, EventwiseLikelihood

from .differences import central_differences
from .toys import NAMES, QUADRATIC, BrokenSurrogate, CurvedSurrogate

THETA = np.random.default_rng(2).normal(size=(11, 2))


@pytest.fixture(params=["curved", "curved, small chunks", "exact", "flat"])
def likelihood(
    request: pytest.FixtureRequest, observed: Array, quadratic: tuple[Array, Array]
) -> DifferentiableEventwiseLikelihood:
    return {
        "curved": CachedLikelihood(CurvedSurrogate(), observed),
        "curved, small chunks": CachedLikelihood(CurvedSurrogate(), observed, 7),
        "exact": MorphingLikelihood(NAMES, QUADRATIC, *quadratic),
        "flat": FlatLikelihood(NAMES),
    }[request.param]


def test_terms_sum_to_the_likelihood(likelihood: DifferentiableEventwiseLikelihood) -> None:
    terms = likelihood.per_event(THETA)
    assert terms.shape == (len(THETA), likelihood.n_events)
    assert terms.dtype == np.float64
    np.testing.assert_allclose(terms.sum(axis=1), likelihood(THETA), rtol=1e-12, atol=1e-12)
    assert isinstance(likelihood, EventwiseLikelihood)
    assert isinstance(likelihood, DifferentiableEventwiseLikelihood)


def test_pull_of_ones_is_the_gradient(likelihood: DifferentiableEventwiseLikelihood) -> None:
    terms, pull = likelihood.per_event_with_pull(THETA)
    np.testing.assert_array_equal(terms, likelihood.per_event(THETA))
    expected = likelihood.value_and_gradient(THETA)[1]
    np.testing.assert_allclose(pull(np.ones_like(terms)), expected, rtol=1e-10, atol=1e-10)


def test_pull_is_the_derivative_of_a_function_of_the_terms(
    likelihood: DifferentiableEventwiseLikelihood,
) -> None:
    """d/dtheta of sum_i 9 sin(l_i / 9) is the pull of cos(l_i / 9)."""
    terms, pull = likelihood.per_event_with_pull(THETA)

    def total(theta: Array) -> Array:
        return 9 * np.sin(likelihood.per_event(theta) / 9).sum(axis=1)

    expected = central_differences(total, THETA)
    np.testing.assert_allclose(pull(np.cos(terms / 9)), expected, rtol=1e-7, atol=1e-7)


def test_events_without_density_pull_nothing(quadratic: tuple[Array, Array]) -> None:
    components, cross_section = quadratic
    some = MorphingLikelihood(NAMES, QUADRATIC, components, cross_section)
    more = MorphingLikelihood(
        NAMES, QUADRATIC, np.vstack([components, 0 * components[:1]]), cross_section
    )
    terms, pull = more.per_event_with_pull(THETA)
    assert np.isneginf(terms[:, -1]).all()
    g = np.ones_like(terms)
    g[:, -1] = 0.0
    np.testing.assert_allclose(pull(g), some.value_and_gradient(THETA)[1], rtol=1e-10)


def test_a_term_that_is_no_number_says_where(observed: Array) -> None:
    broken = CachedLikelihood(BrokenSurrogate(), observed)
    assert np.isneginf(broken.per_event(np.array([[-1.5, 0.0]]))).all()
    with pytest.raises(LikelihoodError, match=r"event: .* got nan at CWL2 = 1.5, CPWL2 = -0.25"):
        broken.per_event(np.array([[0.0, 0.0], [1.5, -0.25]]))
