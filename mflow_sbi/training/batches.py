"""Events on their way into the loop: split, encoded once where the encoding rests, in batches."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mflow_sbi.errors import TrainingError
from mflow_sbi.events.weights import theta_weights
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.processes import ALONE, Processes

__all__ = [
    "ENCODING_ROWS",
    "TrainingEvents",
    "as_one_batch",
    "batches_of",
    "generator_of",
    "split_events",
    "with_resting",
]

ENCODING_ROWS = 8192


class TrainingEvents(NamedTuple):
    """Standardised events (N, n) and standardised parameters (N, p), rows paired.

    Where known: scores of the standardised parameters (N, p), and morphing components, each
    event's up to a factor (N, K).  Weighted events: weights (N,) up to a factor, and those of
    theta as draws from the prior, >= 0; `split_events` finds these where they are left out.
    """

    x: Tensor
    theta: Tensor
    score: Tensor | None = None
    components: Tensor | None = None
    weight: Tensor | None = None
    theta_weight: Tensor | None = None

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

    Weights have mean one on either side.

    Raises:
        TrainingError: no events on one side, weights of no positive sum, or non-finite numbers.
    """
    n_held_out = round(validation_fraction * len(events.x))
    if n_held_out < 1 or len(events.x) - n_held_out < 2:
        message = (
            f"training needs events on both sides of the split: got {len(events.x)} events with "
            f"validation_fraction {validation_fraction}"
        )
        raise TrainingError(message)
    good = [part.isfinite().all(dim=-1) for part in _columns(events)]
    n_bad = int((~torch.stack(good).all(dim=0)).sum())
    if n_bad:
        message = f"training needs finite numbers: {n_bad} of {len(events.x)} events are not"
        raise TrainingError(message)
    if events.weight is not None and events.theta_weight is None:
        theta, weight = (part.double().cpu().numpy() for part in (events.theta, events.weight))
        events = events._replace(theta_weight=torch.from_numpy(theta_weights(theta, weight)))
    order = torch.randperm(len(events.x), generator=generator_of(seed))
    held_out, kept = order[:n_held_out], order[n_held_out:]
    return _of_mean_one(events.rows(kept)), _of_mean_one(events.rows(held_out))


def _columns(events: TrainingEvents) -> Iterator[Tensor]:
    """Yield what is known of events as matrices, (N, k)."""
    return (part.reshape(len(part), -1) for part in events if part is not None)


def _of_mean_one(events: TrainingEvents) -> TrainingEvents:
    """Return the events with both kinds of weights over their means."""
    if events.weight is None or events.theta_weight is None:
        return events
    means = [float(part.mean()) for part in (events.weight, events.theta_weight)]
    if not min(means) > 0:
        message = (
            f"the weights of {len(events.x)} events on one side of the split have the mean "
            f"{min(means):.3g}, expected a positive one; take more events"
        )
        raise TrainingError(message)
    weight, theta_weight = events.weight / means[0], events.theta_weight / means[1]
    return events._replace(weight=weight, theta_weight=theta_weight)


@torch.no_grad()
def as_one_batch(
    events: TrainingEvents,
    resting_encoder: Callable[[Tensor], Tensor] | None,
    processes: Processes = ALONE,
) -> TrainingBatch:
    """Return all events as one batch, with what of the encoding rests computed once.

    Processes share out the encoding; each returns all events.
    """
    if resting_encoder is None:
        return TrainingBatch(*events[:2], None, *events[2:])
    return with_resting(events, _encoded(events.x, resting_encoder, processes))


def with_resting(events: TrainingEvents, resting: Tensor) -> TrainingBatch:
    """Return the events as one batch with what of their encoding rests, in its precision."""
    truth = [None if part is None else part.to(resting.dtype) for part in events[2:]]
    return TrainingBatch(events.x, events.theta.to(resting.dtype), resting, *truth)


def _encoded(x: Tensor, encoder: Callable[[Tensor], Tensor], processes: Processes) -> Tensor:
    """Return the encoding of all events, (N, n) -> (N, d), each part by one of the processes."""
    parts = x.split(ENCODING_ROWS)
    if not processes.are_many:
        return torch.cat([encoder(part) for part in parts])
    shape = encoder(x[:1])
    resting = shape.new_zeros(len(x), *shape.shape[1:])
    for k, (part, place) in enumerate(zip(parts, resting.split(ENCODING_ROWS), strict=True)):
        if processes.takes(k):
            place.copy_(encoder(part))
    return processes.summed(resting)


def batches_of(batch: TrainingBatch, order: Tensor, size: int) -> Iterator[TrainingBatch]:
    """Yield batches of equal size in this order; the remainder is left out."""
    size = min(size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield batch.rows(order[start : start + size])
