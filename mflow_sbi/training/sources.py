"""Where the events of the training loop come from: a protocol, and events that lie in memory.

A source has events to train on and held-out ones.  For each phase it says what of their encoding
rests (`phase_events`), and for each epoch it yields batches in an order that two generators
decide: one shuffles rows, the other blocks of rows, where a source does not hold all of them.
Both are seeded by the position in the schedule, so that the order can be made again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from mflow_sbi.training.batches import (
    TrainingEvents,
    as_one_batch,
    batches_of,
    generator_of,
    split_events,
)
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.processes import Processes
from mflow_sbi.training.settings import FitSettings

__all__ = ["PREPARING_ROWS", "EpochSeed", "EventSource", "InMemoryEvents", "PhaseEvents"]

PREPARING_ROWS = 100_000
"""Events at which a surrogate may look before gradients."""

Encoder: TypeAlias = Callable[[Tensor], Tensor]


class EpochSeed(NamedTuple):
    """The position of an epoch in a schedule, which decides its order."""

    seed: int
    cycle: int
    phase: int
    epoch: int

    def for_rows(self) -> torch.Generator:
        """Return the generator that shuffles rows."""
        return generator_of(self.seed, 1, *self[1:])

    def for_blocks(self) -> torch.Generator:
        """Return the generator that shuffles blocks of rows."""
        return generator_of(self.seed, 2, *self[1:])


class PhaseEvents(Protocol):
    """The events of one phase, with what of their encoding rests."""

    @property
    def n_events(self) -> int:
        """Events to train on."""
        ...

    @property
    def held_out(self) -> TrainingBatch:
        """Held-out events."""
        ...

    def batches(self, size: int, seed: EpochSeed) -> Iterator[TrainingBatch]:
        """Yield batches of one size, no event twice; fewer events than one batch are left out."""
        ...


class EventSource(Protocol):
    """Events to train on, and held-out ones."""

    @property
    def digest(self) -> str:
        """What agrees only for the same events in the same orders."""
        ...

    def preparing(self) -> Tensor:
        """Return standardised events to train on, a limited number, (M, n)."""
        ...

    def phase_events(self, encoder: Encoder | None, resting: Mapping[str, Tensor]) -> PhaseEvents:
        """Return the events of a phase.

        Args:
            encoder: the part of the encoding that rests, if any.
            resting: all numbers of the surrogate that rest, by name.
        """
        ...


@dataclass(frozen=True)
class InMemoryEvents:
    """All events in memory; their order is one shuffle of all of them.

    Args:
        train: to train on.
        held_out: the others.
        processes: that share the work of encoding.
    """

    train: TrainingEvents
    held_out: TrainingEvents
    processes: Processes

    @classmethod
    def split(cls, events: TrainingEvents, settings: FitSettings) -> "InMemoryEvents":
        """Return the source of these events.

        Raises:
            TrainingError: too few events, weights of no positive sum, or non-finite numbers.
        """
        sides = split_events(events, settings.validation_fraction, settings.seed)
        return cls(*sides, settings.processes)

    @property
    def digest(self) -> str:
        """sha256 of the numbers of the training events."""
        data = sha256()
        for tensor in (part for part in self.train if part is not None):
            data.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return data.hexdigest()

    def preparing(self) -> Tensor:
        """Return the first training events, (M, n)."""
        return self.train.x[:PREPARING_ROWS]

    def phase_events(
        self,
        encoder: Encoder | None,
        resting: Mapping[str, Tensor],  # noqa: ARG002
    ) -> PhaseEvents:
        """Return the events, encoded once where the encoding rests."""
        sides = (as_one_batch(s, encoder, self.processes) for s in (self.train, self.held_out))
        return ShuffledBatch(*sides)


@dataclass(frozen=True)
class ShuffledBatch:
    """Events of a phase, all in memory."""

    train: TrainingBatch
    held_out: TrainingBatch

    @property
    def n_events(self) -> int:
        """Events to train on."""
        return len(self.train.x)

    def batches(self, size: int, seed: EpochSeed) -> Iterator[TrainingBatch]:
        """Yield batches in the order of one shuffle."""
        order = torch.randperm(self.n_events, generator=seed.for_rows())
        return batches_of(self.train, order, size)
