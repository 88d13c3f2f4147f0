"""`train_streamed`: the same training on events that are not all in memory.

Events come in chunks (`events.open_chunks`), pass once (`training.gathering`) and are streamed
from disk epoch by epoch (`training.streamed`).  What is fitted before gradients sees at most one
chunk's worth of events, drawn from all at random.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mflow_sbi.recipes import TrainingResult, find_recipe, require_streaming
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule, fit
from mflow_sbi.training.gathering import (
    Chunks,
    GatheredEvents,
    StreamingSettings,
    digest_of,
    gathered_events,
)
from mflow_sbi.training.streamed import StreamedEvents

__all__ = [
    "Chunks",
    "GatheredEvents",
    "StreamingSettings",
    "digest_of",
    "gathered_events",
    "train_gathered",
    "train_streamed",
]


def train_gathered(
    gathered: GatheredEvents,
    recipe: str = "mflow",
    *,
    options: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    settings: FitSettings | None = None,
    checkpoint_folder: Path | None = None,
    on_epoch: Callable[[HistoryRecord], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> TrainingResult:
    """Train a surrogate of p(x|theta) on gathered events; arguments and errors as in `train`.

    The seed and held-out share that count are those with which the events were gathered.
    """
    require_streaming(recipe)
    chosen, settings = find_recipe(recipe), settings or FitSettings()
    begun = chosen.start(gathered.drawn, chosen.parse_options(options or {}), schedule, settings)
    notes = (*gathered.weight_notes, *begun.notes(gathered.n_events))
    for note in notes:
        on_note(note)
    history = fit(
        begun.beginning.surrogate,
        StreamedEvents(gathered, begun.training_events, settings.seed),
        begun.schedule,
        settings,
        checkpoint_folder=checkpoint_folder,
        on_epoch=on_epoch,
    )
    return TrainingResult(begun.finished(gathered.metadata, gathered.digest, notes), history)


def train_streamed(
    chunks: Chunks,
    recipe: str = "mflow",
    *,
    streaming: StreamingSettings | None = None,
    max_events: int | None = None,
    settings: FitSettings | None = None,
    checkpoint_folder: Path | None = None,
    **training: Any,  # noqa: ANN401
) -> TrainingResult:
    """Train a surrogate of p(x|theta) on events that come in chunks.

    Args:
        chunks: of events, from `open_chunks`.
        recipe: name of a recipe that streams.
        streaming: how much is in memory at a time.
        max_events: train on so many events at most.
        settings: seed, held-out share, and the processes that train together.
        checkpoint_folder: where to keep (and look for) an unfinished run, and the events on disk
            as long as it is unfinished.
        **training: options, schedule, on_epoch and on_note, as in `train`.

    Raises:
        ConfigurationError: a recipe that needs all its events in memory.
        TrainingError: too few events, or a diverging objective.
        EventDataError: weights that nothing can be trained on.
    """
    require_streaming(recipe)
    settings, streaming = settings or FitSettings(), streaming or StreamingSettings()
    folder = None if checkpoint_folder is None else checkpoint_folder / "events"
    with gathered_events(
        chunks, settings, streaming, folder=folder, max_events=max_events
    ) as gathered:
        return train_gathered(
            gathered, recipe, settings=settings, checkpoint_folder=checkpoint_folder, **training
        )
