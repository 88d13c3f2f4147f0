"""Sums over chunks are those over all events, in bounded memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.events.sample import concatenate, count_duplicates
from mflow_sbi.events.weights import WeightSummary
from mflow_sbi.training.columns import Column, ColumnWriter
from mflow_sbi.training.totals import DrawnRows, DuplicateCount, EventDigest, WeightTotals

from .curves import METADATA, curve_sample


def test_totals_of_weights_are_those_of_all():
    weight = np.random.default_rng(1).normal(0.7, 1.0, 1000)
    totals = WeightTotals()
    for part in np.split(weight, [10, 400, 400]):
        totals.add(part)
    got, expected = totals.summary(), WeightSummary.of(weight)
    for name, value in vars(expected).items():
        assert getattr(got, name) == pytest.approx(value)
    assert totals.mean == pytest.approx(weight.mean())
    assert not totals.are_equal


@pytest.mark.parametrize(("weight", "equal"), [([], True), ([2.0, 2.0], True), ([-1.0], False)])
def test_equal_weights(weight: list[float], equal: bool):  # noqa: FBT001
    totals = WeightTotals()
    totals.add(np.array(weight))
    assert totals.are_equal == equal


def test_rows_are_drawn_evenly_whatever_the_chunks():
    counts = np.zeros(100)
    for seed in range(400):
        drawn = DrawnRows(20, seed)
        for part in np.split(np.arange(100.0), [3, 30, 31, 90]):
            drawn.add({"x": part})
        rows = drawn.rows["x"].astype(int)
        assert len(set(rows.tolist())) == 20
        assert (np.diff(rows) > 0).all()
        counts[rows] += 1
    spread = np.sqrt(400 * 0.2 * 0.8)
    assert np.abs(counts - 80).max() < 4.5 * spread
    assert abs(counts[:50].sum() - 4000) < 4 * spread * np.sqrt(50)


def test_duplicates_are_counted_across_chunks():
    sample = curve_sample(900)
    chunks = [sample, sample.take(np.arange(100)), curve_sample(500, seed=2)]
    exact, estimate = DuplicateCount(), DuplicateCount(limit=300)
    for chunk in chunks:
        exact.add(chunk)
        estimate.add(chunk)
    assert exact.n_duplicates == count_duplicates(concatenate(chunks)) == 100
    assert 40 < estimate.n_duplicates < 180
    whole = DuplicateCount()
    whole.add(replace(sample, x=np.ones_like(sample.x)))
    assert whole.n_duplicates == 0


def test_the_digest_tells_numbers_and_columns_apart():
    x = np.arange(6.0)
    digests = set()
    for rows in ({"x": x}, {"x": x, "theta": x}, {"x": x, "score": x}, {"x": x[::-1]}):
        digest = EventDigest()
        digest.add(rows)
        digests.add(digest.hexadecimal(METADATA))
    assert len(digests) == 4


@pytest.mark.parametrize("shape", [(), (3,)])
def test_columns_are_read_in_any_ranges_and_by_numpy(tmp_path: Path, shape: tuple[int, ...]):
    rows = np.random.default_rng(0).normal(size=(1000, *shape))
    with ColumnWriter(tmp_path / "a.npy", shape, np.float64) as writer:
        for part in np.split(rows, [1, 500]):
            writer.append(part)
    column = Column.open(tmp_path / "a.npy")
    assert column.shape == rows.shape
    assert np.array_equal(column.read(17, 603), rows[17:603])
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows)
    empty = Column.empty(tmp_path / "b.npy", rows.shape, np.float32)
    empty.write(500, rows[500:])
    empty.write(0, rows[:500])
    assert np.array_equal(np.load(tmp_path / "b.npy"), rows.astype(np.float32))


def _cut(path: Path) -> None:
    with ColumnWriter(path, (), np.float64) as writer:
        writer.append(np.ones(3))
        raise KeyboardInterrupt


def test_a_column_that_was_not_finished_is_not_there(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        _cut(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())
