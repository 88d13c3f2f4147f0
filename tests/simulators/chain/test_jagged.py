"""Lists of objects behave as Python's lists of lists."""

import awkward as ak
import numpy as np
import pytest

from simulators.chain.jagged import Jagged

LISTS = [[3.0, 1.0], [], [5.0], [2.0, 9.0, 4.0], []]


@pytest.fixture
def jagged():
    counts = [len(row) for row in LISTS]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Jagged(offsets, {"x": np.array([x for row in LISTS for x in row])})


def rows(jagged):
    return [
        jagged["x"][a:b].tolist()
        for a, b in zip(jagged.offsets[:-1], jagged.offsets[1:], strict=True)
    ]


def test_objects_of_a_mask_stay_in_their_events(jagged):
    expected = [[x for x in row if x > 2.5] for row in LISTS]
    assert rows(jagged.where(jagged["x"] > 2.5)) == expected


def test_events_of_a_mask_keep_their_objects(jagged):
    kept = np.array([True, False, False, True, True])
    assert rows(jagged.events(kept)) == [LISTS[0], LISTS[3], []]


def test_the_largest_comes_first(jagged):
    assert rows(jagged.descending("x")) == [sorted(row, reverse=True) for row in LISTS]


def test_totals_counts_and_events(jagged):
    assert jagged.total("x").tolist() == [sum(row) for row in LISTS]
    assert jagged.counts.tolist() == [len(row) for row in LISTS]
    again = Jagged.of(jagged.event, len(LISTS), jagged.columns)
    assert again.offsets.tolist() == jagged.offsets.tolist()


def test_partners_are_all_objects_of_the_event(jagged):
    events = np.array([3, 1, 0])
    place, other = jagged.partners(events)
    pairs = [(p, jagged["x"][o]) for p, o in zip(place, other, strict=True)]
    assert pairs == [(i, x) for i, e in enumerate(events) for x in LISTS[e]]


def test_records_and_concatenation(jagged):
    assert ak.to_list(jagged.records(2, 4)["x"]) == LISTS[2:4]
    assert rows(Jagged.concatenate([jagged, jagged])) == LISTS + LISTS
