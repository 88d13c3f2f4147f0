"""Posteriors of a trained run given observed events, each event first looked at.

Every observed event gets its place among the training events: reconstruction error and log density
as percentiles.  Events outside are told; they are excluded or refused only on request.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig, StatisticalModel, build_model
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError, RunFolderError
from mflow_sbi.events import EventSample
from mflow_sbi.geometry import PLACEMENT_HEADER, REFERENCE, Placement, load_reference, place
from mflow_sbi.inference import (
    CachedLikelihood,
    EmceeSampler,
    InferenceData,
    RecordedPrior,
    Sampler,
    draws_of,
    sample_posterior,
    save_posterior,
    summarise,
    truth_of,
    verdict_on,
)
from mflow_sbi.interfaces import Array, Likelihood, Quiet, Reporter
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import POSTERIOR, file_digests, read_like_training, read_run_config
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = [
    "SUMMARY_HEADER",
    "ObservationPolicy",
    "ObservedRun",
    "infer_run",
    "infer_with",
    "observe",
    "summary_cells",
]


@dataclass(frozen=True)
class ObservationPolicy:
    """What to do with observed events outside the training events.  By default they are told.

    Args:
        exclude: leave them out.
        refuse: stop.
        level: p-value below which an event is outside.
    """

    exclude: bool = False
    refuse: bool = False
    level: float = 1e-3


@dataclass(frozen=True, eq=False)
class ObservedRun:
    """A trained run, observed events, and the statistical model of both.

    Args:
        config: of the run.
        surrogate: trained.
        observed: the events that are used.
        model: likelihood, prior and sampler.
        placement: of all events that were read; None if the run keeps no reference.
    """

    config: RunConfig
    surrogate: TrainedSurrogate
    observed: EventSample
    model: StatisticalModel
    placement: Placement | None

    @property
    def truth(self) -> Array | None:
        """Parameters of interest behind the observed events, if the files tell one point, (q,)."""
        truth, every = truth_of(self.observed), list(self.surrogate.parameter_names)
        if truth is None:
            return None
        return np.array([truth[every.index(name)] for name in self.model.parameters_of_interest])

    @property
    def labels(self) -> list[str]:
        """Axis labels of the parameters of interest, with units."""
        known = {p.name: p for p in self.surrogate.record.metadata.parameters}
        return [plots.parameter_label(known[name]) for name in self.model.parameters_of_interest]

    @property
    def records(self) -> dict[str, Any]:
        """Return what an artefact says of where it came from."""
        excluded = 0 if self.placement is None else len(self.placement.kept) - len(self.observed)
        return {
            "recipe": self.config.recipe,
            "config": json.loads(self.config.to_json()),
            "surrogate": self.surrogate.record.to_dict()["digests"],
            "observed_digest": self.observed.digest,
            "events_excluded": excluded,
        }


def observe(
    folder: Path,
    observed_paths: str | Sequence[str],
    reporter: Reporter,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
) -> ObservedRun:
    """Read observed events for a trained run, place them, and build the statistical model.

    Raises:
        OffManifoldError: events outside, and the policy is to refuse them.
        ConfigurationError: an analysis that does not fit the run.
    """
    config, surrogate = read_run_config(folder), load_surrogate(folder)
    trained = surrogate.record.metadata
    observed = read_like_training(
        trained, config, observed_paths, "reading observed events", reporter
    )
    policy = policy or ObservationPolicy()
    placement = _placed(folder, surrogate, observed, policy, reporter)
    if placement is not None and policy.exclude and placement.outside.any():
        observed = observed.take(np.flatnonzero(placement.kept))
        reporter.warn(f"{int(placement.outside.sum())} events are excluded")
    events = CachedLikelihood(surrogate, observed.x)
    prior = config.prior.build(tuple(surrogate.parameter_names))
    analysis = analysis or AnalysisConfig()
    model = build_model(events, trained, analysis, prior, config.mcmc.build())
    return ObservedRun(config, surrogate, observed, model, placement)


def _placed(
    folder: Path,
    surrogate: TrainedSurrogate,
    observed: EventSample,
    policy: ObservationPolicy,
    reporter: Reporter,
) -> Placement | None:
    """Return where the events lie among the training events, and tell those outside."""
    if not (folder / "surrogate" / REFERENCE).is_file():
        if policy.exclude or policy.refuse:
            message = (
                f"{folder}: keeps no {REFERENCE} to compare observed events with; train it again"
            )
            raise RunFolderError(message)
        return None
    reference = load_reference(folder / "surrogate")
    placement = place(surrogate, reference, observed.x, policy.level)
    if placement.outside.any():
        reporter.warn(placement.statement)
        reporter.table("observed events outside", PLACEMENT_HEADER, placement.rows())
    if policy.refuse:
        placement.require_inside()
    return placement


def infer_with(
    likelihood: Likelihood,
    prior: RecordedPrior,
    sampler: Sampler,
    seed: int,
    path: Path,
    title: str,
    reporter: Reporter,
    records: Mapping[str, Any] | None = None,
    chain_file: Path | None = None,
) -> InferenceData:
    """Sample the posterior of a likelihood, save it, tell convergence.

    With a chain file emcee keeps its steps there, and goes on from those that it finds.

    Raises:
        ConfigurationError: a chain file for a sampler that keeps none.
    """
    with reporter.task(f"sampling the posterior ({title})") as progress:
        if chain_file is None:
            posterior = sample_posterior(likelihood, prior, sampler, seed, progress, records)
        elif isinstance(sampler, EmceeSampler):
            posterior = sampler.sample_resumably(
                likelihood, prior, seed, chain_file, progress, records
            )
        else:
            message = (
                f"resume: expected the sampler emcee, which keeps its chain, got "
                f"{sampler.to_dict()['kind']}"
            )
            raise ConfigurationError(message)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_posterior(posterior, path)
    banner = verdict_on(posterior, title).banner
    if banner:
        reporter.warn(banner)
    return posterior


def infer_run(
    folder: Path,
    observed_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
    chain_file: Path | None = None,
) -> InferenceData:
    """Sample the posterior given observed events; writes `posterior.nc` and a corner plot.

    Args:
        folder: of the trained run.
        observed_paths: event files.
        reporter: told about progress and about events outside.
        analysis: rate, background, nuisances, prior, sampler; shape only by default.
        policy: what to do with events outside the training events.
        chain_file: where emcee keeps its steps, and goes on from; none by default.
    """
    reporter = reporter or Quiet()
    run = observe(folder, observed_paths, reporter, analysis, policy)
    title, model = run.config.shown_title, run.model
    records = {**run.records, "observed_files": file_digests(observed_paths)}
    if analysis is not None:
        records["analysis"] = analysis.model_dump(mode="json", by_alias=True)
    posterior = infer_with(
        model.likelihood,
        model.prior,
        model.sampler,
        run.config.seed,
        folder / POSTERIOR,
        title,
        reporter,
        records,
        chain_file,
    )
    draws = {title: draws_of(posterior, model.parameters_of_interest)}
    figure = plots.corner_plot(draws, None, run.truth, run.labels)
    plots.save_figure(figure, folder / "figures" / "posterior.png")
    return posterior


SUMMARY_HEADER = ("parameter", "mean", "width", "68% interval", "95% interval")


def summary_cells(posterior: InferenceData) -> list[tuple[str, ...]]:
    """Return one row of text per parameter, under `SUMMARY_HEADER`."""
    summary = summarise(posterior)
    rows = []
    for k, name in enumerate(summary.parameter_names):
        boxes = [f"[{box[k][0]:+.3f}, {box[k][1]:+.3f}]" for box in summary.intervals.values()]
        mean = f"{summary.mean[k]:+.3f} ± {summary.mean_error[k]:.3f}"
        rows.append((name, mean, f"{summary.std[k]:.3f}", *boxes))
    return rows
