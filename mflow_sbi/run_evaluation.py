"""Evaluation of a trained run: what can be measured of its density, or said of what it lacks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mflow_sbi import plots
from mflow_sbi.config import RunConfig
from mflow_sbi.evaluation import (
    estimator_quality,
    marginal_distances,
    projection_metrics,
    ratio_quality,
)
from mflow_sbi.events import (
    CLOSURE_TERMS,
    WBF_OBSERVABLES,
    EventSample,
    closure,
    closure_violations,
)
from mflow_sbi.interfaces import Array, Quiet, Reporter
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import METRICS, read_like_training, read_run_config, write_text
from mflow_sbi.surrogates import TiltedFlow, TrainedSurrogate

__all__ = ["draw_events", "evaluate_run", "is_published_study"]

N_DENSITIES = 500
"""Test events whose exact density `evaluate_run` averages."""


def is_published_study(sample: EventSample) -> bool:
    """Return whether x are the 40 observables for which the closure test is defined."""
    return sample.observable_names == tuple(o.name for o in WBF_OBSERVABLES)


def evaluate_run(
    folder: Path, test_paths: str | Sequence[str], reporter: Reporter | None = None
) -> dict[str, Any]:
    """Measure a trained run on test events; writes `metrics.json` and two figures.

    Density with its measure, reconstruction error, closure of generated, projected and simulated
    events, two-sample distances of every observable.  Test events for which no point of the
    surface is found are counted, and left out of density, reconstruction error and closure of
    projections; latents without one are drawn again, and their share is told.  Where every theta
    has a surface (PIE), events are projected onto that of their theta.  Of a ratio:
    normalisation, cover of its reference, reliability.  A surrogate without a density is asked
    for reliability only, and the metrics say what it `lacks`.
    """
    reporter = reporter or Quiet()
    config = read_run_config(folder)
    surrogate = load_surrogate(folder)
    trained = surrogate.record.metadata
    test = read_like_training(trained, config, test_paths, "reading test events", reporter)
    title = config.shown_title
    if not surrogate.generates:
        return _evaluate_estimator(folder, config, surrogate, test, reporter)
    with reporter.task(f"evaluating {title} on {len(test):,} events") as progress:
        theta = test.require_theta()
        generated, n_again = surrogate.sample_counted(theta, config.seed)
        progress(1, 4)
        projected, found = surrogate.project_at(test.x, theta)
        scale = surrogate.record.observables
        projections = projection_metrics(
            scale.transform(test.x), scale.transform(projected), found
        )
        progress(2, 4)
        has_density = surrogate.surrogate.measure != "none"
        few = np.flatnonzero(found)[: N_DENSITIES if has_density else 0]
        log_prob = surrogate.log_prob(test.x[few], theta[few]) if len(few) else np.empty(0)
        progress(3, 4)
        distances = marginal_distances(test.x, generated, test.observable_names)
        metrics: dict[str, Any] = {
            "recipe": config.recipe,
            "notes": list(surrogate.record.notes),
            "n_test_events": len(test),
            "n_without_projection": projections.n_without_projection,
            "redrawn_share": n_again / (n_again + len(test)),
            "log_prob_mean": float(np.mean(log_prob)) if len(few) else None,
            "log_prob_median": float(np.median(log_prob)) if len(few) else None,
            "log_prob_events": len(log_prob),
            "log_prob_measure": surrogate.surrogate.measure,
            "reconstruction_error": (
                projections.reconstruction_error if surrogate.has_surface else None
            ),
            "closure_generated": closure(generated) if is_published_study(test) else None,
            "worst_kolmogorov_smirnov": max(d.kolmogorov_smirnov for d in distances),
            "mean_wasserstein": float(np.mean([d.wasserstein for d in distances])),
            "marginals": [asdict(distance) for distance in distances],
            "test_digest": test.digest,
        }
        if is_published_study(test):
            metrics["closure_projected"] = closure(projected[found]) if found.any() else None
            metrics["closure_simulated"] = closure(test.x)
        if isinstance(surrogate.surrogate, TiltedFlow):
            kept = (test.x[found], theta[found])
            metrics["ratio"] = ratio_quality(surrogate, *kept, config.seed)
        draw_events({title: generated}, test, folder / "figures")
        progress(4, 4)
    if projections.n_without_projection:
        reporter.warn(
            f"{projections.n_without_projection} of {len(test)} test events have no point of the "
            "surface next to them; they count in none of density, reconstruction and closure"
        )
    write_text(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    return metrics


def _evaluate_estimator(
    folder: Path,
    config: RunConfig,
    surrogate: TrainedSurrogate,
    test: EventSample,
    reporter: Reporter,
) -> dict[str, Any]:
    """Measure what there is without a density; `metrics.json` says what there is not."""
    metrics: dict[str, Any] = {
        "recipe": config.recipe,
        "notes": list(surrogate.record.notes),
        "n_test_events": len(test),
        "log_prob_measure": surrogate.surrogate.measure,
        "log_prob_mean": None,
        "reconstruction_error": None,
        "closure_generated": None,
        "lacks": surrogate.lacks,
        "ratio": estimator_quality(surrogate, test.x, test.require_theta(), config.seed),
        "test_digest": test.digest,
    }
    reporter.say(f"{config.shown_title}: {surrogate.lacks}")
    write_text(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    return metrics


def draw_events(generated: Mapping[str, Array], test: EventSample, figures: Path) -> None:
    """Draw observables, and where it is defined closure, of generated and simulated events."""
    figure = plots.observables_plot(test.x, generated, test.metadata.observables)
    plots.save_figure(figure, figures / "observables.png")
    if is_published_study(test):
        names = [term.name for term in CLOSURE_TERMS]
        weights = np.array([term.weight for term in CLOSURE_TERMS])
        violations = {k: weights * np.abs(closure_violations(x)) for k, x in generated.items()}
        simulated = weights * np.abs(closure_violations(test.x))
        figure = plots.closure_plot(violations, names, simulated)
        plots.save_figure(figure, figures / "closure.png")
