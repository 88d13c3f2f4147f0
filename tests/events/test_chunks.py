"""Chunks are the same events as `read_events` returns, read on demand and nothing else."""

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError, EventFileError, MetadataError
from mflow_sbi.events import concatenate, open_chunks, read_events
from mflow_sbi.events.columns import EventTree

SIZES = (30, 20, 11)


@pytest.fixture
def pattern(tmp_path, branches_of, record_of, write):
    for k, n in enumerate(SIZES):
        write(tmp_path / f"shard_{k}.root", branches_of(n, seed=k), record_of(n, seed=k))
    return str(tmp_path / "shard_*.root")


def test_chunks_concatenate_to_the_whole(pattern):
    chunks = open_chunks(pattern, selection="a[0].pt > 60", chunk_events=7)
    whole = read_events(pattern, selection="a[0].pt > 60")
    assert len(chunks) == 5 + 3 + 2
    assert chunks.n_entries == sum(SIZES)
    for joined in (concatenate(list(chunks)), concatenate([chunks[k] for k in range(10)])):
        np.testing.assert_array_equal(joined.x, whole.x)
        np.testing.assert_array_equal(joined.components, whole.require_components())
        assert joined.report == whole.report
        assert joined.metadata is chunks.metadata
    assert chunks.metadata.n_events == whole.metadata.n_events == sum(SIZES)
    assert chunks.metadata.observables == whole.metadata.observables


def test_ranges_are_those_of_all_entries(pattern):
    everything = read_events(pattern).metadata
    chunks = open_chunks(pattern, selection="a[0].pt > 60", chunk_events=7)
    assert chunks.metadata == everything


def test_chunks_lie_inside_one_file_and_have_at_most_their_size(pattern):
    chunks = open_chunks(pattern, chunk_events=7)
    spans = [span for file in chunks.files for span in file.ranges]
    assert [stop - start for start, stop in spans] == [7, 7, 7, 7, 2, 7, 7, 6, 7, 4]
    assert all(len(chunk) <= 7 for chunk in chunks)


def test_reading_a_chunk_touches_its_own_entries_only(pattern, monkeypatch):
    chunks = open_chunks(pattern, chunk_events=7)
    _ = chunks.metadata
    touched, original = set(), EventTree.lists

    def watched(tree, branch, start, stop):
        counts, values = original(tree, branch, start, stop)
        assert len(counts) == stop - start
        touched.add((tree.path.name, start, stop))
        return counts, values

    monkeypatch.setattr(EventTree, "lists", watched)
    sample = chunks[6]
    assert touched == {("shard_1.root", 7, 14)}
    np.testing.assert_array_equal(sample.x, read_events(pattern).x[37:44])


def test_nothing_but_theta_is_read_before_a_chunk_is_asked_for(pattern, monkeypatch):
    read, original = set(), EventTree.lists

    def watched(tree, branch, start, stop):
        read.add(branch)
        return original(tree, branch, start, stop)

    monkeypatch.setattr(EventTree, "lists", watched)
    open_chunks(pattern)
    assert read == {"theta.CWL2", "theta.CPWL2"}


def test_a_chunk_without_events_is_empty(pattern):
    chunks = open_chunks(pattern, selection="a[0].pt > 1e9")
    assert [len(chunk) for chunk in chunks] == [0, 0, 0]
    assert sum(chunk.report.n_read for chunk in chunks if chunk.report) == sum(SIZES)


def test_files_that_do_not_belong_together_are_refused_at_once(
    tmp_path, pattern, branches_of, record_of, write
):
    write(tmp_path / "shard_3.root", branches_of(5), record_of(5, process="other"))
    with pytest.raises(MetadataError, match="differ in process"):
        open_chunks(pattern)
    bare = {k: v for k, v in branches_of(5).items() if not k.startswith("score.")}
    write(tmp_path / "shard_3.root", bare, record_of(5))
    with pytest.raises(EventDataError, match="only 3 of 4 files carry score"):
        open_chunks(pattern)
    with pytest.raises(EventDataError, match="only 3 of 4 files carry score"):
        read_events(pattern)


def test_a_file_that_changed_since_is_refused(tmp_path, pattern, branches_of, record_of, write):
    chunks = open_chunks(pattern)
    write(tmp_path / "shard_1.root", branches_of(21, seed=1), record_of(21, seed=1))
    assert len(chunks[0]) == SIZES[0]
    with pytest.raises(EventFileError, match=r"shard_1.root: changed .*20 entries before, 21 now"):
        _ = chunks[1]


def test_a_record_that_changed_since_is_refused(tmp_path, pattern, branches_of, record_of, write):
    chunks = open_chunks(pattern)
    n = SIZES[1]
    write(tmp_path / "shard_1.root", branches_of(n, seed=1), record_of(n, seed=99))
    with pytest.raises(EventFileError, match="shard_1.root: changed while it was being read"):
        _ = chunks[1]


def test_bad_sizes(pattern):
    with pytest.raises(EventDataError, match="chunk_events=0: expected at least 1"):
        open_chunks(pattern, chunk_events=0)
