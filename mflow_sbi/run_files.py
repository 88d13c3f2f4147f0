"""The files of a run folder, and events read the way a run needs them.

runs/<name>/  config.json  surrogate/  history.csv  metrics.json  posterior.nc  figures/
              intervals.json  calibration.json  recalibration.json  predictive.json  expected.json
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

from mflow_sbi.config import RunConfig, parse_config
from mflow_sbi.errors import MetadataError, RunFolderError
from mflow_sbi.evaluation import SurfaceMetrics
from mflow_sbi.events import EventMetadata, EventSample, SelectionReport, read_events
from mflow_sbi.events.declared_layouts import as_layout
from mflow_sbi.events.reading import resolve_paths
from mflow_sbi.events.request import NO_WEIGHT
from mflow_sbi.events.sources import Sources
from mflow_sbi.interfaces import Reporter

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "FAILURE",
    "HISTORY",
    "METRICS",
    "POSTERIOR",
    "TRAINING",
    "RECALIBRATION",
    "file_digests",
    "history_csv",
    "read_history",
    "read_json",
    "read_like_training",
    "read_run_config",
    "read_with_progress",
    "stored_surface",
    "tell_report",
    "write_text",
]

CHECKPOINT = "checkpoint"
CONFIG = "config.json"
FAILURE = "failure.json"
HISTORY = "history.csv"
METRICS = "metrics.json"
POSTERIOR = "posterior.nc"
TRAINING = "training.json"
RECALIBRATION = "recalibration.json"


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    beside.replace(path)


def read_with_progress(
    paths: Sources,
    title: str,
    reporter: Reporter,
    reading: Mapping[str, Any],
    min_events: int = 1,
) -> EventSample:
    """Read events with a progress bar; tell how many were dropped, and how many repeat others.

    Args:
        paths: the files.
        title: of the bar.
        reporter: who tells.
        reading: further arguments of `read_events`, see `ReadingConfig.reading`.
        min_events: 0 where no events are an answer too.
    """
    with reporter.task(title) as progress:
        sample = read_events(paths, **reading, min_events=min_events, progress=progress)
    tell_report(sample.report or SelectionReport(0, 0), title, reporter)
    return sample


def tell_report(report: SelectionReport, title: str, reporter: Reporter) -> None:
    """Tell what was dropped of the events read, and how many repeat others."""
    for reason, n in report.dropped.items():
        if n:
            reporter.warn(f"{title}: {n} events dropped ({reason})")
    for sentence, n in report.dropped_objects.items():
        if n:
            reporter.say(f"{title}: {n} objects do not count (not {sentence})")
    if report.duplicates:
        reporter.warn(
            f"{title}: {report.duplicates} events repeat another in every number; a generator's "
            "do not: was a file copied, or merged twice?"
        )


def read_like_training(
    trained: EventMetadata,
    config: RunConfig,
    paths: str | Sequence[str],
    title: str,
    reporter: Reporter,
    min_events: int = 1,
) -> EventSample:
    """Read events as those of the training: same observables, selection and parameters.

    Raises:
        EventDataError: weighted events.
        MetadataError: events at other parameters, or parameters of another meaning.
    """
    reading = config.reading() | {"observables": trained.observables, "benchmark_weights": None}
    if config.layout is not None:
        reading["layout"] = replace(as_layout(config.layout), requires_weight=False)
    if config.weight != NO_WEIGHT:
        reading["weight"] = None  # the branch of the training need not be in observed events
    sample = read_with_progress(paths, title, reporter, reading, min_events)
    sample.require_unweighted()
    declared, expected = (_meaning(m) for m in (sample.metadata, trained))
    clash = any(
        not (mine == theirs or mine[0] == theirs[0] and "" in (mine[2], theirs[2]))
        for mine, theirs in zip(declared, expected, strict=False)
    )
    if declared and (clash or len(declared) != len(expected)):
        message = (
            f"{title}: the events are at parameters (name, unit, meaning) {declared}, but "
            f"{config.name} was trained on {expected}; use events of the same parameters"
        )
        raise MetadataError(message)
    known, simulator = sample.metadata.simulator, trained.simulator
    if (
        known
        and simulator
        and (known.name, known.settings) != (simulator.name, simulator.settings)
    ):
        reporter.warn(
            f"{title}: simulated by {known.name} {known.settings}, but {config.name} was trained "
            f"on {simulator.name} {simulator.settings}"
        )
    return sample


def _meaning(metadata: EventMetadata) -> list[tuple[str, str, str]]:
    return [(p.name, p.unit, p.description) for p in metadata.parameters]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run folder.

    Raises:
        RunFolderError: it is not one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path}: not readable JSON ({error}); it was cut or altered, make the run again"
        raise RunFolderError(message) from error
    if not isinstance(values, dict):
        message = f"{path}: expected a JSON object, got {type(values).__name__}"
        raise RunFolderError(message)
    return values


def read_run_config(folder: Path) -> RunConfig:
    """Return the configuration of a run folder.

    Raises:
        RunFolderError: no such run.
    """
    path = folder / CONFIG
    if not path.is_file():
        known = sorted(p.parent.name for p in folder.parent.glob(f"*/{CONFIG}"))
        message = f"{folder}: expected a run folder with {CONFIG}; runs beside it: {known}"
        raise RunFolderError(message)
    return parse_config(read_json(path), str(path))


def history_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the records as CSV with a header, one line an epoch."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_history(folder: Path) -> list[dict[str, str]]:
    """Return the training history of a run folder, one record an epoch, values as text."""
    with (folder / HISTORY).open(newline="") as file:
        return list(csv.DictReader(file))


def file_digests(paths: str | Sequence[str]) -> dict[str, str]:
    """Return file name -> sha256 of the files meant by paths or patterns.

    Files of one name in several folders are named with their folders.
    """
    files = resolve_paths(paths)
    several = {name for name, n in Counter(path.name for path in files).items() if n > 1}
    digests = {}
    for path in files:
        with path.open("rb") as file:
            name = str(path) if path.name in several else path.name
            digests[name] = file_digest(file, "sha256").hexdigest()
    return digests


def stored_surface(folder: Path) -> SurfaceMetrics:
    """Return closure and reconstruction error of an evaluated run, none of one that is not.

    Raises:
        RunFolderError: `metrics.json` is cut or altered.
    """
    path = folder / METRICS
    if not path.is_file():
        return SurfaceMetrics()
    metrics = read_json(path)
    missing = {"closure_generated", "reconstruction_error"} - set(metrics)
    if missing:
        message = f"{path}: no {sorted(missing)} in it; evaluate the run again"
        raise RunFolderError(message)
    return SurfaceMetrics(metrics["closure_generated"], metrics["reconstruction_error"])
