"""Confidence intervals of trained runs given observed events."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig, StatisticalModel
from mflow_sbi.interfaces import Progress, Quiet, Reporter
from mflow_sbi.intervals import (
    IntervalSet,
    Limits,
    MaximumLikelihood,
    ProfileScan,
    maximise,
    profile,
    starts_in_box,
)
from mflow_sbi.run_files import file_digests, write_text
from mflow_sbi.run_observation import ObservationPolicy, observe
from mflow_sbi.trained_runs import Folders, output_folder

__all__ = [
    "INTERVALS_HEADER",
    "ModelIntervals",
    "intervals_of_model",
    "intervals_of_run",
    "limits_of",
]

INTERVALS_HEADER = ("parameter", "maximum", "MINOS 68%", "profile 68%", "profile 95%")
LEVELS = (0.68, 0.95)


@dataclass(frozen=True, eq=False)
class ModelIntervals:
    """Maximum likelihood and confidence intervals of a statistical model.

    Args:
        maximum: of the likelihood, nuisances constrained.
        scans: profile likelihood of each parameter of interest.
        intervals: parameter of interest -> not excluded at 68 % and at 95 %.
    """

    maximum: MaximumLikelihood
    scans: tuple[ProfileScan, ...]
    intervals: Mapping[str, tuple[IntervalSet, ...]]

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row of text per parameter, under `INTERVALS_HEADER`."""
        rows = []
        for k, name in enumerate(self.maximum.parameter_names):
            low, high = self.maximum.minos[k]
            minos = "none" if np.isnan([low, high]).any() else f"{low:+.4g} {high:+.4g}"
            shown = [
                " or ".join(str(part) for part in interval.parts)
                for interval in self.intervals.get(name, ())
            ] or ["(nuisance)", ""]
            rows.append((name, f"{self.maximum.values[k]:+.4f}", minos, *shown))
        return rows

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know, in words."""
        remarks = [words for scan in self.scans for words in scan.remarks]
        return (*self.maximum.complaints, *self.maximum.remarks, *remarks)


def limits_of(model: StatisticalModel, ranges: Mapping[str, tuple[float, float]]) -> Limits:
    """Return training ranges of the parameters, five standard deviations of the nuisances."""
    return {
        name: (-5.0, 5.0) if name in model.nuisances else ranges[name]
        for name in model.likelihood.parameter_names
    }


def intervals_of_model(
    model: StatisticalModel,
    limits: Limits,
    progress: Progress | None = None,
    near: Mapping[str, float] | None = None,
) -> ModelIntervals:
    """Return maximum, MINOS errors and profile intervals by Wilks' thresholds.

    Args:
        model: what is maximised is its constrained likelihood.
        limits: finite ones of every parameter.
        progress: called with (parameters done, all).
        near: values from where to climb too; 0 for parameters that are not in it.
    """
    likelihood, names = model.constrained_likelihood, model.parameters_of_interest
    starts = starts_in_box(likelihood, limits)
    if near is not None:
        point = [near.get(name, 0.0) for name in likelihood.parameter_names]
        starts = np.concatenate([starts, [point]])
    maximum = maximise(likelihood, starts, limits=limits)
    scans: list[ProfileScan] = []
    for name in names:
        scans.append(profile(likelihood, name, limits, maximum=maximum))
        if progress is not None:
            progress(len(scans), len(names))
    found = {
        name: tuple(scan.intervals(level) for level in LEVELS)
        for name, scan in zip(names, scans, strict=True)
    }
    return ModelIntervals(maximum, tuple(scans), found)


def intervals_of_run(
    folders: Folders,
    observed_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
    output: Path | None = None,
) -> ModelIntervals:
    """Return maximum, MINOS errors and profile intervals; writes `intervals.json` and a figure.

    Thresholds are Wilks' (asymptotic); parameters stay inside the surrogate's training range,
    nuisances within five standard deviations.

    Args:
        folders: of the trained run, or of the members of an ensemble.
        observed_paths: event files.
        reporter: told about progress and about events outside.
        analysis: rate, background, nuisances, further observations; shape only by default.
        policy: what to do with events outside the training events.
        output: folder of the results; the run's own by default.

    Raises:
        ConfigurationError: an analysis that does not fit, or no `output` for several runs or
            observations.
    """
    reporter = reporter or Quiet()
    folder = output_folder(folders, output, analysis)
    run = observe(folders, observed_paths, reporter, analysis, policy)
    with reporter.task(f"confidence intervals ({run.title})") as progress:
        found = intervals_of_model(run.model, limits_of(run.model, run.ranges), progress)
    for words in found.warnings:
        reporter.warn(words)
    record = {
        **run.records,
        "observed_files": file_digests(observed_paths),
        "maximum": found.maximum.to_dict(),
        "intervals": {k: [one.to_dict() for one in some] for k, some in found.intervals.items()},
    }
    write_text(folder / "intervals.json", json.dumps(record, indent=1) + "\n")
    figure = plots.profile_plot({run.title: found.scans}, run.truth, run.labels)
    plots.save_figure(figure, folder / "figures" / "intervals.png")
    return found
