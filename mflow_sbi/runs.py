"""Run folders: train, evaluate, infer, compare, each one call that the command line also makes.

runs/<name>/  config.json  surrogate/  history.csv  metrics.json  posterior.nc  figures/
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch

from mflow_sbi import plots
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError, MflowSbiError, RunFolderError
from mflow_sbi.evaluation import (
    Comparison,
    SurfaceMetrics,
    compare_posteriors,
)
from mflow_sbi.events import (
    EventSample,
)
from mflow_sbi.geometry import save_reference, surface_reference
from mflow_sbi.inference import exact_likelihood, truth_of
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.recipes import TrainingResult, likelihood_of, load_surrogate, train
from mflow_sbi.run_evaluation import draw_events, evaluate_run
from mflow_sbi.run_files import (
    CHECKPOINT,
    CONFIG,
    HISTORY,
    history_csv,
    read_history,
    read_like_training,
    read_run_config,
    read_with_progress,
    stored_surface,
    write_text,
)
from mflow_sbi.run_inference import (
    SUMMARY_HEADER,
    ObservationPolicy,
    infer_run,
    infer_with,
    summary_cells,
)
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.trained import RECORD
from mflow_sbi.training import HistoryRecord

__all__ = [
    "SUMMARY_HEADER",
    "ObservationPolicy",
    "compare_runs",
    "draw_events",
    "evaluate_run",
    "infer_run",
    "infer_with",
    "read_history",
    "read_run_config",
    "summary_cells",
    "train_run",
]


def train_run(
    config: RunConfig, folder: Path, reporter: Reporter | None = None
) -> TrainedSurrogate:
    """Train by a configuration into a run folder; an unfinished run is taken up where it was cut.

    Raises:
        RunFolderError: the folder holds a run of another configuration, or of other events.
    """
    reporter = reporter or Quiet()
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
    try:
        result = _train(sample, config, folder, reporter)
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


def _require_comparable(folders: Sequence[Path], configs: Sequence[RunConfig]) -> None:
    names = [config.name for config in configs]
    if len({folder.resolve() for folder in folders}) < len(folders) or len(set(names)) < len(
        names
    ):
        message = f"comparison: expected different runs of different names, got {names}"
        raise ConfigurationError(message)
    for config in configs[1:]:
        if config.prior != configs[0].prior or config.selection != configs[0].selection:
            message = (
                f"comparison: runs {names[0]} and {config.name} have another prior or selection; "
                "posteriors compare only under one"
            )
            raise ConfigurationError(message)


def _surface_of(surrogate: TrainedSurrogate, folder: Path) -> SurfaceMetrics:
    if not surrogate.generates:
        return SurfaceMetrics(reason=surrogate.lacks)
    return stored_surface(folder)


def compare_runs(
    folders: Sequence[Path],
    observed_paths: str | Sequence[str],
    output: Path,
    reporter: Reporter | None = None,
    *,
    with_exact: bool = True,
) -> Comparison:
    """Compare trained runs on the same observed events; writes a table (md, csv, json), a figure.

    Closure and reconstruction error come from each run's `metrics.json` (see `evaluate_run`).

    Raises:
        MissingReference: the exact posterior was asked for and the file does not carry it.
        ConfigurationError: the same run twice, or runs of different priors.
    """
    reporter = reporter or Quiet()
    configs = [read_run_config(folder) for folder in folders]
    _require_comparable(folders, configs)
    surrogates = [load_surrogate(folder) for folder in folders]
    samples = [
        read_like_training(
            surrogate.record.metadata, config, observed_paths, "reading observed events", reporter
        )
        for surrogate, config in zip(surrogates, configs, strict=True)
    ]
    observed = samples[0]
    exact = exact_likelihood(observed) if with_exact else None
    titles = [config.shown_title for config in configs]
    labels = [
        title if titles.count(title) == 1 else f"{title} ({config.name})"
        for title, config in zip(titles, configs, strict=True)
    ]
    likelihoods = {
        label: likelihood_of(surrogate, sample.x)
        for label, surrogate, sample in zip(labels, surrogates, samples, strict=True)
    }
    surfaces = {
        label: _surface_of(surrogate, folder)
        for label, surrogate, folder in zip(labels, surrogates, folders, strict=True)
    }
    prior = configs[0].prior.build(tuple(surrogates[0].parameter_names))
    with reporter.task("posteriors on one grid") as progress:
        comparison = compare_posteriors(
            likelihoods, prior, exact, truth_of(observed), surfaces, progress=progress
        )
    table = comparison.table
    write_text(output / "comparison.md", table.to_markdown())
    write_text(output / "comparison.csv", table.to_csv())
    write_text(output / "comparison.json", table.to_json())
    figure = plots.posterior_comparison_plot(table)
    plots.save_figure(figure, output / "comparison.png")
    reporter.table(table.caption, table.header, table.cells())
    return comparison
