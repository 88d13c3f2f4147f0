r"""Asimov data of a trained run: weighted events that stand for what is expected.

    sum_i w_i f(x_i) = mu_s E_theta[f] + mu_b E_b[f]        (1007.1727)

Events are the surrogate's own, with weights that make its likelihood stationary at theta, or
simulated ones with morphing weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from mflow_sbi.analysis import AnalysisConfig, ObservationModel
from mflow_sbi.inference import Rate
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, EventwiseLikelihood, Reporter
from mflow_sbi.intervals import (
    EventPool,
    learned_curvatures,
    learned_scores,
    stationary_weights,
)
from mflow_sbi.run_files import read_like_training
from mflow_sbi.trained_runs import TrainedRun

__all__ = ["AsimovEvents", "AsimovWeights", "asimov_events", "asimov_weights"]


_STEP = 0.02  # of differences, in standard deviations of the training's parameters


@dataclass(frozen=True, eq=False)
class AsimovEvents:
    """Events, and the weights that make them signal or background.

    Args:
        likelihood: learned, of their shape.
        scores: t_i = grad_theta log p(x_i|theta), learned, (N, p).
        signal: weights of the signal at theta, summing to one, (N,).
        background: of the background, (N,), if there is any.
        curvatures: grad grad^T log p(x_i|theta), (N, p, p), to be what they are on average, too;
            None where noise is left in them, and for simulated events.
        pool: the events, if they were simulated.
    """

    likelihood: DifferentiableLikelihood
    scores: Array
    signal: Array
    background: Array | None
    curvatures: Array | None
    pool: EventPool | None


def asimov_events(
    run: TrainedRun,
    theta: Array,
    n_events: int,
    analysis: AnalysisConfig,
    simulated_paths: str | Sequence[str] | None,
    reporter: Reporter,
) -> AsimovEvents:
    """Return simulated events, or events of the surrogate, with their scores at theta.

    Args:
        run: trained.
        theta: (p,).
        n_events: at most, of each kind.
        analysis: with or without a background.
        simulated_paths: event files with exact morphing components, or None.
        reporter: told about progress.

    Raises:
        ConfigurationError: a surrogate that draws no events.
        MissingReference: simulated events without exact components.
    """
    if simulated_paths is None:
        return _own_events(run, theta, n_events, analysis, reporter)
    metadata, title = run.surrogate.record.metadata, "reading simulated events"
    sample = read_like_training(metadata, run.config, simulated_paths, title, reporter)
    pool = EventPool(sample.take(np.arange(min(len(sample), n_events))))
    x, background = pool.sample.x, None
    if analysis.background is not None:
        background = pool.weights(analysis.background.theta)
    scores = learned_scores(run.surrogate, x, theta)
    return AsimovEvents(run.likelihood(x), scores, pool.weights(theta), background, None, pool)


def _own_events(
    run: TrainedRun, theta: Array, n_events: int, analysis: AnalysisConfig, reporter: Reporter
) -> AsimovEvents:
    """Return events of the surrogate at theta, and at the background's."""
    run.require_generator()
    thetas = [theta]
    if analysis.background is not None:
        thetas.append(np.array(analysis.background.theta))
    with reporter.task(f"drawing {n_events:,} events"):
        seeds = np.random.SeedSequence(run.config.seed).generate_state(len(thetas)).tolist()
        parts = [
            run.surrogate.sample(np.tile(point, (n_events, 1)), seed)
            for point, seed in zip(thetas, seeds, strict=True)
        ]
    x, kinds = np.concatenate(parts), np.repeat(np.arange(len(parts)), n_events)
    own = [np.where(kinds == kind, 1 / n_events, 0.0) for kind in range(len(parts))]
    steps = _STEP * np.asarray(run.surrogate.record.parameters.std)
    return AsimovEvents(
        run.likelihood(x),
        learned_scores(run.surrogate, x, theta),
        own[0],
        own[1] if len(own) > 1 else None,
        learned_curvatures(run.surrogate, x, theta, steps),
        None,
    )


@dataclass(frozen=True, eq=False)
class AsimovWeights:
    """What the events stand for.

    Args:
        all_events: w_i, that sum to the expected number of events, (N,).
        signal: those of the signal alone, that sum to one, (N,).
    """

    all_events: Array
    signal: Array


def asimov_weights(
    events: AsimovEvents, observation: ObservationModel, theta: Array
) -> AsimovWeights:
    r"""Return the weights that make events the data expected at theta.

    Of the surrogate's own events they are such that log L is stationary at theta in all
    parameters, and has the curvature of the information there.  With lambda_i = mu_s p_i + mu_b
    p_b,i, and nuisances nu of the rates,

        sum_i w_i d lambda_i / lambda_i = d mu,    d = d_theta, d_theta d_theta, d_nu.

    Args:
        events: as from `asimov_events`.
        observation: of these events, weights left aside; nuisances are taken at zero.
        theta: (p,).

    Raises:
        IntervalError: too few events: those that are rare and matter are missing.
    """
    signal, *others = observation.populations
    mu, slope, bend = _yield_at(signal.rate, observation, theta)
    share, total, weights = np.ones(len(events.signal)), mu, mu * events.signal
    if others and events.background is not None:
        (background,) = others
        more, _, _ = _yield_at(background.rate, observation, theta)
        total, weights = mu + more, weights + more * events.background
        share = _signal_share(events.likelihood, theta, background.theta, mu, more)
    if events.pool is not None:
        return AsimovWeights(weights, events.signal)
    scores = events.scores + slope / mu
    functions = [share[:, None] * scores - slope / total, share - mu / total]
    if events.curvatures is not None:
        upper = np.triu_indices(len(theta))
        of_log_rate = bend / mu - np.outer(slope, slope) / mu**2
        seconds = np.einsum("ij,ik->ijk", scores, scores) + events.curvatures + of_log_rate
        functions.append(share[:, None] * seconds[:, *upper] - bend[upper] / total)
    weights = total * stationary_weights(np.column_stack(functions), weights)
    return AsimovWeights(weights, weights * share / (weights @ share))


def _yield_at(
    rate: Rate, observation: ObservationModel, theta: Array
) -> tuple[float, Array, Array]:
    """Return mu, its gradient (p,) and second derivatives (p, p) in theta, nuisances at zero."""
    p, names = len(theta), list(observation.likelihood.parameter_names)
    steps = 1e-3 * np.vstack([np.zeros(p), np.eye(p), -np.eye(p)])
    points = np.zeros((len(steps), len(names)))
    points[:, :p] = theta + steps
    columns = [names.index(name) for name in rate.parameter_names]
    values, own = rate.value_and_gradient(points[:, columns])
    slopes = np.zeros_like(points)
    slopes[:, columns] = own
    above, below = slopes[1 : p + 1, :p], slopes[p + 1 :, :p]
    return float(values[0]), slopes[0, :p], (above - below) / 2e-3


def _signal_share(
    likelihood: DifferentiableLikelihood,
    theta: Array,
    at_background: Array | None,
    mu_signal: float,
    mu_background: float,
) -> Array:
    """Return mu_s p(x_i|theta) / [mu_s p(x_i|theta) + mu_b p_b(x_i)], (N,)."""
    assert isinstance(likelihood, EventwiseLikelihood)
    assert at_background is not None
    terms = likelihood.per_event(np.stack([theta, at_background]))
    return expit(terms[0] - terms[1] + np.log(mu_signal / mu_background))
