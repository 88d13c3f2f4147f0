"""Many sets at once give what each set gives alone."""

import re

import numpy as np
import pytest
import torch

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.event_sets import CachedEventSets
from mflow_sbi.interfaces import Array

from .toys import NAMES, BrokenSurrogate, CurvedSurrogate, LinearSurrogate

THETA = np.random.default_rng(2).normal(size=(9, 2))
SIZES = np.random.default_rng(3).permutation(np.arange(1, 51))


def _sets(sizes: Array = SIZES) -> list[Array]:
    rng = np.random.default_rng(7)
    return [10 * rng.normal(0.3, 1.0, size=(int(size), 4)) for size in sizes]


def _one_by_one(sets: list[Array], theta: Array) -> Array:
    """Each set by its own CachedLikelihood, theta (M, p) common or (M, S, p), -> (M, S)."""
    surrogate = CurvedSurrogate()
    columns = []
    for s, x in enumerate(sets):
        columns.append(CachedLikelihood(surrogate, x)(theta if theta.ndim == 2 else theta[:, s]))
    return np.stack(columns, axis=1)


def _own_points(n_points: int = 9, n_sets: int = 50) -> Array:
    return np.random.default_rng(5).normal(size=(n_points, n_sets, 2))


@pytest.mark.parametrize("chunk_rows", [1, 3, 50, 700, 1275, 2048, 100_000])
def test_sets_of_1_to_50_events_equal_each_alone(chunk_rows: int) -> None:
    surrogate = CurvedSurrogate()
    sets = _sets()
    together = CachedEventSets(surrogate, sets, chunk_rows)
    assert surrogate.encoded == 1
    assert (together.n_sets, together.sizes.tolist()) == (50, SIZES.tolist())
    np.testing.assert_allclose(together(THETA), _one_by_one(sets, THETA), rtol=1e-12)
    own = _own_points()
    np.testing.assert_allclose(together.at_own_points(own), _one_by_one(sets, own), rtol=1e-12)


@pytest.mark.parametrize("sizes", [[1], [40], [20] * 12, [1, 1, 1], [1, 60, 1]])
def test_any_sizes(sizes: list[int]) -> None:
    sets, own = _sets(np.array(sizes)), _own_points(4, len(sizes))
    together = CachedEventSets(CurvedSurrogate(), sets, chunk_rows=17)
    np.testing.assert_allclose(together(THETA), _one_by_one(sets, THETA), rtol=1e-12)
    np.testing.assert_allclose(together.at_own_points(own), _one_by_one(sets, own), rtol=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 40, 600])
def test_no_block_is_larger_than_asked(chunk_rows: int) -> None:
    surrogate = LinearSurrogate()
    together = CachedEventSets(surrogate, _sets(), chunk_rows)
    together(THETA)
    together.at_own_points(_own_points())
    assert 0.5 * chunk_rows < surrogate.largest_batch <= chunk_rows


def test_theta_is_never_repeated_at_common_points() -> None:
    surrogate = LinearSurrogate()
    CachedEventSets(surrogate, _sets(), 1275)(THETA)  # all 1275 events fit a block
    assert surrogate.theta_rows == len(THETA)


def test_permuted_sets_permute_the_columns() -> None:
    order = np.random.default_rng(1).permutation(50)
    sets, own = _sets(), _own_points()
    one = CachedEventSets(CurvedSurrogate(), sets, 300)
    other = CachedEventSets(CurvedSurrogate(), [sets[s] for s in order], 300)
    np.testing.assert_allclose(other(THETA), one(THETA)[:, order], rtol=1e-12)
    np.testing.assert_allclose(
        other.at_own_points(own[:, order]), one.at_own_points(own)[:, order], rtol=1e-12
    )


def test_common_points_are_everyones_own_points() -> None:
    together = CachedEventSets(CurvedSurrogate(), _sets(), 300)
    own = np.broadcast_to(THETA[:, None], (9, 50, 2))
    np.testing.assert_allclose(together(THETA), together.at_own_points(own), rtol=1e-12)


def test_likelihood_of_one_set_shares_its_latents() -> None:
    surrogate = CurvedSurrogate()
    sets = _sets()
    together = CachedEventSets(surrogate, sets)
    for s in (0, 17, 49):
        alone = together.likelihood_of(s)
        assert alone.n_events == SIZES[s]
        assert np.array_equal(alone.observed["x"], sets[s])
        expected = CachedLikelihood(CurvedSurrogate(), sets[s])
        assert np.array_equal(alone(THETA), expected(THETA))
        assert alone.evaluations == expected.evaluations
    assert surrogate.encoded == 1


def test_gradients_are_off() -> None:
    surrogate = LinearSurrogate()
    surrogate.slope.requires_grad_()
    together = CachedEventSets(surrogate, _sets())
    assert isinstance(together(THETA), np.ndarray)
    assert isinstance(together.at_own_points(_own_points()), np.ndarray)


def test_float32_is_summed_in_float64() -> None:
    sets = [np.full((30_000, 4), 10.0), np.full((20_000, 4), 10.0)]  # each event is -2
    sets[1][0] = 10.01  # this one a little less, which a float32 sum of -40,000 would lose
    together = CachedEventSets(LinearSurrogate(torch.float32), sets, chunk_rows=100_000)
    (sums,) = together(np.zeros((1, 2)))
    assert sums[0] == -60_000
    assert sums[1] + 40_000 == pytest.approx(2 - 2 * 1.001**2, abs=1e-6)


def test_no_points() -> None:
    together = CachedEventSets(LinearSurrogate(), _sets())
    assert together(np.zeros((0, 2))).shape == (0, 50)
    assert together.at_own_points(np.zeros((0, 50, 2))).shape == (0, 50)


def test_nan_says_which_set_and_where_and_minus_infinity_is_a_number() -> None:
    together = CachedEventSets(BrokenSurrogate(), _sets(np.array([2, 3, 1])))
    assert np.isneginf(together(np.array([[-1.5, 0.0]]))).all()
    with pytest.raises(LikelihoodError, match="of set 0: .* got nan at CWL2 = 1.5, CPWL2 = 0"):
        together(np.array([[0.0, 0.0], [1.5, 0.0]]))
    own = np.zeros((4, 3, 2))
    own[2, 1] = [1.25, -0.5]
    with pytest.raises(LikelihoodError, match=r"set 1: .* CWL2 = 1.25, CPWL2 = -0.5 \(1 of 4"):
        together.at_own_points(own)


def _with_nan() -> list[Array]:
    sets = _sets(np.array([3, 2, 5]))
    sets[2][3, 1] = np.nan
    return sets


ERRORS = {
    "no sets": (
        lambda: CachedEventSets(LinearSurrogate(), []),
        EventDataError,
        "at least one set",
    ),
    "empty set": (
        lambda: CachedEventSets(LinearSurrogate(), _sets(np.array([2, 0, 1]))),
        EventDataError,
        "set 1: expected at least one observed event",
    ),
    "NaN": (
        lambda: CachedEventSets(LinearSurrogate(), _with_nan()),
        EventDataError,
        "set 2: expected finite numbers, event 3",
    ),
    "not a table": (
        lambda: CachedEventSets(LinearSurrogate(), [np.zeros((1, 4)), np.zeros(4)]),
        ShapeError,
        "set 1: expected shape (N, n), got (4,)",
    ),
    "other width": (
        lambda: CachedEventSets(LinearSurrogate(), [np.zeros((1, 4)), np.zeros((2, 3))]),
        ShapeError,
        "set 1: expected 4 observables as in set 0, got 3",
    ),
    "no chunk": (
        lambda: CachedEventSets(LinearSurrogate(), _sets(), 0),
        ShapeError,
        "chunk_rows: expected at least 1",
    ),
    "common points": (
        lambda: CachedEventSets(LinearSurrogate(), _sets())(np.zeros((3, 50, 2))),
        ShapeError,
        f"theta: expected shape (M, {len(NAMES)}), got (3, 50, 2)",
    ),
    "own points": (
        lambda: CachedEventSets(LinearSurrogate(), _sets()).at_own_points(np.zeros((3, 49, 2))),
        ShapeError,
        "theta: expected shape (M, 50, 2), points of each of 50 sets, got (3, 49, 2)",
    ),
    "no such set": (
        lambda: CachedEventSets(LinearSurrogate(), _sets()).likelihood_of(50),
        ShapeError,
        "expected a set from 0 to 49, got 50",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
