"""Summands of an objective: those of disjoint rows make up that of the whole batch."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mflow_sbi.densities import PairNetwork, PairShape, SymmetryGroup
from mflow_sbi.densities.symmetries import Reflection
from mflow_sbi.training import BinaryCrossEntropy, RatioDivergence, TrainingBatch
from mflow_sbi.training.steps import is_shared_out, share_of

from ..densities.toys import quadratic_ratio
from .test_weighted_objectives import CASES, THETA, N, _batch, _weighted

REFLECTION = Reflection(np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, -1.0]))
PARTS = (slice(0, 4), slice(4, 6), slice(6, N))


def _summed(objective: Any, surrogate: Any, batch: TrainingBatch, parts: Any) -> torch.Tensor:
    return torch.stack([share_of(objective, surrogate, batch, part) for part in parts]).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_summands_of_disjoint_rows_make_up_the_objective(name: str, weighted: bool):  # noqa: FBT001
    case, batch = CASES[name], _batch()
    if weighted:
        weight = torch.rand(N, generator=torch.Generator().manual_seed(2)).double() + 0.1
        batch = _weighted(batch, weight / weight.mean())
    surrogate, _ = case.make()
    whole = case.objective(surrogate, batch)
    got = _summed(case.objective, surrogate, batch, PARTS)
    torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-12)


def test_which_objectives_are_shared_out():
    shared = {name for name, case in CASES.items() if is_shared_out(case.objective)}
    assert set(CASES) - shared == {
        "likelihood, morphing",
        "likelihood, learned rate",
        "likelihood, residual",
        "score, morphing",
        "score, residual",
        "alices",
        "alice",
        "local score",
        "templates",
        "transport",
    }


def _turning(kind: type) -> Any:
    group = SymmetryGroup.generated_by([REFLECTION], 4, 2)
    if kind is RatioDivergence:
        return quadratic_ratio(group=group)[0]
    return PairNetwork(PairShape(4, 2, 2, 16, 2, 1), seed=3).double().fill(THETA, group)


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(4), RatioDivergence(5)])
def test_rows_that_turn_together_are_not_parted(objective: Any):
    surrogate = SimpleNamespace(ratio=_turning(type(objective)))
    resting = torch.randn(N, 4, generator=torch.Generator().manual_seed(4)).double()
    batch = _batch()._replace(resting=resting)
    whole = objective(surrogate, batch)
    got = _summed(objective, surrogate, batch, PARTS)
    torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-12)
    parted = _summed(objective, surrogate, batch, (slice(0, 7), slice(7, N)))
    assert not torch.allclose(parted, whole, rtol=1e-6)
