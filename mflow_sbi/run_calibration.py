"""Calibration of trained runs over many sets of events, and what mends it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig
from mflow_sbi.calibration import (
    CalibrationReport,
    Coverage,
    DrawnSets,
    EnsembleSets,
    ExactSource,
    ExpectedCount,
    Ranks,
    SetPosteriors,
    SourceOfSets,
    Temperature,
    TemperedSource,
    calibration_report,
    coverage,
    coverage_curve,
    draw_counted_sets,
    draw_sets,
    fit_conformal_levels,
    fit_temperature,
    mean_spread,
    posteriors_in_blocks,
    rank_histogram,
    ranks_of,
)
from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventMetadata, EventSample
from mflow_sbi.inference import CrossSection, RateModel, RecordedPrior
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.run_files import read_like_training, write_text
from mflow_sbi.run_observation import SPREAD_HEADER
from mflow_sbi.run_recalibration import Recalibration, write_recalibration
from mflow_sbi.run_sets import MixtureSource, RunSource
from mflow_sbi.trained_runs import Folders, TrainedRun, load_runs, output_folder, title_of

__all__ = [
    "CALIBRATION_HEADER",
    "CalibrationSettings",
    "RunCalibration",
    "RunRecalibration",
    "calibrate_run",
    "recalibrate_run",
]

CALIBRATION_HEADER = ("quantity", "measured", "p")
EXACT = "exact"


@dataclass(frozen=True)
class CalibrationSettings:
    """How many sets of how many events test a posterior.

    Args:
        sets: number of sets.
        events: of each set, where the rate does not count.

    Raises:
        ConfigurationError: no sets or no events.
    """

    sets: int = 500
    events: int = 20

    def __post_init__(self) -> None:
        if min(self.sets, self.events) < 1:
            message = f"calibration: expected sets and events, got {self.sets} and {self.events}"
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class RunCalibration:
    """Reports of posteriors by what they are: learned, and exact where the file has it."""

    reports: Mapping[str, CalibrationReport]

    def rows(self) -> list[tuple[str, ...]]:
        """Return lines of text under `CALIBRATION_HEADER`."""
        return [
            (f"{label}: {row[0]}", *row[1:])
            for label, report in self.reports.items()
            for row in report.rows()
        ]


@dataclass(frozen=True, eq=False)
class RunRecalibration:
    """What was fitted on one half of the sets, and coverage on the other half.

    Args:
        recalibration: temperature and conformal levels.
        before: of the posteriors as they are.
        tempered: of those of the tempered likelihood.
        conformal: coverage of the tempered posteriors' adjusted regions.
    """

    recalibration: Recalibration
    before: CalibrationReport
    tempered: CalibrationReport
    conformal: tuple[Coverage, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return lines of text under `CALIBRATION_HEADER`."""
        parts = {"before": self.before.rows(), "tempered": self.tempered.rows()}
        parts["tempered, conformal"] = [one.row for one in self.conformal]
        return [(f"{label}: {row[0]}", *row[1:]) for label, rows in parts.items() for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Return the reports as plain JSON-ready values."""
        return {
            "before": self.before.to_dict(),
            "tempered": self.tempered.to_dict(),
            "tempered_conformal": [asdict(one) for one in self.conformal],
        }


@dataclass(frozen=True, eq=False)
class _Calibrated:
    """Runs, sets of events drawn for them, the prior of both, and who does the work."""

    runs: tuple[TrainedRun, ...]
    pool: EventSample
    drawn: DrawnSets
    settings: CalibrationSettings
    luminosity: float | None
    tasks: TaskMap

    @property
    def prior(self) -> RecordedPrior:
        return self.runs[0].prior

    @property
    def records(self) -> dict[str, Any]:
        return {
            **self.runs[0].records,
            "members": [str(run.folder) for run in self.runs],
            "pool_digest": self.pool.digest,
            "seed": self.runs[0].config.seed,
            "events": self.settings.events,
            "luminosity": self.luminosity,
            "smallest_effective_events": float(self.drawn.effective_events.min()),
        }

    def take(self, sets: NDArray[np.intp]) -> "_Calibrated":
        """Return the same for some of the sets."""
        return replace(self, drawn=self.drawn.take(sets))

    def posteriors(self, label: str, source: SourceOfSets, reporter: Reporter) -> SetPosteriors:
        """Return the posteriors of all sets, with a progress bar."""
        with reporter.task(f"{self.drawn.n_sets} posteriors ({label})") as progress:
            return posteriors_in_blocks(
                source, self.drawn, self.prior, self.tasks, progress=progress
            )

    def ranks(self, label: str, source: SourceOfSets, reporter: Reporter) -> Ranks:
        """Return where the truth stands in the posteriors of all sets."""
        return ranks_of(self.posteriors(label, source, reporter), self.drawn.theta)

    def learned(self, reporter: Reporter) -> SourceOfSets:
        """Return the learned likelihoods; of an ensemble, their mixture of equal evidence."""
        sources = [RunSource.of(run) for run in self.runs]
        if len(sources) == 1:
            return sources[0]
        members = [
            self.posteriors(run.config.name, source, reporter)
            for run, source in zip(self.runs, sources, strict=True)
        ]
        spread = mean_spread([list(member) for member in members])
        title = f"members of the {title_of(self.runs)}, root mean squares over the sets"
        reporter.table(title, SPREAD_HEADER, spread.rows())
        return MixtureSource(sources, EnsembleSets.of_equal_evidence(members).log_weights)

    def temperature(self, source: SourceOfSets, reporter: Reporter) -> Temperature:
        """Return the temperature that mends the posteriors of these sets."""
        with reporter.task("fitting the temperature"):
            return fit_temperature(
                source(self.drawn),
                self.prior,
                self.drawn.theta,
                posteriors_at=lambda value: posteriors_in_blocks(
                    TemperedSource(source, value), self.drawn, self.prior, self.tasks
                ),
            )


def calibrate_run(
    folders: Folders,
    pool_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    settings: CalibrationSettings | None = None,
    analysis: AnalysisConfig | None = None,
    output: Path | None = None,
    tasks: TaskMap | None = None,
) -> RunCalibration:
    """Return ranks and coverage over many sets of events; writes `calibration.json`, a figure.

    Sets at theta ~ prior are drawn from a pool of test events by their morphing weights.  With a
    luminosity the numbers of events are Poisson and count.

    Args:
        folders: of the trained run, or of the members of an ensemble.
        pool_paths: test events at theta ~ prior, with morphing components.
        reporter: told about progress, and how much members disagree.
        settings: how many sets.
        analysis: luminosity and efficiency; the rest of it is refused here.
        output: folder of the results; the run's own by default.
        tasks: who evaluates the posteriors; this process by default.

    Raises:
        ConfigurationError: an analysis with background, nuisances or fixed parameters, or no
            `output` for an ensemble.
        MissingReference: events without morphing components.
    """
    reporter, settings = reporter or Quiet(), settings or CalibrationSettings()
    folder = output_folder(folders, output, analysis)
    begun = _begin(folders, pool_paths, reporter, settings, analysis, tasks)
    title = title_of(begun.runs)
    ranks = {
        label: begun.ranks(label, source, reporter)
        for label, source in ((title, begun.learned(reporter)), (EXACT, ExactSource()))
    }
    reports = {label: calibration_report(some) for label, some in ranks.items()}
    records = begun.records | {label: report.to_dict() for label, report in reports.items()}
    write_text(folder / "calibration.json", json.dumps(records, indent=1) + "\n")
    _draw(ranks, folder / "figures" / "calibration.png")
    return RunCalibration({"learned": reports[title], EXACT: reports[EXACT]})


def recalibrate_run(
    folders: Folders,
    pool_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    settings: CalibrationSettings | None = None,
    analysis: AnalysisConfig | None = None,
    output: Path | None = None,
    tasks: TaskMap | None = None,
) -> RunRecalibration:
    """Fit temperature and conformal levels; writes `recalibration.json` and a figure.

    Both are fitted on one half of the sets, levels for the posteriors that the temperature makes;
    the reports are of the other half.  Nothing is applied: that is for `infer_run` to be asked.

    Arguments and errors are those of `calibrate_run`.

    Raises:
        SamplingError: no temperature mends these posteriors.
    """
    reporter, settings = reporter or Quiet(), settings or CalibrationSettings()
    folder = output_folder(folders, output, analysis)
    if settings.sets < 4:
        message = f"recalibration: expected at least four sets for two halves, got {settings.sets}"
        raise ConfigurationError(message)
    begun = _begin(folders, pool_paths, reporter, settings, analysis, tasks)
    order = np.arange(settings.sets)
    fitting, testing = (begun.take(order[k::2]) for k in (0, 1))
    source = fitting.learned(reporter)
    temperature = fitting.temperature(source, reporter)
    cooled = fitting.ranks("tempered", TemperedSource(source, temperature.value), reporter)
    recalibration = Recalibration(
        temperature,
        fit_conformal_levels(cooled.credibility),
        tuple(run.weights_digest for run in begun.runs),
        float(fitting.drawn.sizes.mean()),
        begun.luminosity,
    )
    source = testing.learned(reporter)
    tempered = TemperedSource(source, temperature.value)
    ranks = {
        "before": testing.ranks("before", source, reporter),
        "tempered": testing.ranks("tempered", tempered, reporter),
    }
    result = RunRecalibration(
        recalibration,
        calibration_report(ranks["before"]),
        calibration_report(ranks["tempered"]),
        coverage(recalibration.levels.cover(ranks["tempered"].credibility)),
    )
    write_recalibration(recalibration, folder, {**begun.records, "other_half": result.to_dict()})
    _draw(ranks, folder / "figures" / "recalibration.png")
    return result


def _begin(
    folders: Folders,
    pool_paths: str | Sequence[str],
    reporter: Reporter,
    settings: CalibrationSettings,
    analysis: AnalysisConfig | None,
    tasks: TaskMap | None,
) -> _Calibrated:
    """Read runs and pool, and draw the sets."""
    runs = load_runs(folders)
    first = runs[0]
    metadata = first.surrogate.record.metadata
    expected = _expected(metadata, analysis)
    pool = read_like_training(
        metadata, first.config, pool_paths, "reading the pool of test events", reporter
    )
    rng = np.random.default_rng(first.config.seed)
    if expected is None:
        drawn = draw_sets(pool, first.prior, settings.sets, settings.events, rng)
    else:
        drawn = draw_counted_sets(pool, first.prior, settings.sets, expected, rng)
    luminosity = None if analysis is None else analysis.luminosity
    return _Calibrated(runs, pool, drawn, settings, luminosity, tasks or SerialMap())


def _expected(metadata: EventMetadata, analysis: AnalysisConfig | None) -> ExpectedCount | None:
    """Return mu(theta) if the analysis counts events; refuse what is not simulated here."""
    if analysis is None:
        return None
    if not analysis.is_signal_only or analysis.prior is not None or analysis.luminosity is None:
        message = (
            "calibration: expected an analysis of luminosity and efficiency alone; backgrounds, "
            "nuisances, fixed parameters, further observations and other priors are not simulated"
        )
        raise ConfigurationError(message)
    return RateModel(
        CrossSection.from_metadata(metadata), analysis.luminosity, analysis.efficiency
    )


def _draw(ranks: Mapping[str, Ranks], path: Path) -> None:
    histograms = {
        label: [
            rank_histogram(name, values, bins=max(2, min(20, some.n_sets // 20)))
            for name, values in some.quantities().items()
        ]
        for label, some in ranks.items()
    }
    curves = {label: coverage_curve(some.credibility) for label, some in ranks.items()}
    plots.save_figure(plots.calibration_plot(histograms, curves), path)
