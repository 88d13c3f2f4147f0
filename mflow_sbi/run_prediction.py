"""Posterior predictive checks of trained runs: do the observed events look like predicted ones?

Draws of the posterior that `infer` wrote each predict a set of events: as many as were observed,
or Poisson numbers where they count, background included.  Events come from the surrogate itself
(an ensemble's member by its share at the draw), or from simulated ones by their morphing weights:
the first asks whether the surrogate describes the observed events, the second whether the theory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mflow_sbi import plots
from mflow_sbi.analysis import AnalysisConfig, ObservationModel, parse_analysis
from mflow_sbi.calibration import (
    EnsembleLikelihood,
    PredictiveCheck,
    draw_replicas,
    draw_sets_at,
    predictive_check,
)
from mflow_sbi.errors import EventDataError, RunFolderError
from mflow_sbi.events import EventSample
from mflow_sbi.inference import InferenceData, draws_of, load_posterior, verdict_on
from mflow_sbi.interfaces import Array, Quiet, Reporter
from mflow_sbi.run_files import POSTERIOR, read_like_training, write_text
from mflow_sbi.run_observation import Observation, ObservationPolicy, observe_main
from mflow_sbi.trained_runs import Folders, output_folder

__all__ = ["PREDICTION_HEADER", "RunPrediction", "predict_run"]

PREDICTION_HEADER = ("observable", "distance", "p")
NUMBER = "number of events"


@dataclass(frozen=True)
class RunPrediction:
    """Observed events beside predicted ones.

    Args:
        check: of every observable.
        observed_number: of events.
        predicted_number: of events: mean and standard deviation over the predicted sets.
        number_p: two-sided share of sets with a number as far off; None where it does not count.
        source: what the predicted events were drawn from.
        converged: whether the posterior's sampler had converged.
    """

    check: PredictiveCheck
    observed_number: int
    predicted_number: tuple[float, float]
    number_p: float | None
    source: str
    converged: bool

    def rows(self) -> list[tuple[str, str, str]]:
        """Return lines of text under `PREDICTION_HEADER`: the number, then smallest p first."""
        if self.number_p is None:
            return self.check.rows()
        mean, std = self.predicted_number
        distance = f"{self.observed_number} in {mean:.1f} ± {std:.1f}"
        return [(NUMBER, distance, f"{self.number_p:.3f}"), *self.check.rows()]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            **self.check.to_dict(),
            "observed_number": self.observed_number,
            "predicted_number": list(self.predicted_number),
            "number_p": self.number_p,
            "source": self.source,
            "converged": self.converged,
        }


def predict_run(
    folders: Folders,
    observed_paths: str | Sequence[str],
    reporter: Reporter | None = None,
    *,
    simulated_paths: str | Sequence[str] | None = None,
    policy: ObservationPolicy | None = None,
    output: Path | None = None,
    n_replicas: int = 400,
) -> RunPrediction:
    """Return posterior predictive p-values; writes `predictive.json` and a figure.

    The analysis is the one that the posterior was sampled with; of several combined observations
    the main one is predicted.

    Args:
        folders: of the trained run, or of the members of an ensemble.
        observed_paths: event files, those of the posterior.
        reporter: told about progress.
        simulated_paths: simulated events with morphing components to draw from; by default events
            are the surrogate's own.
        policy: what to do with events outside the training events, as for the posterior.
        output: folder with `posterior.nc`, and of the results; the run's own by default.
        n_replicas: predicted sets.

    Raises:
        RunFolderError: no posterior there, or one of other events or runs.
        EventDataError: no observed events, whose shape cannot be compared.
        ConfigurationError: a surrogate that draws no events, and no simulated ones.
    """
    reporter = reporter or Quiet()
    folder = output_folder(folders, output)
    posterior = _posterior_in(folder)
    analysis = parse_analysis(json.loads(posterior.attrs.get("analysis", "{}")))
    run = observe_main(folders, observed_paths, reporter, analysis, policy)
    _require_same(run, posterior, folder)
    if len(run.observed) == 0:
        message = "predictive check: expected observed events to compare with, got none"
        raise EventDataError(message)
    rng = np.random.default_rng(run.runs[0].config.seed)
    points = _points(run.model, posterior, analysis, n_replicas, rng)
    sizes = _sizes(run.model, points, len(run.observed), rng)
    pool = None
    if simulated_paths is not None:
        pool = read_like_training(
            run.surrogate.record.metadata,
            run.runs[0].config,
            simulated_paths,
            "reading simulated events",
            reporter,
        )
    with reporter.task(f"{n_replicas} predicted sets of events ({run.title})"):
        replicas = _replicas(run, points, sizes, pool, rng)
    numbers = sizes.sum(axis=1)
    check = predictive_check(
        run.observed.x, [x for x in replicas if len(x)], run.observed.observable_names
    )
    result = RunPrediction(
        check,
        len(run.observed),
        (float(numbers.mean()), float(numbers.std())),
        _two_sided(len(run.observed), numbers) if run.model.counts else None,
        "the surrogate" if pool is None else "simulated events",
        verdict_on(posterior, run.title).converged,
    )
    record = {**run.records, **result.to_dict()}
    write_text(folder / "predictive.json", json.dumps(record, indent=1) + "\n")
    figure = plots.predictive_plot(
        run.observed.x, replicas, run.observed.metadata.observables, check
    )
    plots.save_figure(figure, folder / "figures" / "predictive.png")
    return result


def _posterior_in(folder: Path) -> InferenceData:
    if not (folder / POSTERIOR).is_file():
        message = (
            f"{folder}: expected {POSTERIOR}; run mflow-sbi infer with the same runs, --observed "
            "and --output first"
        )
        raise RunFolderError(message)
    return load_posterior(folder / POSTERIOR)


def _require_same(run: Observation, posterior: InferenceData, folder: Path) -> None:
    """Refuse a posterior of other events or other runs."""
    records = {key: posterior.attrs.get(key) for key in ("observed_digest", "surrogate")}
    expected = {
        "observed_digest": run.observed.digest,
        "surrogate": json.dumps(run.records["surrogate"]),
    }
    unlike = [key.split("_")[0] for key, value in expected.items() if records[key] != value]
    if unlike or ("ensemble" in run.records) != ("ensemble" in posterior.attrs):
        message = (
            f"{folder / POSTERIOR}: is of other {' and '.join(unlike) or 'runs'} than given here; "
            "run mflow-sbi infer with the same runs, --observed and --output first"
        )
        raise RunFolderError(message)


def _points(
    model: ObservationModel,
    posterior: InferenceData,
    analysis: AnalysisConfig,
    n_points: int,
    rng: np.random.Generator,
) -> Array:
    """Return posterior draws of the observation's parameters, fixed ones put in, (R, p)."""
    names = list(model.likelihood.parameter_names)
    free = [name for name in names if name not in analysis.fixed]
    draws = draws_of(posterior, free)
    points = np.array([[analysis.fixed.get(name, 0.0) for name in names]]).repeat(n_points, axis=0)
    chosen = rng.integers(len(draws), size=n_points)
    points[:, [names.index(name) for name in free]] = draws[chosen]
    return points


def _sizes(
    model: ObservationModel, points: Array, n_observed: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how many events of every population each predicted set has, (R, C)."""
    names = list(model.likelihood.parameter_names)
    means = np.stack(
        [
            one.rate(points[:, [names.index(name) for name in one.rate.parameter_names]])
            for one in model.populations
        ],
        axis=1,
    )
    if model.counts:
        return rng.poisson(means).astype(np.int64)
    return rng.multinomial(n_observed, means / means.sum(axis=1, keepdims=True)).astype(np.int64)


def _replicas(
    run: Observation,
    points: Array,
    sizes: NDArray[np.int64],
    pool: EventSample | None,
    rng: np.random.Generator,
) -> list[Array]:
    """Return a predicted set of events at every point, (N_r, n)."""
    names = list(run.model.likelihood.parameter_names)
    columns = [names.index(name) for name in run.surrogate.parameter_names]
    member = _members(run, points, rng)
    parts: list[list[Array]] = [[] for _ in points]
    for population, own in zip(run.model.populations, sizes.T, strict=True):
        theta = points[:, columns]
        if population.theta is not None:
            theta = np.broadcast_to(population.theta, theta.shape)
        if pool is not None:
            drawn = draw_sets_at(pool, theta, own, rng).events
            for part, events in zip(parts, drawn, strict=True):
                part.append(events)
            continue
        for k, trained in enumerate(run.runs):
            trained.require_generator()
            rows = np.flatnonzero(member == k)
            seed = int(rng.integers(2**31))
            if own[rows].sum():
                drawn = draw_replicas(trained.surrogate, theta[rows], own[rows], seed)
                for row, events in zip(rows, drawn, strict=True):
                    parts[row].append(events)
    width = run.observed.n_observables
    return [np.concatenate([np.empty((0, width)), *some]) for some in parts]


def _members(run: Observation, points: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which member predicts at each point, drawn by its share of the mixture, (R,)."""
    mixture = run.model.likelihood
    if not isinstance(mixture, EnsembleLikelihood):
        return np.zeros(len(points), dtype=np.intp)
    steps = np.cumsum(mixture.shares(points), axis=0)
    return (rng.random(len(points)) * steps[-1] > steps[:-1]).sum(axis=0)


def _two_sided(observed: int, predicted: NDArray[np.int64]) -> float:
    """Return twice the smaller share of sets, observed one included, on one side of it."""
    sets = np.append(predicted, observed)
    return float(min(1.0, 2 * min((sets >= observed).mean(), (sets <= observed).mean())))
