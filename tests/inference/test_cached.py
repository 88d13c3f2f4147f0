"""The likelihood of encoded events: encoded once, broadcast over points, checked at the door."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood, EncodedEvents
from mflow_sbi.interfaces import Array

from .toys import BrokenSurrogate, LinearSurrogate, PairedSurrogate

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
    assert surrogate.largest_batch <= chunk_rows
    np.testing.assert_allclose(cached, _uncached(surrogate, observed, THETA), rtol=1e-12)


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 100))
def test_blocks_hold_every_pair_once_and_stay_small(n_points, n_events, chunk_rows) -> None:
    events = EncodedEvents(LinearSurrogate(), np.zeros((n_events, 4)), torch.zeros(1), chunk_rows)
    times = np.zeros((n_points, n_events), dtype=int)
    for some, part in events.blocks(n_points):
        times[some, part] += 1
        assert times[some, part].size <= chunk_rows
        assert times[some, part].size == (some.stop - some.start) * (part.stop - part.start)
    assert np.all(times == 1)


def test_theta_is_never_repeated_for_the_events(observed: Array) -> None:
    surrogate = LinearSurrogate()
    CachedLikelihood(surrogate, observed)(THETA)
    assert surrogate.theta_rows == len(THETA)


def test_log_ratio_in_float32_is_good_to_1e_5_per_nat(observed: Array) -> None:
    cached = CachedLikelihood(LinearSurrogate(torch.float32), observed)(THETA)
    exact = _uncached(LinearSurrogate(), observed, THETA)
    np.testing.assert_allclose(cached - cached[0], exact - exact[0], rtol=1e-5, atol=1e-4)


def test_sums_over_many_events_are_float64() -> None:
    x = np.full((50_000, 4), 10.0)  # in float32 one event is -2, the sum -100,000
    likelihood = CachedLikelihood(LinearSurrogate(torch.float32), x)
    assert likelihood(np.zeros((1, 2)))[0] == -100_000
    x[0] = 10.01
    moved = CachedLikelihood(LinearSurrogate(torch.float32), x)(np.zeros((1, 2)))[0]
    assert moved + 100_000 == pytest.approx(2 - 2 * 1.001**2, abs=1e-6)


def test_observed_events_are_encoded_once(observed: Array) -> None:
    surrogate = LinearSurrogate()
    likelihood = CachedLikelihood(surrogate, observed)
    for _ in range(3):
        likelihood(THETA)
        likelihood.value_and_gradient(THETA)
    assert surrogate.encoded == 1


def test_gradients_are_off(observed: Array) -> None:
    surrogate = LinearSurrogate()
    surrogate.slope.requires_grad_()
    assert isinstance(CachedLikelihood(surrogate, observed)(THETA), np.ndarray)


def test_no_points_and_points_that_cannot_be_written_to(observed: Array) -> None:
    likelihood = CachedLikelihood(LinearSurrogate(), observed)
    assert likelihood(np.zeros((0, 2))).shape == (0,)
    frozen = np.broadcast_to(THETA[0], (5, 2))
    assert np.array_equal(likelihood(frozen), likelihood(frozen.copy()))


def test_points_outside_the_training_range_are_counted(observed: Array) -> None:
    likelihood = CachedLikelihood(LinearSurrogate(), observed)
    likelihood(np.array([[0, 0], [2, -2], [2.1, 0], [0, -3], [5, 5]]))
    likelihood.value_and_gradient(np.array([[0, 0], [3, 0]]))
    assert (likelihood.evaluations.points, likelihood.evaluations.outside_training_range) == (7, 4)


def test_nan_is_an_error_that_says_where_and_minus_infinity_is_not(observed: Array) -> None:
    likelihood = CachedLikelihood(BrokenSurrogate(), observed)
    assert likelihood(np.array([[-1.5, 0.0]]))[0] == -np.inf
    for call in (likelihood, likelihood.value_and_gradient):
        with pytest.raises(
            LikelihoodError, match=r"got nan at CWL2 = 1.5, CPWL2 = -0.25 \(1 of 2"
        ):
            call(np.array([[0.0, 0.0], [1.5, -0.25]]))


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
    "a surrogate that pairs rows": (
        lambda: CachedLikelihood(PairedSurrogate(), np.zeros((2, 4)))(np.zeros((3, 2))),
        ShapeError,
    ),
}


@pytest.mark.parametrize(("call", "error"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error) -> None:
    with pytest.raises(error, match="expected"):
        call()
