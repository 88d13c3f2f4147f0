"""Fixtures that several rooms' tests share."""

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    """Return a torch generator with a fixed seed."""
    return torch.Generator().manual_seed(20260101)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
