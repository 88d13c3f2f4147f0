"""One pass over the training events: objective, gradient, step, shared out to the processes."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mflow_sbi.errors import TrainingError
from mflow_sbi.training.objectives import Objective, TrainingBatch
from mflow_sbi.training.processes import Processes
from mflow_sbi.training.schedules import Phase
from mflow_sbi.training.settings import Trainable

__all__ = ["PhaseSteps", "is_shared_out", "learning_rate_share", "share_of"]

WARM_UP_SHARE = 0.05
FINAL_RATE_SHARE = 0.01
TOGETHER = 8
"""Shares of a batch begin at multiples of this: events are turned by symmetries in turn, and turns
of groups of up to so many elements begin there too."""


def learning_rate_share(step: int, total: int) -> float:
    """Return the share of the peak rate: linear warm-up, cosine decay to 1%.

    >>> [round(learning_rate_share(step, 100), 3) for step in (0, 4, 99)]
    [0.2, 1.0, 0.01]
    """
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - 1 - warm_up)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine


def is_shared_out(objective: Objective) -> bool:
    """Return whether processes share out the events of a batch: see `Objective`."""
    return bool(getattr(objective, "of_single_events", False)) or hasattr(objective, "share")


def share_of(
    objective: Any,  # noqa: ANN401
    surrogate: Trainable,
    batch: TrainingBatch,
    rows: slice,
) -> Tensor:
    """Return the summand of these rows in the objective of the batch."""
    if hasattr(objective, "share"):
        return objective.share(surrogate, batch, rows)
    part = batch.rows(rows) if is_shared_out(objective) else batch
    return len(batch.x[rows]) / len(batch.x) * objective(surrogate, part)


class PhaseSteps:
    """The steps of a phase.

    Args:
        surrogate: what trains.
        phase: objectives and rates.
        processes: that share out every batch.
        total: steps of the whole schedule, over which the learning rate anneals.

    Raises:
        TrainingError: batches too small for every process to have an event.
    """

    def __init__(
        self, surrogate: Trainable, phase: Phase, processes: Processes, total: int
    ) -> None:
        if processes.are_many and phase.batch_size < TOGETHER * processes.size:
            message = (
                f"phase {phase.name!r}: batches of {phase.batch_size} cannot be shared out to "
                f"{processes.size} processes, {TOGETHER} events or more to each; take a larger "
                "batch_size, or fewer processes"
            )
            raise TrainingError(message)
        self.phase = phase
        self.processes = processes
        self.total = total
        self.objective = partial(_objective, surrogate, phase)
        self._surrogate = surrogate

    def epoch(
        self, optimizer: torch.optim.Optimizer, batches: Iterable[TrainingBatch], done: int
    ) -> tuple[float, int]:
        """Make a step with every batch; return the mean objective and the number of steps.

        Args:
            optimizer: of the parts that train.
            batches: of the epoch, the same in all processes.
            done: steps made before.

        Raises:
            TrainingError: a non-finite objective.
        """
        phase = self.phase
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        losses = []
        for step, batch in enumerate(batches, start=done):
            rate = phase.learning_rate * learning_rate_share(step, self.total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            share = self._share(batch)
            share.backward()
            loss = self.processes.sum_step(share, parameters)
            if not bool(torch.isfinite(loss)):
                message = (
                    f"phase {phase.name!r} diverged at step {step}: the objective is "
                    f"{loss.item()}; lower learning_rate (now {phase.learning_rate:g}) or look "
                    "for outliers in the events"
                )
                raise TrainingError(message)
            nn.utils.clip_grad_norm_(parameters, phase.clip_norm, foreach=True)
            optimizer.step()
            losses.append(loss)
        return float(torch.stack(losses).mean()), len(losses)

    def _share(self, batch: TrainingBatch) -> Tensor:
        """Return this process's share of the objective; the shares sum to that of the batch."""
        if not self.processes.are_many:
            return self.objective(batch)
        rows = self.processes.rows(len(batch.x), TOGETHER)
        terms = [
            weight * share_of(objective, self._surrogate, batch, rows)
            for objective, weight in self.phase.objectives
        ]
        return torch.stack(terms).sum()


def _objective(surrogate: Trainable, phase: Phase, batch: TrainingBatch) -> Tensor:
    terms = [weight * objective(surrogate, batch) for objective, weight in phase.objectives]
    return torch.stack(terms).sum()
