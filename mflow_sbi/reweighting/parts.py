"""Parts of a pool that never share an event, however often it is read."""

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array

__all__ = ["pool_part"]

_MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64
_STEP = np.uint64(0x9E3779B97F4A7C15)
_LEAST_DISTINCT = 0.5


def pool_part(sample: EventSample, begin: float, end: float) -> EventSample:
    """Return the events of a pool whose number, in [0, 1) by their contents, is in [begin, end).

    The number is a hash of the benchmark weights of the event, else of its components, else of
    its observables, as they stand in the file: it depends neither on the order nor on the
    selection of events, nor on their copies.  Parts [0, 0.8) and [0.8, 1) of a pool, in however
    many runs, are training and test set that share no event.

    Args:
        sample: events as they were read.
        begin: from 0.
        end: to 1.

    Raises:
        EventDataError: no such part, an empty one, or events that are not told apart.

    Example:
        >>> # train = pool_part(events, 0.0, 0.8); test = pool_part(events, 0.8, 1.0)
    """
    if not 0.0 <= begin < end <= 1.0:
        msg = f"pool_part: expected 0 <= begin < end <= 1; got [{begin}, {end}]."
        raise EventDataError(msg)
    values = (sample.benchmark_weight, sample.components, sample.x)
    number = _hash(next(v for v in values if v is not None))
    n_distinct = len(np.unique(number))
    if n_distinct < _LEAST_DISTINCT * len(number):
        msg = (
            f"pool_part: {len(number):,} events have only {n_distinct:,} different rows of "
            "weights, components or observables to tell them apart by; expected nearly as many "
            "as events. Give files of their own for training and tests."
        )
        raise EventDataError(msg)
    inside = (number >= begin) & (number < end)
    if not inside.any():
        msg = f"pool_part: none of {len(number):,} events is in [{begin}, {end}); take more."
        raise EventDataError(msg)
    return sample.take(inside)


def _hash(rows: Array) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row: splitmix64 over the bits of its columns, (N,)."""
    bits = np.ascontiguousarray(rows + 0.0).view(np.uint64).reshape(len(rows), -1)
    state = np.zeros(len(rows), dtype=np.uint64)
    for column in bits.T:
        state = (state ^ column) + _STEP
        state = (state ^ (state >> np.uint64(30))) * _MIXERS[0]
        state = (state ^ (state >> np.uint64(27))) * _MIXERS[1]
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
