"""Events on their way into the loop: split, encoded once where the encoding rests, in batches."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mflow_sbi.errors import TrainingError
from mflow_sbi.training.objectives import TrainingBatch

__all__ = [
    "ENCODING_ROWS",
    "TrainingEvents",
    "as_one_batch",
    "batches_of",
    "generator_of",
    "rows_of",
    "split_events",
]

ENCODING_ROWS = 8192


class TrainingEvents(NamedTuple):
    """Standardised events (N, n) and standardised parameters (N, p), rows paired.

    Where known: scores of the standardised parameters (N, p), and morphing components, each
    event's up to a factor (N, K).
    """

    x: Tensor
    theta: Tensor
    score: Tensor | None = None
    components: Tensor | None = None

    def rows(self, index: Tensor) -> "TrainingEvents":
        """Return the events of these rows."""
        return TrainingEvents(*(None if part is None else part[index] for part in self))  # pyright: ignore[reportArgumentType]


def generator_of(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by all the numbers, in order."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def split_events(
    events: TrainingEvents, validation_fraction: float, seed: int
) -> tuple[TrainingEvents, TrainingEvents]:
    """Return training and held-out events, drawn by a generator of this seed.

    Raises:
        TrainingError: no events on one side, or non-finite numbers.
    """
    n_held_out = round(validation_fraction * len(events.x))
    if n_held_out < 1 or len(events.x) - n_held_out < 2:
        message = (
            f"training needs events on both sides of the split: got {len(events.x)} events with "
            f"validation_fraction {validation_fraction}"
        )
        raise TrainingError(message)
    good = [part.isfinite().all(dim=-1) for part in events if part is not None]
    n_bad = int((~torch.stack(good).all(dim=0)).sum())
    if n_bad:
        message = f"training needs finite numbers: {n_bad} of {len(events.x)} events are not"
        raise TrainingError(message)
    order = torch.randperm(len(events.x), generator=generator_of(seed))
    held_out, kept = order[:n_held_out], order[n_held_out:]
    return events.rows(kept), events.rows(held_out)


@torch.no_grad()
def as_one_batch(
    events: TrainingEvents, resting_encoder: Callable[[Tensor], Tensor] | None
) -> TrainingBatch:
    """Return all events as one batch, with what of the encoding rests computed once."""
    if resting_encoder is None:
        return TrainingBatch(*events[:2], None, *events[2:])
    resting = torch.cat([resting_encoder(part) for part in events.x.split(ENCODING_ROWS)])
    truth = [None if part is None else part.to(resting.dtype) for part in events[2:]]
    return TrainingBatch(events.x, events.theta.to(resting.dtype), resting, *truth)


def rows_of(batch: TrainingBatch, index: Tensor) -> TrainingBatch:
    """Return the rows of a batch."""
    return TrainingBatch(*(None if part is None else part[index] for part in batch))  # pyright: ignore[reportArgumentType]


def batches_of(batch: TrainingBatch, order: Tensor, size: int) -> Iterator[TrainingBatch]:
    """Yield batches of equal size in this order; the remainder is left out."""
    size = min(size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield rows_of(batch, order[start : start + size])
