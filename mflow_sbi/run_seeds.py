"""One configuration trained with several seeds, one after another or at once on a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError, TrainingError
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.run_training import train_run

__all__ = ["train_seeds"]


@dataclass(frozen=True)
class _Training:
    config: RunConfig
    folder: Path


def train_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    folder: Path,
    reporter: Reporter | None = None,
    *,
    tasks: TaskMap | None = None,
) -> list[Path]:
    """Train by a configuration with each seed; return FOLDER_seed1, FOLDER_seed2, ...

    The runs differ by name and seed alone: comparisons take them for one method, and `infer` and
    `calibrate` for an ensemble.  A training that fails stops no other.  As in `train_run`, runs
    that are there are kept, and unfinished ones gone on with.

    Args:
        config: its seed and name do not count.
        seeds: different ones, at least one.
        folder: whose name begins those of the run folders.
        reporter: told how many are done, and what became of each.
        tasks: who trains; this process by default.

    Raises:
        ConfigurationError: no seed, one twice, or a negative one.
        RunFolderError: a folder holds a run of another configuration, or of other events.
        TrainingError: some trainings failed; the others are done.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        message = f"seeds: expected different whole numbers >= 0, e.g. 1,2,3, got {list(seeds)}"
        raise ConfigurationError(message)
    trainings = [
        _Training(
            config.model_copy(update={"name": f"{config.name}_seed{seed}", "seed": seed}),
            folder.absolute().with_name(f"{folder.name}_seed{seed}"),
        )
        for seed in seeds
    ]
    reporter = reporter or Quiet()
    with reporter.task(f"{len(trainings)} trainings") as progress:
        failures = (tasks or SerialMap()).map(_trained, trainings, progress)
    folders = [folder.with_name(training.folder.name) for training in trainings]
    for path, failure in zip(folders, failures, strict=True):
        if failure is None:
            reporter.say(f"trained: {path}")
        else:
            reporter.warn(f"{path}: {failure}")
    failed = [path.name for path, failure in zip(folders, failures, strict=True) if failure]
    if failed:
        message = f"{len(failed)} of {len(folders)} trainings failed: {', '.join(failed)}"
        raise TrainingError(message)
    return folders


def _trained(training: _Training) -> str | None:
    """Train one run; return why it failed, if it did."""
    try:
        train_run(training.config, training.folder)
    except TrainingError as error:
        return str(error)
    return None
