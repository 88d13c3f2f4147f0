"""Events larger than memory, as a source of the training loop: columns on disk, a buffer of rows.

An epoch is one pass over all training events in a random order that the seed and the position of
the epoch decide:

1. The stored rows, shuffled inside their chunk when they were written, are cut into blocks, a 64th
   of a chunk each.  A random permutation of the blocks orders them: neighbours in a file are
   spread over the epoch, unlike in a buffer that chunks enter whole.
2. `buffer_chunks` chunks' worth of blocks at a time are read into a buffer, shuffled there, and
   cut into batches; what is left of a batch goes into the next buffer.

Where all events fit into the buffer this is exactly the shuffle of events in memory.  Any event
may meet any other in a batch, but the events of one block meet more often than chance has it, by
a factor that falls with the number of blocks in the buffer.

What of the encoding rests during a phase is computed once, part by part, into one more column
(`encoded.npy`): an implicit chart takes longer to encode an event than a density to learn from it,
so that encoding again in every epoch would multiply the time; d numbers an event are little
beside the n of the event.  A run that is taken up again finds the column, known by a digest of the
events and of all numbers of the surrogate that rest.

No thread reads ahead: rows come back from the system's cache at about two million a second, in a
few per cent of the time that their steps take, and a second buffer would double the memory.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor

from mflow_sbi.errors import TrainingError
from mflow_sbi.events import EventSample
from mflow_sbi.training.batches import (
    ENCODING_ROWS,
    TrainingEvents,
    as_one_batch,
    batches_of,
    generator_of,
    with_resting,
)
from mflow_sbi.training.columns import Column
from mflow_sbi.training.gathering import GatheredEvents
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.sources import PREPARING_ROWS, Encoder, EpochSeed, PhaseEvents
from mflow_sbi.training.totals import Rows

__all__ = ["StreamedEvents"]

ENCODED = "encoded.npy"
KEY = "encoded.json"


class StreamedEvents:
    """Gathered events as a source of the loop.

    Args:
        gathered: the events.
        told: what makes of events what the loop takes, but for their weights.
        seed: of the loop.

    Raises:
        TrainingError: weights of no positive sum on one side of the split.
    """

    def __init__(
        self,
        gathered: GatheredEvents,
        told: Callable[[EventSample], TrainingEvents],
        seed: int,
    ) -> None:
        self.gathered = gathered
        self.seed = seed
        self._told = told
        self._means = [_weight_means(side) for side in (gathered.held_out, gathered.columns)]

    @property
    def digest(self) -> str:
        """Digest of the events and of what decides their order."""
        gathered = self.gathered
        text = repr((gathered.digest, gathered.layout, gathered.streaming))
        return sha256(text.encode()).hexdigest()

    @cached_property
    def held_out(self) -> TrainingEvents:
        """The held-out events."""
        columns = self.gathered.held_out
        rows = {k: column.read(0, self.gathered.n_held_out) for k, column in columns.items()}
        return self._converted(rows, self._means[0])

    def preparing(self) -> Tensor:
        """Return events to train on: the first where all fit into the buffer, else random ones."""
        streaming, blocks = self.gathered.streaming, self.n_blocks
        chosen = torch.arange(blocks)
        if blocks > streaming.buffer_blocks:
            order = torch.randperm(blocks, generator=generator_of(self.seed, 4))
            n = min(streaming.buffer_blocks, math.ceil(PREPARING_ROWS / streaming.block_rows))
            chosen = order[:n].sort().values
        parts, n_rows = [], 0
        for block in chosen.tolist():
            parts.append(self.read(*self.rows_of_block(block)).x)
            n_rows += len(parts[-1])
            if n_rows >= PREPARING_ROWS:
                break
        return torch.cat(parts)[:PREPARING_ROWS]

    def phase_events(self, encoder: Encoder | None, resting: Mapping[str, Tensor]) -> PhaseEvents:
        """Return the events of a phase, encoded once on disk where the encoding rests."""
        held_out = as_one_batch(self.held_out, encoder, self.gathered.processes)
        column = None if encoder is None else self._encoded(encoder, resting)
        return StreamedPhase(self, held_out, column)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return math.ceil(self.gathered.n_training / self.gathered.streaming.block_rows)

    def rows_of_block(self, block: int) -> tuple[int, int]:
        """Return the first row of a block, and the one after its last."""
        size = self.gathered.streaming.block_rows
        return block * size, min((block + 1) * size, self.gathered.n_training)

    def read(self, start: int, stop: int) -> TrainingEvents:
        """Return stored events as the loop takes them."""
        rows = {k: column.read(start, stop) for k, column in self.gathered.columns.items()}
        return self._converted(rows, self._means[1])

    def _converted(self, rows: Rows, means: tuple[float, float] | None) -> TrainingEvents:
        known = {k: v for k, v in rows.items() if k not in ("weight", "theta_weight")}
        gathered = self.gathered
        told = self._told(EventSample(metadata=gathered.metadata, report=gathered.report, **known))
        if means is None:
            return told
        weight, theta_weight = (torch.from_numpy(rows[k]) for k in ("weight", "theta_weight"))
        return told._replace(weight=weight / means[0], theta_weight=theta_weight / means[1])

    @torch.no_grad()
    def _encoded(self, encoder: Encoder, resting: Mapping[str, Tensor]) -> Column:
        """Return the column of the encoding, made by all processes, or found."""
        folder, processes = self.gathered.folder, self.gathered.processes
        path, note = folder / ENCODED, folder / KEY
        key = self._key(resting)
        if note.exists() and json.loads(note.read_text()) == key:
            return Column.open(path)
        processes.wait()
        n = self.gathered.n_training
        if processes.is_first:
            example = encoder(self.read(0, 2).x).numpy()
            note.unlink(missing_ok=True)
            Column.empty(path, (n, *example.shape[1:]), example.dtype)
        processes.wait()
        column = Column.open(path)
        for k, start in enumerate(range(0, n, ENCODING_ROWS)):
            if processes.takes(k):
                part = self.read(start, min(start + ENCODING_ROWS, n))
                column.write(start, encoder(part.x).numpy())
        processes.wait()
        if processes.is_first:
            note.write_text(json.dumps(key))
        return column

    def _key(self, resting: Mapping[str, Tensor]) -> str:
        """Return the digest of what decides the encoding."""
        total = sha256(self.gathered.digest.encode() + self.digest.encode())
        for name, value in sorted(resting.items()):
            total.update(f"{name}{tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class StreamedPhase:
    """Streamed events of one phase.

    Args:
        source: of the events.
        held_out: the held-out ones.
        encoded: column of what rests.
    """

    source: StreamedEvents
    held_out: TrainingBatch
    encoded: Column | None

    @property
    def n_events(self) -> int:
        """Events to train on."""
        return self.source.gathered.n_training

    def batches(self, size: int, seed: EpochSeed) -> Iterator[TrainingBatch]:
        """Yield batches of one size, no event twice; fewer events than one batch are left out."""
        size = min(size, self.n_events)
        blocks = torch.randperm(self.source.n_blocks, generator=seed.for_blocks())
        shuffles, left = seed.for_rows(), None
        for group in blocks.split(self.source.gathered.streaming.buffer_blocks):
            buffer = self._buffer(group.sort().values.tolist(), left)
            order = torch.randperm(len(buffer.x), generator=shuffles)
            whole = len(order) // size * size
            if whole:
                yield from batches_of(buffer, order[:whole], size)
            left = buffer.rows(order[whole:])
            del buffer

    def _buffer(self, blocks: list[int], left: TrainingBatch | None) -> TrainingBatch:
        """Return what was left, then the blocks, in tensors made once."""
        ranges = [self.source.rows_of_block(block) for block in blocks]
        n_left = 0 if left is None else len(left.x)
        total, place = n_left + sum(stop - start for start, stop in ranges), n_left
        buffer: TrainingBatch | None = None
        for start, stop in ranges:
            part = self._read(start, stop)
            if buffer is None:
                buffer = _empty_like(part, total)
                _fill(buffer, 0, left)
            _fill(buffer, place, part)
            place += stop - start
        assert buffer is not None
        return buffer

    def _read(self, start: int, stop: int) -> TrainingBatch:
        """Return stored events with their encoding."""
        events = self.source.read(start, stop)
        if self.encoded is None:
            return as_one_batch(events, None)
        return with_resting(events, torch.from_numpy(self.encoded.read(start, stop)))


def _empty_like(batch: TrainingBatch, n: int) -> TrainingBatch:
    """Return a batch of n rows without values."""
    return TrainingBatch(*(None if t is None else t.new_empty(n, *t.shape[1:]) for t in batch))  # pyright: ignore[reportArgumentType]


def _fill(buffer: TrainingBatch, place: int, part: TrainingBatch | None) -> None:
    """Write the part's rows into the buffer."""
    for target, values in zip(buffer, part or (), strict=part is not None):
        if target is not None and values is not None:
            target[place : place + len(values)] = values


def _weight_means(columns: Mapping[str, Column]) -> tuple[float, float] | None:
    """Return the means of both kinds of weights on one side of the split, None without them.

    Raises:
        TrainingError: they are not positive.
    """
    if "weight" not in columns:
        return None
    n = columns["weight"].shape[0]
    parts = [(start, min(start + ENCODING_ROWS, n)) for start in range(0, n, ENCODING_ROWS)]
    weight, theta_weight = (
        math.fsum(float(columns[name].read(*part).sum()) for part in parts) / n
        for name in ("weight", "theta_weight")
    )
    if not min(weight, theta_weight) > 0:
        message = (
            f"the weights of {n} events on one side of the split have the means {weight:.3g} and "
            f"(of theta) {theta_weight:.3g}, expected positive ones; take more events"
        )
        raise TrainingError(message)
    return weight, theta_weight
