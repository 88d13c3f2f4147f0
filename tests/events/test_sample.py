"""`EventSample`: shapes at the door, and no event lost or doubled inside."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, MetadataError, MissingReference, ShapeError
from mflow_sbi.events import (
    EventMetadata,
    EventSample,
    Observable,
    Parameter,
    SelectionReport,
    concatenate,
)
from mflow_sbi.events.sample import count_duplicates

METADATA = EventMetadata(
    process="toy",
    tree="events",
    layout="flat",
    parameters=(Parameter("mu"),),
    observables=(Observable("a"), Observable("b")),
)


def sample(n=10, **changes):
    rows = np.arange(n, dtype=float)
    arrays = {"x": np.column_stack([rows, -rows]), "theta": rows[:, None], "weight": rows + 1}
    return EventSample(**{"metadata": METADATA, **arrays, **changes})


WRONG = {
    "vector x": {"x": np.zeros(10)},
    "three observables": {"x": np.zeros((10, 3))},
    "short theta": {"theta": np.zeros((9, 1))},
    "two parameters": {"theta": np.zeros((10, 2))},
    "vector theta": {"theta": np.zeros(10)},
    "column of weights": {"weight": np.zeros((10, 1))},
    "scores": {"score": np.zeros((10, 3))},
    "components": {"components": np.zeros((4, 6))},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_shapes_that_do_not_fit(change):
    with pytest.raises(ShapeError, match=f"EventSample: {next(iter(change))} has shape"):
        sample(**change)


def test_components_must_be_as_many_as_exponents(record_of):
    metadata = EventMetadata.from_json(json.dumps(record_of(3)))
    with pytest.raises(ShapeError, match=r"components has shape \(3, 5\), expected \(3, 6\)"):
        EventSample(np.zeros((3, 2)), metadata, components=np.zeros((3, 5)))


def test_arrays_are_float64():
    events = sample(x=np.ones((10, 2), dtype=np.float32), theta=None, weight=None)
    assert events.x.dtype == np.float64
    assert len(events) == 10
    assert "no truth" in repr(events)
    np.testing.assert_array_equal(events.column("b"), 1.0)
    with pytest.raises(ShapeError, match="no observable 'c'"):
        events.column("c")


@given(st.integers(6, 200), st.floats(0.2, 0.8), st.integers(0, 2**32))
def test_a_split_loses_and_doubles_nothing(n, fraction, seed):
    parts = sample(n).split((fraction, 1 - fraction), np.random.default_rng(seed))
    together = np.concatenate([part.x[:, 0] for part in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(n))
    assert abs(len(parts[0]) - fraction * n) <= 1
    for part in parts:
        np.testing.assert_array_equal(part.require_theta()[:, 0], part.x[:, 0])
        assert part.weight is not None
        np.testing.assert_array_equal(part.weight, part.x[:, 0] + 1)


def test_a_split_is_reproducible_and_shuffled():
    first, second = (sample(100).split((0.5, 0.5), np.random.default_rng(3)) for _ in range(2))
    assert first[0].digest == second[0].digest
    assert first[0].x[:, 0].tolist() != list(range(50))


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (), (0.999, 0.001)])
def test_splits_that_make_no_sense(fractions):
    with pytest.raises(EventDataError, match="split:"):
        sample(10).split(fractions, np.random.default_rng(0))


@given(st.integers(1, 50), st.integers(1, 60), st.booleans())
def test_batches_cover_every_event_once(n, size, shuffled):
    rng = np.random.default_rng(0) if shuffled else None
    batches = list(sample(n).batches(size, rng))
    rows = np.concatenate([batch.x[:, 0] for batch in batches])
    assert {len(batch) for batch in batches[:-1]} <= {size}
    np.testing.assert_array_equal(np.sort(rows) if shuffled else rows, np.arange(n))


def test_batches_of_nothing():
    with pytest.raises(EventDataError, match="at least 1; got 0"):
        list(sample().batches(0))


def test_take_by_number_and_by_mask():
    mask = np.arange(10) % 3 == 0
    assert sample().take(mask).digest == sample().take([0, 3, 6, 9]).digest
    assert len(sample().take([])) == 0


def test_concatenation_undoes_cutting():
    whole = sample()
    again = concatenate([whole.take([0, 1, 2]), whole.take(np.arange(3, 10))])
    np.testing.assert_array_equal(again.x, whole.x)
    np.testing.assert_array_equal(again.require_theta(), whole.require_theta())


def test_reports_add():
    first = sample(report=SelectionReport(12, 10, {"few": 2}))
    second = sample(report=SelectionReport(11, 10, {"cut": 1}))
    assert concatenate([first, second]).report == SelectionReport(23, 20, {"few": 2, "cut": 1})
    assert concatenate([first, sample()]).report is None


def test_concatenation_refuses_a_mixture():
    with pytest.raises(EventDataError, match="only 1 of 2 samples carry theta"):
        concatenate([sample(), sample(theta=None)])
    other = METADATA.with_observables([Observable("a"), Observable("c")])
    with pytest.raises(MetadataError, match="differ in observables"):
        concatenate([sample(), sample(metadata=other)])
    with pytest.raises(EventDataError, match="at least one sample"):
        concatenate([])


@pytest.mark.parametrize("name", ["x", "theta", "weight"])
def test_the_digest_sees_every_number(name):
    changed = getattr(sample(), name).copy()
    changed.flat[3] = np.nextafter(changed.flat[3], np.inf)
    assert sample(**{name: changed}).digest != sample().digest


def test_the_digest_sees_the_metadata_and_what_is_missing():
    assert sample().digest == sample().digest
    assert sample(metadata=replace(METADATA, seed=2)).digest != sample().digest
    assert sample(weight=None).digest != sample().digest


@pytest.mark.parametrize("name", ["theta", "score", "components"])
def test_absent_truth_is_named(name):
    bare = sample(theta=None)
    with pytest.raises(MissingReference, match="process 'toy' do not carry"):
        getattr(bare, f"require_{name}")()


def test_duplicates_are_those_of_all_numbers():
    rng = np.random.default_rng(4)
    x = rng.integers(0, 3, (300, 2)).astype("f4") / np.float32(3)
    theta = rng.integers(0, 2, (300, 1)).astype("f8")
    for also in (None, theta):
        rows = x if also is None else np.hstack([x, theta])
        events = sample(x=x, theta=also, weight=None)
        assert count_duplicates(events) == 300 - len(np.unique(rows, axis=0)) > 0
    assert count_duplicates(sample(x=np.rint(3 * x), theta=None, weight=None)) == 0
