"""Simulated events that several files of this room look at."""

import pytest

from mflow_sbi.events import read_events
from mflow_sbi.intervals import EventPool

from .toys import POOL


@pytest.fixture(scope="package")
def pool() -> EventPool:
    return EventPool(read_events(POOL))
