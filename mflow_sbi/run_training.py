"""Training into a run folder: configuration, weights, history, what it took, or why it failed."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import torch

from mflow_sbi import plots
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import MflowSbiError, RunFolderError, TrainingError
from mflow_sbi.geometry import save_reference, surface_reference
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import (
    CHECKPOINT,
    CONFIG,
    FAILURE,
    HISTORY,
    TRAINING,
    history_csv,
    read_run_config,
    write_text,
)
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.trained import RECORD
from mflow_sbi.training import HistoryRecord, Schedule
from mflow_sbi.training.checkpoint import TENSORS
from mflow_sbi.training.processes import Processes, torchrun_processes
from mflow_sbi.training.steps import is_shared_out
from mflow_sbi.training_data import EVENTS, Trained, TrainingData, training_data

__all__ = ["train_run"]


def train_run(
    config: RunConfig, folder: Path, reporter: Reporter | None = None
) -> TrainedSurrogate:
    """Train by a configuration into a run folder; an unfinished run is taken up where it was cut.

    What it took goes to `training.json`.  A training that fails keeps its folder, with the reason
    in `failure.json`: comparisons count it.  Processes that torchrun started train one surrogate
    together; the first of them writes and speaks.

    Raises:
        RunFolderError: the folder holds a run of another configuration, or of other events.
        TrainingError: the training failed.
    """
    with torchrun_processes() as processes:
        heard = reporter if reporter is not None and processes.is_first else Quiet()
        return _train_run(config, folder, heard, processes)


def _train_run(
    config: RunConfig, folder: Path, reporter: Reporter, processes: Processes
) -> TrainedSurrogate:
    began, resumed = time.process_time(), (folder / CHECKPOINT / TENSORS).exists()
    recorded = folder / CONFIG
    if recorded.is_file() and read_run_config(folder) != config:
        message = (
            f"{folder}: holds a run of another configuration; choose another name, or remove the "
            "folder"
        )
        raise RunFolderError(message)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    data = training_data(config, reporter)
    config.prior.build(tuple(data.parameter_names))  # a wrong prior shows before the training
    if (folder / "surrogate" / RECORD).is_file():
        return _already_trained(folder, data, reporter)
    if processes.is_first:
        write_text(recorded, config.to_json() + "\n")
        (folder / FAILURE).unlink(missing_ok=True)
    try:
        trained = _train(data, config, folder, reporter, processes)
    except TrainingError as error:
        if processes.is_first:
            write_text(folder / FAILURE, json.dumps({"error": str(error)}, indent=1) + "\n")
            rmtree(folder / CHECKPOINT / EVENTS, ignore_errors=True)
        raise
    except MflowSbiError:
        if processes.is_first and not (folder / CHECKPOINT / TENSORS).exists():
            _leave_no_trace(folder)
        raise
    if processes.is_first:
        cpu_minutes = None if resumed else (time.process_time() - began) / 60
        _write(trained, config, folder, {"cpu_minutes": cpu_minutes, "processes": processes.size})
        rmtree(folder / CHECKPOINT, ignore_errors=True)
    return trained.result.surrogate


def _leave_no_trace(folder: Path) -> None:
    """Remove what a run has written that there is nothing to go on with."""
    rmtree(folder / CHECKPOINT, ignore_errors=True)
    (folder / CONFIG).unlink()
    with suppress(OSError):
        folder.rmdir()


def _write(trained: Trained, config: RunConfig, folder: Path, taken: Mapping[str, object]) -> None:
    """Write history, surrogate, what foreign events are told by, and what the training took."""
    surrogate = trained.result.surrogate
    rows = [record.as_row() for record in trained.result.history]
    write_text(folder / HISTORY, history_csv(rows))
    figure = plots.history_plot({config.shown_title: rows})
    plots.save_figure(figure, folder / "figures" / "history.png")
    save_reference(surface_reference(surrogate, trained.events), folder / "surrogate")
    surrogate.save(folder / "surrogate")
    record = {
        "events": trained.n_events,
        "parameters": surrogate.n_parameters,
        "threads": torch.get_num_threads(),
        **taken,
    }
    write_text(folder / TRAINING, json.dumps(record, indent=1) + "\n")


def _already_trained(folder: Path, data: TrainingData, reporter: Reporter) -> TrainedSurrogate:
    """Return the surrogate in the folder, if it was trained on these very events."""
    surrogate = load_surrogate(folder)
    if surrogate.record.digests.get("training_events") != data.digest():
        message = (
            f"{folder}: was trained with this configuration, but on other events than the files "
            "hold now; choose another name, or remove the folder"
        )
        raise RunFolderError(message)
    reporter.say(f"{folder}: already trained with this configuration")
    return surrogate


def _train(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    reporter: Reporter,
    processes: Processes,
) -> Trained:
    schedule = config.training_schedule()
    total = schedule.cycles * sum(phase.epochs for phase in schedule.phases)
    rows: list[Mapping[str, object]] = []
    if processes.are_many:
        _say_who_works(schedule, processes, reporter)
    with reporter.task(f"training {config.shown_title}{data.described}") as progress:

        def on_epoch(record: HistoryRecord) -> None:
            rows.append(record.as_row())
            if processes.is_first:
                write_text(folder / HISTORY, history_csv(rows))
            progress(len(rows), total)

        settings = replace(config.fit_settings(), processes=processes)
        return data.train(folder, settings, reporter, on_epoch)


def _say_who_works(schedule: Schedule, processes: Processes, reporter: Reporter) -> None:
    reporter.say(f"{processes.size} processes share every batch")
    whole = {
        f"{type(objective).__name__} (phase {phase.name})"
        for phase in schedule.phases
        for objective, _ in phase.objectives
        if not is_shared_out(objective)
    }
    if whole:
        reporter.warn(
            f"{', '.join(sorted(whole))}: compares the events of a batch with each other, so that "
            "every process evaluates whole batches; more processes make this no faster"
        )
