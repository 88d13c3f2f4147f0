"""Observed events as trained runs see them: one run or an ensemble, one observation or several.

Every observed event gets its place among the training events: reconstruction error and log density
as percentiles.  Events outside are told; they are excluded or refused only on request.

Several runs for one observation are an ensemble: the mixture of their likelihoods over whole sets
of events, weighted such that under the prior of the runs, nuisances at zero, all have the same
evidence; where nothing else is said the posterior is the mean of the members' posteriors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi import plots
from mflow_sbi.analysis import (
    AnalysisConfig,
    ObservationConfig,
    ObservationModel,
    StatisticalModel,
    build_observation,
    nuisance_names,
    statistical_model,
)
from mflow_sbi.analysis_config import MAIN
from mflow_sbi.calibration import (
    EnsembleLikelihood,
    EnsembleSpread,
    ensemble_spread,
    members_posteriors,
)
from mflow_sbi.errors import EventDataError, RunFolderError
from mflow_sbi.events import EventSample
from mflow_sbi.geometry import PLACEMENT_HEADER, REFERENCE, Placement, load_reference, place
from mflow_sbi.inference import truth_of
from mflow_sbi.interfaces import Array, Reporter
from mflow_sbi.run_files import read_like_training
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.trained_runs import Folders, TrainedRun, load_runs, title_of

__all__ = [
    "SPREAD_HEADER",
    "Observation",
    "ObservationPolicy",
    "Observed",
    "observe",
    "observe_main",
]

SPREAD_HEADER = ("parameter", "mean", "width within members", "spread between members")


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
class Observation:
    """One observation, as a run or an ensemble sees it.

    Args:
        runs: trained.
        observed: the events that are used.
        model: of the events.
        kept: which of all events that were read are used, (N,).
        spread: how much the members of an ensemble disagree; None for one run.
    """

    runs: tuple[TrainedRun, ...]
    observed: EventSample
    model: ObservationModel
    kept: NDArray[np.bool_]
    spread: EnsembleSpread | None

    @property
    def surrogate(self) -> TrainedSurrogate:
        """That of the first run."""
        return self.runs[0].surrogate

    @property
    def title(self) -> str:
        """What tables and figures call it."""
        return title_of(self.runs)

    @property
    def records(self) -> dict[str, Any]:
        """Return what an artefact says of where it came from."""
        records = {
            **self.runs[0].records,
            "observed_digest": self.observed.digest,
            "events_excluded": int((~self.kept).sum()),
        }
        if self.spread is not None:
            records["ensemble"] = [run.records for run in self.runs]
            records["ensemble_spread"] = self.spread.to_dict()
        return records


@dataclass(frozen=True, eq=False)
class Observed:
    """All observations of an analysis, and their statistical model.

    Args:
        observations: by name, the main one first.
        model: of all of them: likelihood, prior and sampler.
    """

    observations: Mapping[str, Observation]
    model: StatisticalModel

    @property
    def main(self) -> Observation:
        """The observation that is not a further one."""
        return self.observations[MAIN]

    @property
    def title(self) -> str:
        """What tables and figures call it."""
        more = len(self.observations) - 1
        return self.main.title + (f", {more + 1} observations" if more else "")

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value in the training of all runs, by parameter."""
        ranges: dict[str, tuple[float, float]] = {}
        for run in self._runs:
            own = zip(
                run.surrogate.parameter_names,
                run.surrogate.parameter_ranges.tolist(),
                strict=True,
            )
            for name, (low, high) in own:
                known = ranges.get(name, (-np.inf, np.inf))
                ranges[name] = max(low, known[0]), min(high, known[1])
        return ranges

    @property
    def truth(self) -> Array | None:
        """Parameters of interest behind the observed events, if the files tell one point, (q,)."""
        known: dict[str, set[float]] = {}
        for one in self.observations.values():
            truth = truth_of(one.observed)
            if truth is None:
                return None
            for name, value in zip(one.observed.parameter_names, truth.tolist(), strict=True):
                known.setdefault(name, set()).add(value)
        values = [known[name] for name in self.model.parameters_of_interest]
        if any(len(value) > 1 for value in values):
            return None
        return np.array([value.pop() for value in values])

    @property
    def labels(self) -> list[str]:
        """Axis labels of the parameters of interest, with units."""
        known = {p.name: p for run in self._runs for p in run.surrogate.record.metadata.parameters}
        return [plots.parameter_label(known[name]) for name in self.model.parameters_of_interest]

    @property
    def records(self) -> dict[str, Any]:
        """Return what an artefact says of where it came from."""
        further = {k: one.records for k, one in self.observations.items() if k != MAIN}
        return {**self.main.records, **({"combined": further} if further else {})}

    @property
    def _runs(self) -> list[TrainedRun]:
        return [run for one in self.observations.values() for run in one.runs]


def observe(
    folders: Folders,
    observed_paths: str | Sequence[str],
    reporter: Reporter,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
) -> Observed:
    """Read observed events for trained runs, place them, and build the statistical model.

    Args:
        folders: of the run, or of the members of an ensemble.
        observed_paths: event files of the main observation.
        reporter: told about progress, about events outside, and how much members disagree.
        analysis: of the observation, and which further ones are combined with it.
        policy: what to do with events outside the training events.

    Raises:
        OffManifoldError: events outside, and the policy is to refuse them.
        ConfigurationError: an analysis that does not fit the runs.
        EventDataError: no events where only their shape counts.
    """
    analysis, policy = analysis or AnalysisConfig(), policy or ObservationPolicy()
    runs = load_runs(folders)
    observations = {MAIN: _observation(runs, observed_paths, analysis, reporter, policy, {})}
    for further in analysis.combine:
        observations[further.name] = _observation(
            load_runs(further.folders),
            further.observed_paths,
            further,
            reporter,
            policy,
            nuisance_names(further, analysis.shared),
        )
    models = {name: one.model for name, one in observations.items()}
    model = statistical_model(models, analysis, runs[0].prior, runs[0].config.mcmc.build())
    return Observed(observations, model)


def observe_main(
    folders: Folders,
    observed_paths: str | Sequence[str],
    reporter: Reporter,
    analysis: AnalysisConfig,
    policy: ObservationPolicy | None = None,
) -> Observation:
    """Return the main observation of an analysis alone; arguments are those of `observe`."""
    runs, policy = load_runs(folders), policy or ObservationPolicy()
    return _observation(runs, observed_paths, analysis, reporter, policy, {})


def _observation(
    runs: tuple[TrainedRun, ...],
    paths: str | Sequence[str],
    config: ObservationConfig,
    reporter: Reporter,
    policy: ObservationPolicy,
    names: Mapping[str, str],
) -> Observation:
    """Return one observation; `names` are those of its nuisances."""
    first = runs[0]
    observed = read_like_training(
        first.surrogate.record.metadata,
        first.config,
        paths,
        "reading observed events",
        reporter,
        min_events=0 if config.luminosity is not None else 1,
    )
    kept = np.ones(len(observed), dtype=np.bool_)
    for run in runs:
        placement = _placed(run, observed, policy, reporter)
        if placement is not None and policy.exclude:
            kept &= placement.kept
    if not kept.all():
        if not kept.any():
            message = f"all of {len(kept)} observed events would be excluded; expected some inside"
            raise EventDataError(message)
        observed = observed.take(np.flatnonzero(kept))
        reporter.warn(f"{int((~kept).sum())} events are excluded")
    models = [
        build_observation(
            run.likelihood(observed.x),
            run.surrogate.record.metadata,
            config,
            names=names,
        )
        for run in runs
    ]
    if len(models) == 1:
        return Observation(runs, observed, models[0], kept, None)
    posteriors = members_posteriors([model.nominal for model in models], first.prior)
    log_weights = [-posterior.log_evidence for posterior in posteriors]
    mixture = EnsembleLikelihood([model.likelihood for model in models], log_weights)
    spread = ensemble_spread(posteriors)
    reporter.table(f"members of the {title_of(runs)}", SPREAD_HEADER, spread.rows())
    return Observation(runs, observed, replace(models[0], likelihood=mixture), kept, spread)


def _placed(
    run: TrainedRun, observed: EventSample, policy: ObservationPolicy, reporter: Reporter
) -> Placement | None:
    """Return where the events lie among the training events, and tell those outside."""
    if len(observed) == 0:
        return None
    if not (run.folder / "surrogate" / REFERENCE).is_file():
        if policy.exclude or policy.refuse:
            message = (
                f"{run.folder}: keeps no {REFERENCE} to compare observed events with; train it "
                "again"
            )
            raise RunFolderError(message)
        return None
    reference = load_reference(run.folder / "surrogate")
    placement = place(run.surrogate, reference, observed.x, policy.level)
    if placement.outside.any():
        reporter.warn(placement.statement)
        reporter.table("observed events outside", PLACEMENT_HEADER, placement.rows())
    if policy.refuse:
        placement.require_inside()
    return placement
