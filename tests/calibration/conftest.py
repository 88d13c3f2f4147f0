"""Pools of events of the flagship process, and sets drawn from them."""

from pathlib import Path

import pytest

from mflow_sbi.events import EventSample, read_events

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def pool() -> EventSample:
    """10,000 events at theta ~ N(0, 1), with morphing components."""
    return read_events(DATA / "wbf_tuned_train_small.root")
