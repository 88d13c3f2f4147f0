"""Predictive checks: p-values as claimed, look-elsewhere included; other events are found."""

import json
import re

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mflow_sbi.calibration import draw_replicas, predictive_check
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

NAMES = tuple(f"x{j}" for j in range(8))


def _sets(n_sets: int, rng: np.random.Generator, n_events: int = 20) -> list[Array]:
    """Return sets of correlated observables."""
    mixing = np.eye(8) + 0.5 * np.eye(8, k=1)
    return [rng.normal(size=(n_events, 8)) @ mixing for _ in range(n_sets)]


def test_like_events_are_rejected_as_often_as_claimed() -> None:
    rng = np.random.default_rng(1)
    checks = []
    for _ in range(80):
        observed, *replicas = _sets(40, rng)
        checks.append(predictive_check(observed, replicas, NAMES))
    global_p = np.array([check.global_p for check in checks])
    each = np.array([check.p_values for check in checks])
    assert (global_p <= 0.1).mean() == pytest.approx(0.1, abs=0.08)
    assert global_p.mean() == pytest.approx(0.5, abs=0.1)
    assert (each <= 0.1).mean() == pytest.approx(0.1, abs=0.04)
    assert (each.min(axis=1) <= 0.1).mean() > 0.3  # the look-elsewhere effect


def test_one_moved_observable_is_found() -> None:
    rng = np.random.default_rng(2)
    observed, *replicas = _sets(100, rng)
    observed[:, 3] += 1.5
    check = predictive_check(observed, replicas, NAMES)
    assert check.worst == "x3"
    assert check.global_p < 0.05
    assert check.rows()[0][0] == "x3"
    assert min(p for j, p in enumerate(check.p_values) if j != 3) > 0.02
    assert "smallest of 8 p-values" in check.statement
    assert json.loads(json.dumps(check.to_dict()))["n_replicas"] == 99


def test_another_width_is_found() -> None:
    rng = np.random.default_rng(3)
    observed, *replicas = _sets(100, rng, 40)
    observed[:, 0] *= 2.5
    assert predictive_check(observed, replicas, NAMES).worst == "x0"


def test_distances_are_kolmogorov_s() -> None:
    rng = np.random.default_rng(4)
    sets = _sets(20, rng)
    sets[0] = np.round(sets[0])  # ties
    check = predictive_check(sets[0], sets[1:], NAMES)
    for j, distance in enumerate(check.distances):
        everything = np.concatenate([x[:, j] for x in sets])
        gap = np.asarray(ks_2samp(sets[0][:, j], everything))[0]
        assert distance == pytest.approx(20**0.5 * gap)


def test_sets_may_be_of_any_size() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.poisson(20, size=60) + 1
    sets = [_sets(1, rng, int(n))[0] for n in sizes]
    assert 0 < predictive_check(sets[0], sets[1:], NAMES).global_p <= 1


class _Shifts:
    """One event per theta: theta plus noise."""

    def sample(self, theta: Array, seed: int) -> Array:
        return theta + 0.01 * np.random.default_rng(seed).normal(size=theta.shape)


def test_replicas_are_drawn_at_their_draws() -> None:
    draws = np.array([[0.0, 1.0], [5.0, 6.0], [9.0, 9.0]])
    replicas = draw_replicas(_Shifts(), draws, [4, 1, 2], seed=1)
    assert [len(x) for x in replicas] == [4, 1, 2]
    for draw, events in zip(draws, replicas, strict=True):
        np.testing.assert_allclose(events, np.tile(draw, (len(events), 1)), atol=0.1)
    again = draw_replicas(_Shifts(), draws, [4, 1, 2], seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(replicas, again, strict=True))


RNG = np.random.default_rng(1)
ERRORS = {
    "sizes": (
        lambda: draw_replicas(_Shifts(), np.zeros((3, 2)), [1, 2], 1),
        ShapeError,
        "expected draws (R, p) and R sizes, got (3, 2) and (2,)",
    ),
    "columns": (
        lambda: predictive_check(np.zeros((3, 7)), _sets(30, RNG), NAMES),
        ShapeError,
        "expected sets of events (N, 8), got (3, 7)",
    ),
    "few replicas": (
        lambda: predictive_check(np.zeros((3, 8)), _sets(18, RNG), NAMES),
        EventDataError,
        "at least 19 replicated sets, got 18",
    ),
    "nan": (
        lambda: predictive_check(np.full((3, 8), np.nan), _sets(30, RNG), NAMES),
        EventDataError,
        "finite events in every set",
    ),
    "empty": (
        lambda: predictive_check(np.empty((0, 8)), _sets(30, RNG), NAMES),
        EventDataError,
        "got 0 events",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()
