"""Standardisation: an exact affine map, and its way back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, MetadataError, ShapeError
from mflow_sbi.events import Standardizer


def events(n=500, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal([0, 1e4, -3e-5], [1, 300, 1e-6], size=(n, 3))


@given(st.integers(0, 2**32))
def test_mean_zero_variance_one_and_back(seed):
    x = events(seed=seed)
    s = Standardizer.fit(x)
    z = s.transform(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-10)
    assert (np.abs(s.inverse(z) - x) <= 4e-15 * (np.abs(x) + np.abs(s.mean) + s.std)).all()


def test_weights_count_events():
    x = events(5)
    counts = np.array([1, 2, 3, 1, 4])
    weighted, repeated = (
        Standardizer.fit(x, counts),
        Standardizer.fit(np.repeat(x, counts, axis=0)),
    )
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-13)
    np.testing.assert_allclose(weighted.std, repeated.std, rtol=1e-9)


def test_round_trip_through_json_is_exact():
    s = Standardizer.fit(events())
    again = Standardizer.from_dict(json.loads(json.dumps(s.to_dict())))
    np.testing.assert_array_equal(again.mean, s.mean)
    np.testing.assert_array_equal(again.std, s.std)


def constant():
    x = events()
    x[:, 1] = 1e4
    return x


def with_nan():
    x = events()
    x[3, 2] = np.nan
    return x


REFUSED = {
    "constant": (lambda: Standardizer.fit(constant(), names=["a", "b", "c"]), "'b' does not vary"),
    "constant, unnamed": (lambda: Standardizer.fit(constant()), "'column 1' does not vary"),
    "nan": (lambda: Standardizer.fit(with_nan(), names=list("abc")), "not finite in 'c'"),
    "one event": (lambda: Standardizer.fit(events(1)), "at least 2 events; got 1 event"),
    "zero weight": (lambda: Standardizer.fit(events(3), [1, 0, 1]), "expected positive"),
    "zero std": (lambda: Standardizer(np.zeros(2), np.array([1.0, 0.0])), "positive finite"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    with pytest.raises(EventDataError, match=case[1]):
        case[0]()


WRONG_SHAPES = {
    "vector": lambda: Standardizer.fit(np.zeros(3)),
    "weights": lambda: Standardizer.fit(events(5), np.ones(4)),
    "columns": lambda: Standardizer.fit(events()).transform(np.zeros((5, 2))),
    "names": lambda: Standardizer.fit(events(), names=["a"]),
    "scalar": lambda: Standardizer.fit(events()).inverse(1.0),
    "unequal": lambda: Standardizer(np.zeros(2), np.ones(3)),
}


@pytest.mark.parametrize("make", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_wrong_shapes(make):
    with pytest.raises(ShapeError, match="expected"):
        make()


@pytest.mark.parametrize(
    "record",
    [
        {"mean": [0.0]},
        {"mean": [0.0], "std": [1.0], "scale": 1},
        {"mean": [0.0], "std": ["one"]},
        {"mean": [0.0], "std": [-1.0]},
        {"mean": [0.0, 1.0], "std": [1.0]},
        {"mean": None, "std": None},
    ],
)
def test_malformed_records(record):
    with pytest.raises(MetadataError, match="standardizer: expected"):
        Standardizer.from_dict(record)
