"""Cached, exact and flat likelihoods of a set of events."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.inference.likelihood import (
    CachedLikelihood,
    CountsEvaluations,
    FlatLikelihood,
    MorphingLikelihood,
    ObservedData,
)
from mflow_sbi.interfaces import Array, EncodedLikelihood, Likelihood

from .toys import NAMES, QUADRATIC, LinearSurrogate

THETA = np.random.default_rng(2).normal(size=(37, 2))


def _uncached(surrogate: LinearSurrogate, x: Array, theta: Array) -> Array:
    """sum_i log p(x_i|theta), one point and one event at a time."""
    return np.array(
        [
            sum(
                float(
                    surrogate.latent_log_likelihood(
                        surrogate.encode(event[None]),
                        torch.as_tensor(point[None], dtype=surrogate.slope.dtype),
                    )[0]
                )
                for event in x
            )
            for point in theta
        ]
    )


@pytest.mark.parametrize("chunk_rows", [1, 7, 20, 50, 8192])
def test_cached_equals_uncached_whatever_the_chunk(observed: Array, chunk_rows: int) -> None:
    surrogate = LinearSurrogate()
    cached = CachedLikelihood(surrogate, observed, chunk_rows)(THETA)
    np.testing.assert_allclose(cached, _uncached(surrogate, observed, THETA), rtol=1e-12)
    assert surrogate.largest_batch <= chunk_rows


def test_log_ratio_in_float32_is_good_to_1e_5_per_nat(observed: Array) -> None:
    cached = CachedLikelihood(LinearSurrogate(torch.float32), observed)(THETA)
    exact = _uncached(LinearSurrogate(), observed, THETA)
    np.testing.assert_allclose(cached - cached[0], exact - exact[0], rtol=1e-5, atol=1e-4)


def test_observed_events_are_encoded_once(observed: Array) -> None:
    surrogate = LinearSurrogate()
    likelihood = CachedLikelihood(surrogate, observed)
    for _ in range(3):
        likelihood(THETA)
    assert surrogate.encoded == 1


def test_gradients_are_off(observed: Array) -> None:
    surrogate = LinearSurrogate()
    surrogate.slope.requires_grad_()
    assert isinstance(CachedLikelihood(surrogate, observed)(THETA), np.ndarray)


def test_points_outside_the_training_range_are_counted(observed: Array) -> None:
    likelihood = CachedLikelihood(LinearSurrogate(), observed)
    likelihood(np.array([[0, 0], [2, -2], [2.1, 0], [0, -3], [5, 5]]))
    likelihood(np.array([[0, 0], [3, 0]]))
    assert (likelihood.evaluations.points, likelihood.evaluations.outside_training_range) == (7, 4)


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
        assert isinstance(likelihood, ObservedData)
    assert isinstance(FlatLikelihood(NAMES), Likelihood)


class BrokenSurrogate(LinearSurrogate):
    """NaN for CWL2 > 1, -inf for CWL2 < -1."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        values = super().latent_log_likelihood(u, theta)
        values = torch.where(theta[:, 0] > 1, torch.nan, values)
        return torch.where(theta[:, 0] < -1, -torch.inf, values)


def test_nan_is_an_error_that_says_where_and_minus_infinity_is_not(observed: Array) -> None:
    likelihood = CachedLikelihood(BrokenSurrogate(), observed)
    assert likelihood(np.array([[-1.5, 0.0]]))[0] == -np.inf
    with pytest.raises(LikelihoodError, match=r"got nan at CWL2 = 1.5, CPWL2 = -0.25 \(1 of 2"):
        likelihood(np.array([[0.0, 0.0], [1.5, -0.25]]))


ERRORS = {
    "events not a table": (lambda: CachedLikelihood(LinearSurrogate(), np.zeros(4)), ShapeError),
    "no events": (lambda: CachedLikelihood(LinearSurrogate(), np.zeros((0, 4))), EventDataError),
    "NaN event": (
        lambda: CachedLikelihood(LinearSurrogate(), np.full((2, 4), np.nan)),
        EventDataError,
    ),
    "no chunk": (lambda: CachedLikelihood(LinearSurrogate(), np.zeros((2, 4)), 0), ShapeError),
    "theta of wrong shape": (
        lambda: CachedLikelihood(LinearSurrogate(), np.zeros((2, 4)))(np.zeros((3, 1))),
        ShapeError,
    ),
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
