r"""Which epoch is the best: the objective of held-out events, and how much of it is noise.

The held-out objective is a weighted average as well, V = sum_i w_i l_i / sum_i w_i.  With weights
>= 0 the lowest V so far is the best epoch's.

With negative weights V is not bounded below: a network that gives a single held-out event of
negative weight an absurd density has the lowest V of all.  What the same events say of two epochs
differs in few numbers, though, and says how noisy it is: with V as a sum over B blocks of held-out
events and d_b a block's difference from the best epoch so far,

    D = sum_b d_b,   error^2 = B / (B - 1) sum_b (d_b - D / B)^2,

an epoch is the best where D < -error, strictly.  A single event that makes all the difference has
D = -error, and never suffices; better by many events is better.  What is given up is at most what
held-out events cannot resolve.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mflow_sbi.training.batches import ENCODING_ROWS
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.processes import ALONE, Processes

__all__ = ["HeldOut", "held_out_objective"]

BLOCKS = 20
_ROUNDING = 1e-6


class HeldOut(NamedTuple):
    """The held-out objective of an epoch, and where weights are signed the parts it sums up."""

    value: float
    blocks: tuple[float, ...] = ()

    def is_better_than(self, best: "HeldOut") -> bool:
        """Return whether this is lower, by more than its error where weights are signed."""
        if not self.blocks or not math.isfinite(best.value):
            return self.value < best.value
        differences = [new - old for new, old in zip(self.blocks, best.blocks, strict=True)]
        total, n = math.fsum(differences), len(differences)
        spread = math.fsum((d - total / n) ** 2 for d in differences)
        return total < -(1.0 + _ROUNDING) * math.sqrt(spread * n / max(1, n - 1))


@torch.no_grad()
def held_out_objective(
    objective: Callable[[TrainingBatch], Tensor],
    held_out: TrainingBatch,
    processes: Processes = ALONE,
) -> HeldOut:
    """Return the mean objective of held-out events, taken in parts, each by one of the processes.

    It is the same number in all processes.
    """
    n_events = len(held_out.x)
    signed = held_out.weight is not None and bool((held_out.weight < 0).any())
    size = min(ENCODING_ROWS, math.ceil(n_events / BLOCKS)) if signed else ENCODING_ROWS
    rows = torch.arange(n_events).split(size)
    sums = torch.zeros(len(rows), dtype=torch.float64)
    for k, index in enumerate(rows):
        if processes.takes(k):
            sums[k] = float(objective(held_out.rows(index))) * len(index)
    total, parts = 0.0, processes.summed(sums).tolist()
    for part in parts:
        total += part
    blocks = tuple(part / n_events for part in parts) if signed else ()
    return HeldOut(total / n_events, blocks)
