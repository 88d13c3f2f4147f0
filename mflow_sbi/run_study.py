"""Trained runs compared over many observed sets; seeds of one method together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mflow_sbi import plots
from mflow_sbi.calibration import coverage, draw_sets, posteriors_in_blocks, ranks_of
from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.comparison import (
    Contender,
    Facts,
    ObservedSets,
    StudyTable,
    compare_over_sets,
    cut_into_sets,
    study_page,
    study_table,
)
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import (
    FAILURE,
    METRICS,
    TRAINING,
    read_json,
    read_like_training,
    read_run_config,
    write_text,
)
from mflow_sbi.run_sets import RunSource
from mflow_sbi.trained_runs import TrainedRun

__all__ = ["StudySettings", "study_runs"]


@dataclass(frozen=True)
class StudySettings:
    """How runs are compared over many sets.

    Args:
        events: of each set.
        sets: of each file; None: as many as it holds.
        exact: compare with the exact posterior that the files carry.
        rank_by: "total_variation", "log_prob", "smeared" or "density".
        calibration_sets: at theta ~ prior, drawn from test events, for the calibration error.
        cells: per axis of each grid across the bulk of the exact posterior.

    Raises:
        ConfigurationError: no events, or no sets.
    """

    events: int = 20
    sets: int | None = None
    exact: bool = True
    rank_by: str = "total_variation"
    calibration_sets: int = 200
    cells: int = 32

    def __post_init__(self) -> None:
        numbers = (self.events, 1 if self.sets is None else self.sets, self.calibration_sets)
        if min(numbers) < 1:
            message = f"comparison: expected sets and events, got {self}"
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class _Method:
    """Runs that differ by seed and name alone, and those of them that failed."""

    label: str
    runs: tuple[TrainedRun, ...]
    failed: int


def study_runs(
    folders: Sequence[Path],
    observed_paths: Sequence[str],
    output: Path,
    reporter: Reporter | None = None,
    *,
    settings: StudySettings | None = None,
    calibration_paths: Sequence[str] = (),
    tasks: TaskMap | None = None,
) -> StudyTable:
    """Compare runs over sets of events of every file; writes study.md, .csv, .json, .html, .png.

    Runs whose configurations differ by name and seed alone are one method.  Closure and
    reconstruction error come from `metrics.json`, costs from `training.json`, failed trainings
    from `failure.json` of the run folders.

    Args:
        folders: of runs, trained or failed.
        observed_paths: files of events at one truth each.
        output: folder of table, figure and page.
        reporter: told what happens.
        settings: numbers of sets and events, and the order of the rows.
        calibration_paths: test events at theta ~ prior with morphing components; without them
            there is no calibration error.
        tasks: who evaluates the posteriors; this process by default.

    Raises:
        ConfigurationError: the same run twice, runs of other priors, selections or observables.
        MissingReference: the exact posterior was asked for and a file does not carry it.
    """
    reporter, settings = reporter or Quiet(), settings or StudySettings()
    methods = _methods(folders)
    runs = [run for method in methods for run in method.runs]
    if not runs:
        message = f"comparison: none of {len(folders)} runs has a surrogate; train them first"
        raise ConfigurationError(message)
    observed = [_observed(path, runs[0], settings, reporter) for path in observed_paths]
    contenders = [
        Contender(
            method.label,
            tuple(RunSource.of(run).likelihood for run in method.runs),
            method.failed,
        )
        for method in methods
    ]
    with reporter.task(f"posteriors of {len(runs)} runs") as progress:
        study = compare_over_sets(
            contenders,
            observed,
            runs[0].prior,
            with_exact=settings.exact,
            cells=settings.cells,
            progress=progress,
            tasks=tasks,
        )
    errors = _calibration_errors(
        methods, calibration_paths, settings, reporter, tasks or SerialMap()
    )
    facts = {method.label: _facts(method, errors.get(method.label, ())) for method in methods}
    table = study_table(study, facts).in_order(settings.rank_by)
    _write(table, output)
    return table


def _methods(folders: Sequence[Path]) -> list[_Method]:
    """Return the methods in the order of their first runs."""
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        message = f"comparison: expected different run folders, got {[str(f) for f in folders]}"
        raise ConfigurationError(message)
    configs = {folder: read_run_config(folder) for folder in folders}
    groups: dict[str, list[Path]] = {}
    for folder, config in configs.items():
        _require_alike(configs[folders[0]], config)
        groups.setdefault(_apart_from_seed(config), []).append(folder)
    titles = [configs[group[0]].shown_title for group in groups.values()]
    methods = []
    for title, group in zip(titles, groups.values(), strict=True):
        first = configs[group[0]]
        label = title if titles.count(title) == 1 else f"{title} ({first.name})"
        failed = [folder for folder in group if (folder / FAILURE).is_file()]
        kept = [folder for folder in group if folder not in failed]
        runs = tuple(TrainedRun(f, configs[f], load_surrogate(f)) for f in kept)
        methods.append(_Method(label, runs, len(failed)))
    return methods


def _apart_from_seed(config: RunConfig) -> str:
    return config.model_copy(update={"name": "run", "seed": 0}).to_json()


def _require_alike(first: RunConfig, config: RunConfig) -> None:
    if config.prior != first.prior or config.cuts != first.cuts:
        message = (
            f"comparison: runs {first.name} and {config.name} have another prior or selection; "
            "posteriors compare only under one"
        )
        raise ConfigurationError(message)
    if config.observables != first.observables:
        message = (
            f"comparison over sets: runs {first.name} and {config.name} read other observables; "
            "compare them one observation at a time, without sets"
        )
        raise ConfigurationError(message)


def _observed(
    path: str, run: TrainedRun, settings: StudySettings, reporter: Reporter
) -> ObservedSets:
    trained = run.surrogate.record.metadata
    sample = read_like_training(trained, run.config, path, "reading observed events", reporter)
    return cut_into_sets(sample, settings.events, settings.sets)


def _calibration_errors(
    methods: Sequence[_Method],
    paths: Sequence[str],
    settings: StudySettings,
    reporter: Reporter,
    tasks: TaskMap,
) -> Mapping[str, tuple[float, ...]]:
    """Return mean |coverage - level| of every seed, over levels of highest-density regions."""
    if not paths:
        return {}
    run = next(run for method in methods for run in method.runs)
    trained = run.surrogate.record.metadata
    pool = read_like_training(trained, run.config, list(paths), "reading test events", reporter)
    rng = np.random.default_rng(run.config.seed)
    drawn = draw_sets(pool, run.prior, settings.calibration_sets, settings.events, rng)
    found: dict[str, tuple[float, ...]] = {}
    total = sum(len(method.runs) for method in methods)
    with reporter.task(f"calibration over {settings.calibration_sets} sets") as progress:
        for method in methods:
            errors = []
            for member in method.runs:
                source = RunSource.of(member)
                posteriors = posteriors_in_blocks(source, drawn, run.prior, tasks)
                ranks = ranks_of(posteriors, drawn.theta)
                errors.append(
                    float(np.mean([abs(c.share - c.level) for c in coverage(ranks.credibility)]))
                )
                progress(sum(map(len, found.values())) + len(errors), total)
            found[method.label] = tuple(errors)
    return found


def _facts(method: _Method, calibration_error: tuple[float, ...]) -> Facts:
    """Return what the folders of a method's runs tell."""
    metrics = [_stored(run.folder / METRICS) for run in method.runs]
    costs = [_stored(run.folder / TRAINING) for run in method.runs]

    def every(records: Sequence[Mapping[str, object]], name: str) -> tuple[float, ...]:
        values = [record.get(name) for record in records]
        return tuple(float(v) for v in values if isinstance(v, int | float))

    return Facts(
        measure=method.runs[0].surrogate.surrogate.measure if method.runs else "none",
        density=every(metrics, "log_prob_mean"),
        closure=every(metrics, "closure_generated"),
        reconstruction_error=every(metrics, "reconstruction_error"),
        calibration_error=calibration_error,
        training_cpu_minutes=every(costs, "cpu_minutes"),
        parameters=method.runs[0].surrogate.n_parameters if method.runs else None,
    )


def _stored(path: Path) -> Mapping[str, object]:
    return read_json(path) if path.is_file() else {}


def _write(table: StudyTable, output: Path) -> None:
    write_text(output / "study.md", table.to_markdown())
    write_text(output / "study.csv", table.to_csv())
    write_text(output / "study.json", table.to_json())
    picture = output / "study.png"
    plots.save_figure(plots.study_plot(table), picture)
    write_text(output / "study.html", study_page(table, "Comparison over observed sets", picture))
