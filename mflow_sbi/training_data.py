"""The events of a training run, in memory or streamed, behind one protocol."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mflow_sbi.config import RunConfig
from mflow_sbi.events import EventChunks, EventSample, SelectionReport, open_chunks
from mflow_sbi.interfaces import Reporter
from mflow_sbi.pool_config import events_from_pool
from mflow_sbi.recipes import TrainingResult, train
from mflow_sbi.run_files import CHECKPOINT, read_with_progress, tell_report
from mflow_sbi.streamed_training import digest_of, gathered_events, train_gathered
from mflow_sbi.training import FitSettings, HistoryRecord

__all__ = ["EVENTS", "InMemoryData", "StreamedData", "Trained", "TrainingData", "training_data"]

TITLE = "reading training events"
EVENTS = "events"


class Trained(NamedTuple):
    """A training's result, the number of its events, and some of them (all, where in memory)."""

    result: TrainingResult
    n_events: int
    events: EventSample


class TrainingData(Protocol):
    """Events of a run's configuration."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the parameters."""
        ...

    @property
    def described(self) -> str:
        """What they add to the title of the training."""
        ...

    def digest(self) -> str:
        """Return the digest of the events, as the record of a surrogate trained on them has it."""
        ...

    def train(
        self,
        folder: Path,
        settings: FitSettings,
        reporter: Reporter,
        on_epoch: Callable[[HistoryRecord], None],
    ) -> Trained:
        """Train on these events, with checkpoints in the run folder."""
        ...


def training_data(config: RunConfig, reporter: Reporter) -> TrainingData:
    """Return the events of a configuration: read, or opened where they are to be streamed."""
    if config.streaming is None:
        return InMemoryData.read(config, reporter)
    chunks = open_chunks(
        config.event_sources(),
        **config.reading(),
        chunk_events=config.streaming.chunk_events,
    )
    return StreamedData(config, chunks)


@dataclass(frozen=True, eq=False)
class InMemoryData:
    """All events of a configuration."""

    config: RunConfig
    events: EventSample

    @classmethod
    def read(cls, config: RunConfig, reporter: Reporter) -> "InMemoryData":
        """Read them, and make those to train on where they are a pool."""
        events = read_with_progress(config.event_sources(), TITLE, reporter, config.reading())
        if config.max_events is not None:
            events = events.take(np.arange(min(config.max_events, len(events))))
        events, notes = events_from_pool(
            events, config.morphing, config.resample, config.prior, config.seed
        )
        for note in notes:
            reporter.say(note)
        return cls(config, events)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the parameters."""
        return self.events.parameter_names

    @property
    def described(self) -> str:
        """Their number, for the title of the training."""
        return f" on {len(self.events):,} events"

    def digest(self) -> str:
        """Return the digest of the events."""
        return self.events.digest

    def train(
        self,
        folder: Path,
        settings: FitSettings,
        reporter: Reporter,
        on_epoch: Callable[[HistoryRecord], None],
    ) -> Trained:
        """Train on these events, with checkpoints in the run folder."""
        result = train(
            self.events,
            self.config.recipe,
            options=self.config.options,
            schedule=self.config.training_schedule(),
            settings=settings,
            checkpoint_folder=folder / CHECKPOINT,
            on_epoch=on_epoch,
            on_note=reporter.say,
        )
        return Trained(result, len(self.events), self.events)


@dataclass(frozen=True, eq=False)
class StreamedData:
    """Events of a configuration, opened and not yet read."""

    config: RunConfig
    chunks: EventChunks

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the parameters."""
        return self.chunks.metadata.parameter_names

    @property
    def described(self) -> str:
        """Their number, as far as it is known before they are read."""
        return f" on up to {self.chunks.n_entries:,} events, streamed"

    def digest(self) -> str:
        """Return the digest of the events, in one pass."""
        return digest_of(self.chunks, self.config.max_events)

    def train(
        self,
        folder: Path,
        settings: FitSettings,
        reporter: Reporter,
        on_epoch: Callable[[HistoryRecord], None],
    ) -> Trained:
        """Train on these events, kept on disk beside the checkpoint as long as it takes."""
        assert self.config.streaming is not None
        with ExitStack() as stack:
            with reporter.task(TITLE) as progress:
                gathering = gathered_events(
                    self.chunks,
                    settings,
                    self.config.streaming.build(),
                    folder=folder / CHECKPOINT / EVENTS,
                    max_events=self.config.max_events,
                    on_chunk=progress,
                )
                gathered = stack.enter_context(gathering)
            tell_report(gathered.report or SelectionReport(0, 0), TITLE, reporter)
            reporter.say(
                f"streaming {gathered.n_events:,} events from disk, {gathered.n_training:,} to "
                f"train on, {gathered.n_held_out:,} held out; what is fitted before "
                f"gradients sees {len(gathered.drawn):,} of them"
            )
            result = train_gathered(
                gathered,
                self.config.recipe,
                options=self.config.options,
                schedule=self.config.training_schedule(),
                settings=settings,
                checkpoint_folder=folder / CHECKPOINT,
                on_epoch=on_epoch,
                on_note=reporter.say,
            )
            return Trained(result, gathered.n_events, gathered.drawn)
