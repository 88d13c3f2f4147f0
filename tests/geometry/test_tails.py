"""A tail of a few hundred numbers gives the p-values of all of them."""

import json
import re

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError
from mflow_sbi.geometry import TrainingTail


def _brute(t: np.ndarray, at: np.ndarray) -> np.ndarray:
    return (1 + (t[None] >= at[:, None]).sum(axis=1)) / (len(t) + 1)


def test_the_first_two_hundred_are_exact() -> None:
    t = np.random.default_rng(1).lognormal(size=3000)
    at = np.concatenate([[t.max() + 1], np.sort(t)[::-1][:199], np.sort(t)[::-1][:199] - 1e-12])
    np.testing.assert_allclose(TrainingTail.of(t).p_values(at), _brute(t, at), rtol=1e-12)


def test_the_body_is_interpolated() -> None:
    t = np.random.default_rng(2).lognormal(size=8000)
    at = np.quantile(t, np.linspace(0, 0.97, 200))
    tail = TrainingTail.of(t)
    assert len(tail.values) < 450
    np.testing.assert_allclose(tail.p_values(at), _brute(t, at), rtol=0.03)
    assert tail.p_values(np.array([t.min(), t.min() - 1])).tolist() == [1.0, 1.0]


def test_few_events_are_all_kept() -> None:
    t = np.random.default_rng(3).normal(size=60)
    at = np.random.default_rng(4).normal(size=100)
    np.testing.assert_allclose(TrainingTail.of(t).p_values(at), _brute(t, at), rtol=1e-12)


def test_fresh_draws_have_uniform_p_values() -> None:
    rng = np.random.default_rng(5)
    shares = [
        (TrainingTail.of(rng.normal(size=500)).p_values(rng.normal(size=50)) < 0.02).mean()
        for _ in range(400)
    ]
    assert np.mean(shares) == pytest.approx(0.02, abs=0.003)


def test_ties_count_as_extreme() -> None:
    tail = TrainingTail.of(np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(tail.p_values(np.array([1.0, 0.5, 2.0])), [4 / 5, 4 / 5, 1 / 5])


def test_infinite_events_are_tied_beyond_all_numbers() -> None:
    t = np.concatenate([np.full(3, np.inf), np.arange(6.0)])
    at = np.array([np.inf, 10.0, 5.0, 4.5, 0.0])
    np.testing.assert_allclose(TrainingTail.of(t).p_values(at), _brute(t, at))
    none = TrainingTail.of(np.full(4, np.inf))
    np.testing.assert_allclose(none.p_values(np.array([np.inf, 0.0])), [1.0, 1.0])


def test_a_tail_survives_json() -> None:
    tail = TrainingTail.of(np.random.default_rng(6).normal(size=700))
    assert TrainingTail.from_dict(json.loads(json.dumps(tail.to_dict()))) == tail


ERRORS = {
    "none": (lambda: TrainingTail.of(np.empty(0)), "expected numbers (n,) or +inf"),
    "nan": (lambda: TrainingTail.of(np.array([1.0, np.nan])), "expected numbers (n,) or +inf"),
    "rising": (lambda: TrainingTail(2, 0, (1, 2), (0.0, 1.0)), "falling values at rising ranks"),
    "ranks": (lambda: TrainingTail(3, 0, (1, 2), (1.0, 0.0)), "of 3 events, got 2 ranks"),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, words) -> None:
    with pytest.raises(EventDataError, match=re.escape(words)):
        call()
