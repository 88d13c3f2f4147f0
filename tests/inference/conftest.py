"""Observed events of toy simulators."""

import numpy as np
import pytest

from mflow_sbi.interfaces import Array

from .toys import QUADRATIC


@pytest.fixture
def observed() -> Array:
    rng = np.random.default_rng(5)
    return 10 * (np.array([0.5, -0.2, 0.3, 0.7]) + rng.normal(size=(20, 4)))


@pytest.fixture
def quadratic() -> tuple[Array, Array]:
    """Components and cross section of density sum_j (a_j + theta . b_j)^2 on 12 toy bins.

    The amplitudes are linear in theta, so that every density is a positive quadratic, as in an
    EFT; the events are drawn at theta = (0.5, 0).
    """
    rng = np.random.default_rng(11)
    a, b = rng.normal(1.0, 0.4, size=(12, 3)), rng.normal(0.0, 0.6, size=(12, 3, 2))
    bins = np.stack(
        [
            (a**2).sum(1),
            2 * (a * b[..., 0]).sum(1),
            2 * (a * b[..., 1]).sum(1),
            (b[..., 0] ** 2).sum(1),
            2 * (b[..., 0] * b[..., 1]).sum(1),
            (b[..., 1] ** 2).sum(1),
        ],
        axis=1,
    )
    weight = QUADRATIC.weights([[0.5, 0.0]])[0]
    density = bins @ weight
    events = rng.choice(12, size=60, p=density / density.sum())
    return bins[events], bins.sum(axis=0)
