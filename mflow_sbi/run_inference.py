"""Posteriors of trained runs given observed events: draws, a corner plot, a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig
from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import (
    EmceeSampler,
    InferenceData,
    ModelSource,
    RecordedPrior,
    Sampler,
    draws_of,
    sample_posterior,
    save_posterior,
    summarise,
    verdict_on,
)
from mflow_sbi.interfaces import Likelihood, Progress, Quiet, Reporter
from mflow_sbi.run_files import POSTERIOR, file_digests
from mflow_sbi.run_observation import ObservationPolicy, Observed, observe
from mflow_sbi.run_recalibration import Recalibration, read_recalibration, recalibrated
from mflow_sbi.trained_runs import Folders, output_folder

__all__ = [
    "CHAIN",
    "SUMMARY_HEADER",
    "ObservationPolicy",
    "infer_run",
    "infer_with",
    "summary_cells",
]

CHAIN = "chain.h5"


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
    elsewhere: "Elsewhere | None" = None,
) -> InferenceData:
    """Sample the posterior of a likelihood, save it, tell convergence.

    With a chain file emcee keeps its steps there, and goes on from those that it finds.  Elsewhere
    emcee's ensembles are walked at once.

    Raises:
        ConfigurationError: a chain file or a place elsewhere for a sampler other than emcee, or
            both.
    """
    with reporter.task(f"sampling the posterior ({title})") as progress:
        if elsewhere is not None:
            posterior = elsewhere.sample(
                likelihood, prior, sampler, seed, chain_file, progress, records
            )
        elif chain_file is None:
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


@dataclass(frozen=True, eq=False)
class _ModelOfRun:
    """What a worker makes its likelihood and prior from: files, by their names."""

    folders: tuple[Path, ...]
    observed_paths: str | Sequence[str]
    analysis: AnalysisConfig
    policy: ObservationPolicy | None
    recalibration: Recalibration | None

    def __call__(self) -> tuple[Likelihood, RecordedPrior]:
        """Return the likelihood and the prior of `infer_run`."""
        run = observe(self.folders, self.observed_paths, Quiet(), self.analysis, self.policy)
        model = run.model
        if self.recalibration is not None:
            model, _ = recalibrated(run, self.analysis, self.recalibration)
        return model.likelihood, model.prior


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Where emcee's ensembles are walked, and what makes the model there."""

    source: ModelSource
    tasks: TaskMap

    def sample(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        sampler: Sampler,
        seed: int,
        chain_file: Path | None,
        progress: Progress,
        records: Mapping[str, Any] | None,
    ) -> InferenceData:
        """Return the posterior; see `EmceeSampler.sample_elsewhere`."""
        if not isinstance(sampler, EmceeSampler) or chain_file is not None:
            message = (
                "--cluster: expected the sampler emcee without --resume, whose ensembles are "
                f"independent, got {sampler.to_dict()['kind']}"
                f"{' with --resume' if chain_file is not None else ''}"
            )
            raise ConfigurationError(message)
        return sampler.sample_elsewhere(
            likelihood, prior, seed, self.source, self.tasks, progress, records
        )


def infer_run(
    folders: Folders,
    observed_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    analysis: AnalysisConfig | None = None,
    policy: ObservationPolicy | None = None,
    output: Path | None = None,
    resume: bool = False,
    apply_recalibration: bool = False,
    tasks: TaskMap | None = None,
) -> InferenceData:
    """Sample the posterior given observed events; writes `posterior.nc` and a corner plot.

    Args:
        folders: of the trained run, or of the members of an ensemble.
        observed_paths: event files.
        reporter: told about progress and about events outside.
        analysis: rate, background, nuisances, prior, sampler, further observations; shape only by
            default.
        policy: what to do with events outside the training events.
        output: folder of the results; the run's own by default.
        resume: whether emcee keeps its steps there (`chain.h5`), and goes on from them.
        apply_recalibration: whether to divide the log likelihood by the temperature in the
            folder's `recalibration.json`; said in the posterior's attributes.
        tasks: who walks emcee's ensembles; this process by default.

    Raises:
        ConfigurationError: an analysis that does not fit, or no `output` for several runs or
            observations.
        RunFolderError: no such run, or no recalibration.
    """
    reporter, analysis = reporter or Quiet(), analysis or AnalysisConfig()
    folder = output_folder(folders, output, analysis)
    run = observe(folders, observed_paths, reporter, analysis, policy)
    model, records = run.model, {**run.records, "observed_files": file_digests(observed_paths)}
    if analysis != AnalysisConfig():
        records["analysis"] = analysis.model_dump(mode="json", by_alias=True)
    recalibration = None
    if apply_recalibration:
        recalibration = read_recalibration(folder)
        model, cautions = recalibrated(run, analysis, recalibration)
        records["recalibration"] = {**recalibration.to_dict(), "cautions": cautions}
        for statement in recalibration.statements:
            reporter.say(statement)
        if cautions:
            reporter.warn(f"recalibration: this observation has {', '.join(cautions)}")
    elsewhere = None
    if tasks is not None and not isinstance(tasks, SerialMap):
        absolute = tuple(one.folder.absolute() for one in run.main.runs)
        source = _ModelOfRun(absolute, observed_paths, analysis, policy, recalibration)
        elsewhere = Elsewhere(source, tasks)
    posterior = infer_with(
        model.likelihood,
        model.prior,
        model.sampler,
        run.main.runs[0].config.seed,
        folder / POSTERIOR,
        run.title,
        reporter,
        records,
        folder / CHAIN if resume else None,
        elsewhere,
    )
    _draw(run, posterior, folder)
    return posterior


def _draw(run: Observed, posterior: InferenceData, folder: Path) -> None:
    draws = {run.title: draws_of(posterior, run.model.parameters_of_interest)}
    figure = plots.corner_plot(draws, None, run.truth, run.labels)
    plots.save_figure(figure, folder / "figures" / "posterior.png")


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
