"""Confidence intervals and calibration of a trained run: the questions after the posterior."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig, StatisticalModel
from mflow_sbi.calibration import (
    CalibrationReport,
    DrawnSets,
    ExpectedCount,
    Ranks,
    calibration_report,
    coverage_curve,
    draw_counted_sets,
    draw_sets,
    posteriors_of_sets,
    rank_histogram,
    ranks_of,
)
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventMetadata, EventSample
from mflow_sbi.inference import CrossSection, RateModel, RecordedPrior
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.intervals import (
    IntervalSet,
    Limits,
    MaximumLikelihood,
    ProfileScan,
    maximise,
    profile,
    starts_in_box,
)
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import file_digests, read_like_training, read_run_config, write_text
from mflow_sbi.run_inference import ObservationPolicy, observe

__all__ = [
    "CALIBRATION_HEADER",
    "INTERVALS_HEADER",
    "CalibrationSettings",
    "RunCalibration",
    "RunIntervals",
    "calibrate_run",
    "intervals_of_run",
]

INTERVALS_HEADER = ("parameter", "maximum", "MINOS 68%", "profile 68%", "profile 95%")
CALIBRATION_HEADER = ("quantity", "measured", "p")
_LEVELS = (0.68, 0.95)


@dataclass(frozen=True, eq=False)
class RunIntervals:
    """Maximum likelihood and confidence intervals of an observation.

    Args:
        maximum: of the likelihood, nuisances constrained.
        intervals: parameter of interest -> not excluded at 68 % and at 95 %.
    """

    maximum: MaximumLikelihood
    intervals: Mapping[str, tuple[IntervalSet, ...]]

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row of text per parameter, under `INTERVALS_HEADER`."""
        rows = []
        for k, name in enumerate(self.maximum.parameter_names):
            low, high = self.maximum.minos[k]
            minos = "none" if np.isnan([low, high]).any() else f"{low:+.3f} {high:+.3f}"
            shown = [
                " or ".join(str(part) for part in interval.parts)
                for interval in self.intervals.get(name, ())
            ] or ["(nuisance)", ""]
            rows.append((name, f"{self.maximum.values[k]:+.4f}", minos, *shown))
        return rows


def intervals_of_run(
    folder: Path,
    observed_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
) -> RunIntervals:
    """Return maximum, MINOS errors and profile intervals; writes `intervals.json` and a figure.

    Thresholds are Wilks' (asymptotic); parameters stay inside the surrogate's training range,
    nuisances within five standard deviations.
    """
    reporter = reporter or Quiet()
    run = observe(folder, observed_paths, reporter, analysis, policy)
    model, names = run.model, run.model.parameters_of_interest
    ranges = zip(
        run.surrogate.parameter_names, run.surrogate.parameter_ranges.tolist(), strict=True
    )
    limits = _limits(model, dict(ranges))
    likelihood = model.constrained_likelihood
    with reporter.task(f"confidence intervals ({run.config.shown_title})") as progress:
        maximum = maximise(likelihood, starts_in_box(likelihood, limits), limits=limits)
        scans: list[ProfileScan] = []
        for name in names:
            progress(len(scans), len(names))
            scans.append(profile(likelihood, name, limits, maximum=maximum))
        progress(len(names), len(names))
    for complaint in (*maximum.complaints, *maximum.remarks):
        reporter.warn(complaint)
    found = {
        name: tuple(scan.intervals(level) for level in _LEVELS)
        for name, scan in zip(names, scans, strict=True)
    }
    result = RunIntervals(maximum, found)
    record = {
        **run.records,
        "observed_files": file_digests(observed_paths),
        "maximum": maximum.to_dict(),
        "intervals": {k: [one.to_dict() for one in some] for k, some in found.items()},
    }
    write_text(folder / "intervals.json", json.dumps(record, indent=1) + "\n")
    figure = plots.profile_plot({run.config.shown_title: scans}, run.truth, run.labels)
    plots.save_figure(figure, folder / "figures" / "intervals.png")
    return result


def _limits(model: StatisticalModel, ranges: Mapping[str, Sequence[float]]) -> Limits:
    """Return training ranges of the parameters, five standard deviations of the nuisances."""
    return {
        name: (-5.0, 5.0) if name in model.nuisances else (ranges[name][0], ranges[name][1])
        for name in model.likelihood.parameter_names
    }


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
    """Reports of the learned posteriors and, where the file has it, of the exact ones."""

    learned: CalibrationReport
    exact: CalibrationReport | None

    def rows(self) -> list[tuple[str, ...]]:
        """Return lines of text under `CALIBRATION_HEADER`."""
        parts = {"learned": self.learned, "exact": self.exact}
        return [
            (f"{label}: {row[0]}", *row[1:])
            for label, report in parts.items()
            if report is not None
            for row in report.rows()
        ]


def calibrate_run(
    folder: Path,
    pool_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    settings: CalibrationSettings | None = None,
    analysis: AnalysisConfig | None = None,
) -> RunCalibration:
    """Return ranks and coverage over many sets of events; writes `calibration.json`, a figure.

    Sets at theta ~ prior are drawn from a pool of test events by their morphing weights.  With a
    luminosity the numbers of events are Poisson and count.

    Args:
        folder: of the trained run.
        pool_paths: test events at theta ~ prior, with morphing components.
        reporter: told about progress.
        settings: how many sets.
        analysis: luminosity and efficiency; the rest of it is refused here.

    Raises:
        ConfigurationError: an analysis with background, nuisances or fixed parameters.
        MissingReference: events without morphing components.
    """
    reporter, settings = reporter or Quiet(), settings or CalibrationSettings()
    config, surrogate = read_run_config(folder), load_surrogate(folder)
    pool = read_like_training(
        surrogate.record.metadata, config, pool_paths, "reading the pool of test events", reporter
    )
    prior = config.prior.build(tuple(surrogate.parameter_names))
    rng = np.random.default_rng(config.seed)
    drawn = _drawn(pool, prior, settings, _expected(surrogate.record.metadata, analysis), rng)
    everyone: dict[str, Ranks] = {}
    title = config.shown_title
    for label, sets in ((title, drawn.learned(surrogate)), ("exact", drawn.exact())):
        with reporter.task(f"{settings.sets} posteriors ({label})") as progress:
            posteriors = posteriors_of_sets(sets, prior, progress=progress)
            everyone[label] = ranks_of(posteriors, drawn.theta)
    reports = {label: calibration_report(ranks) for label, ranks in everyone.items()}
    record: dict[str, Any] = {
        "recipe": config.recipe,
        "pool_digest": pool.digest,
        "seed": config.seed,
        "events": settings.events,
        "smallest_effective_events": float(drawn.effective_events.min()),
        **{label: report.to_dict() for label, report in reports.items()},
    }
    write_text(folder / "calibration.json", json.dumps(record, indent=1) + "\n")
    histograms = {
        label: [
            rank_histogram(name, values, bins=max(2, min(20, settings.sets // 20)))
            for name, values in ranks.quantities().items()
        ]
        for label, ranks in everyone.items()
    }
    curves = {label: coverage_curve(ranks.credibility) for label, ranks in everyone.items()}
    figure = plots.calibration_plot(histograms, curves)
    plots.save_figure(figure, folder / "figures" / "calibration.png")
    return RunCalibration(reports[title], reports["exact"])


def _expected(metadata: EventMetadata, analysis: AnalysisConfig | None) -> ExpectedCount | None:
    """Return mu(theta) if the analysis counts events; refuse what is not simulated here."""
    if analysis is None:
        return None
    simulated = AnalysisConfig(luminosity=analysis.luminosity, efficiency=analysis.efficiency)
    if analysis.luminosity is None or analysis != simulated:
        message = (
            "calibration: expected an analysis of luminosity and efficiency alone; backgrounds, "
            "nuisances, fixed parameters and other priors are not simulated"
        )
        raise ConfigurationError(message)
    return RateModel(
        CrossSection.from_metadata(metadata), analysis.luminosity, analysis.efficiency
    )


def _drawn(
    pool: EventSample,
    prior: RecordedPrior,
    settings: CalibrationSettings,
    expected: ExpectedCount | None,
    rng: np.random.Generator,
) -> DrawnSets:
    if expected is None:
        return draw_sets(pool, prior, settings.sets, settings.events, rng)
    return draw_counted_sets(pool, prior, settings.sets, expected, rng)
