"""The best epoch: the lowest held-out objective, and no fluctuation where weights are signed."""

import math

import numpy as np
import pytest
import torch

from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.stopping import HeldOut, held_out_objective


def _of(blocks: np.ndarray) -> HeldOut:
    return HeldOut(float(blocks.sum()), tuple(blocks.tolist()))


def _batch(weight: torch.Tensor | None, n: int = 500) -> TrainingBatch:
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0)).double()
    return TrainingBatch(x, x, weight=weight)


def _square(batch: TrainingBatch) -> torch.Tensor:
    return batch.mean(batch.x.square()[:, 0])


def test_without_negative_weights_lower_is_better():
    assert HeldOut(1.0).is_better_than(HeldOut(math.inf))
    assert HeldOut(1.0).is_better_than(HeldOut(1.0 + 1e-12))
    assert not HeldOut(1.0).is_better_than(HeldOut(1.0))
    assert not HeldOut(math.nan).is_better_than(HeldOut(math.inf))


@pytest.mark.parametrize("n", [2, 3, 20])
def test_a_single_event_is_never_enough(n):
    best = np.random.default_rng(0).normal(size=n)
    for gain in (1e-6, 1.0, 1e9):
        lucky = best.copy()
        lucky[1] -= gain
        assert _of(lucky).value < _of(best).value
        assert not _of(lucky).is_better_than(_of(best))


def test_what_all_events_say_is_believed_and_noise_is_not():
    rng = np.random.default_rng(1)
    best = rng.normal(size=20)
    assert _of(best - 1e-3).is_better_than(_of(best))
    assert not _of(best + 1e-3).is_better_than(_of(best))
    assert not _of(best * math.nan).is_better_than(_of(best))
    lucky = [_of(best + rng.normal(size=20)).is_better_than(_of(best)) for _ in range(2000)]
    assert 0.1 < np.mean(lucky) < 0.22  # beyond one standard error: 16%
    steady = [_of(best - 1 + rng.normal(size=20)).is_better_than(_of(best)) for _ in range(500)]
    assert np.mean(steady) > 0.98


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_held_out_objective_is_the_weighted_average(sign):
    weight = torch.linspace(0.5 * sign, 2.0, 500).double()
    weight = weight / weight.mean()
    batch = _batch(weight)
    got = held_out_objective(_square, batch)
    assert got.value == pytest.approx(np.average(batch.x[:, 0] ** 2, weights=weight))
    assert len(got.blocks) == (0 if sign > 0 else 20)
    assert sum(got.blocks) == pytest.approx(got.value if sign < 0 else 0.0)
    assert held_out_objective(_square, _batch(None)).blocks == ()
