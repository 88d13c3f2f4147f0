"""Training into a run folder: configuration, weights, history, what it took, or why it failed."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch

from mflow_sbi import plots
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import MflowSbiError, RunFolderError, TrainingError
from mflow_sbi.events import EventSample
from mflow_sbi.geometry import save_reference, surface_reference
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.recipes import TrainingResult, load_surrogate, train
from mflow_sbi.run_files import (
    CHECKPOINT,
    CONFIG,
    FAILURE,
    HISTORY,
    TRAINING,
    history_csv,
    read_run_config,
    read_with_progress,
    write_text,
)
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.trained import RECORD
from mflow_sbi.training import HistoryRecord

__all__ = ["train_run"]


def train_run(
    config: RunConfig, folder: Path, reporter: Reporter | None = None
) -> TrainedSurrogate:
    """Train by a configuration into a run folder; an unfinished run is taken up where it was cut.

    What it took goes to `training.json`.  A training that fails keeps its folder, with the reason
    in `failure.json`: comparisons count it.

    Raises:
        RunFolderError: the folder holds a run of another configuration, or of other events.
        TrainingError: the training failed.
    """
    reporter = reporter or Quiet()
    began, resumed = time.process_time(), (folder / CHECKPOINT).exists()
    recorded = folder / CONFIG
    if recorded.is_file() and read_run_config(folder) != config:
        message = (
            f"{folder}: holds a run of another configuration; choose another name, or remove the "
            "folder"
        )
        raise RunFolderError(message)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    sample = read_with_progress(
        config.event_paths(),
        "reading training events",
        reporter,
        config.observables,
        config.selection,
    )
    config.prior.build(sample.parameter_names)  # a wrong prior shows before the training
    if config.max_events is not None:
        sample = sample.take(np.arange(min(config.max_events, len(sample))))
    if (folder / "surrogate" / RECORD).is_file():
        return _already_trained(folder, sample, reporter)
    write_text(recorded, config.to_json() + "\n")
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        result = _train(sample, config, folder, reporter)
    except TrainingError as error:
        write_text(folder / FAILURE, json.dumps({"error": str(error)}, indent=1) + "\n")
        raise
    except MflowSbiError:
        if not (folder / CHECKPOINT).exists():  # nothing to go on with: leave no trace
            recorded.unlink()
            with suppress(OSError):
                folder.rmdir()
        raise
    rows = [record.as_row() for record in result.history]
    write_text(folder / HISTORY, history_csv(rows))
    figure = plots.history_plot({config.shown_title: rows})
    plots.save_figure(figure, folder / "figures" / "history.png")
    save_reference(surface_reference(result.surrogate, sample), folder / "surrogate")
    result.surrogate.save(folder / "surrogate")
    taken = {
        "events": len(sample),
        "parameters": result.surrogate.n_parameters,
        "cpu_minutes": None if resumed else (time.process_time() - began) / 60,
        "threads": torch.get_num_threads(),
    }
    write_text(folder / TRAINING, json.dumps(taken, indent=1) + "\n")
    rmtree(folder / CHECKPOINT, ignore_errors=True)
    return result.surrogate


def _already_trained(folder: Path, sample: EventSample, reporter: Reporter) -> TrainedSurrogate:
    """Return the surrogate in the folder, if it was trained on these very events."""
    surrogate = load_surrogate(folder)
    if surrogate.record.digests.get("training_events") != sample.digest:
        message = (
            f"{folder}: was trained with this configuration, but on other events than the files "
            "hold now; choose another name, or remove the folder"
        )
        raise RunFolderError(message)
    reporter.say(f"{folder}: already trained with this configuration")
    return surrogate


def _train(
    sample: EventSample, config: RunConfig, folder: Path, reporter: Reporter
) -> TrainingResult:
    schedule = config.training_schedule()
    total = schedule.cycles * sum(phase.epochs for phase in schedule.phases)
    title = f"training {config.shown_title} on {len(sample):,} events"
    rows: list[Mapping[str, object]] = []

    with reporter.task(title) as progress:

        def on_epoch(record: HistoryRecord) -> None:
            rows.append(record.as_row())
            write_text(folder / HISTORY, history_csv(rows))
            progress(len(rows), total)

        return train(
            sample,
            config.recipe,
            options=config.options,
            schedule=schedule,
            settings=config.fit_settings(),
            checkpoint_folder=folder / CHECKPOINT,
            on_epoch=on_epoch,
            on_note=reporter.say,
        )
