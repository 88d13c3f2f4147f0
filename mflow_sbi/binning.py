"""How the binned baselines `histogram` and `sally` begin with their events, learn, and are made.

Both need morphing components, and nothing of the metadata but the monomials and a cross section
to start from: rates are those of the events (see `densities.event_mixture`), so that selected
events are as good as others.  Weighted events count by their weights; edges of bins are quantiles
of the events as they come.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.beginnings import Beginning, Told
from mflow_sbi.charting import ChartingEvents
from mflow_sbi.densities import KinematicFeatures, ObservableFeatures
from mflow_sbi.densities.event_mixture import EventMixture
from mflow_sbi.densities.local_score import ScoreNetwork, ScoreShape, ScoreTarget
from mflow_sbi.densities.named_observables import NamedObservables
from mflow_sbi.densities.quantile_bins import QuantileBins
from mflow_sbi.densities.templates import Templates
from mflow_sbi.errors import ConfigurationError, EventDataError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.events.weights import LEAST_EFFECTIVE_EVENTS, WeightSummary
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis
from mflow_sbi.surrogates.histogram import HistogramEstimator, LocalScoreEstimator
from mflow_sbi.tilting import TiltingOptions, symmetry_group, unfitted_features
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule, TrainingEvents, fit
from mflow_sbi.training.batches import ENCODING_ROWS, as_one_batch, split_events
from mflow_sbi.training.score_objectives import TemplateEntropy

__all__ = [
    "HistogramOptions",
    "LocalScoreOptions",
    "begin_histogram",
    "begin_sally",
    "learn_score_and_templates",
    "learn_templates",
    "rebuild_histogram",
    "rebuild_sally",
    "told_over_mixture",
]

WBF_OBSERVABLES = ("pt_j1", "delta_phi(j1, j2)")
"""What the traditional analysis of WBF events bins."""
WBF_COLUMNS = frozenset({"pt_j1", *(f"p{c}_{j}" for c in "xyz" for j in ("j1", "j2"))})
LEAST_PER_BIN = 10
TEMPLATES = "templates"


@dataclass(frozen=True)
class HistogramOptions:
    """What a histogram bins.

    Args:
        observables: names of observables, or "delta_phi(one, other)" of two objects; none: pt_j1
            and delta_phi(j1, j2), of WBF events.
        bins: on every axis, of equal counts.
    """

    observables: tuple[str, ...] = ()
    bins: int = 8

    def __post_init__(self) -> None:
        _require_bins(self.bins)


@dataclass(frozen=True)
class LocalScoreOptions:
    """Where the score is learned, from what, by a network of which size, and how it is binned.

    Args:
        reference: theta_0, physical units, a number for every parameter; none: all zero.
        bins: on the axis of every parameter, of equal counts.
        features: "kinematic" (four-momenta of objects), "observables" (any), or "automatic":
            kinematic where objects are found.
        objects: o of the observables e_o, px_o, py_o, pz_o; none: those that are no sums.
        reflection: p(x|theta) is unchanged where py and the odd parameters change sign.
        exchange: p(x|theta) is unchanged under exchange of the beams (py and pz change sign).
        odd_parameters: names of the parameters that change sign under reflection.
        hidden: width of all layers.
        layers: hidden layers.
    """

    reference: tuple[float, ...] = ()
    bins: int = 8
    features: str = "automatic"
    objects: tuple[str, ...] = ()
    reflection: bool = False
    exchange: bool = False
    odd_parameters: tuple[str, ...] = ()
    hidden: int = 96
    layers: int = 3

    def __post_init__(self) -> None:
        _require_bins(self.bins)
        _ = self.tilting

    @property
    def tilting(self) -> TiltingOptions:
        """The options that it shares with tilted densities."""
        return TiltingOptions(
            features=self.features,
            objects=self.objects,
            reflection=self.reflection,
            exchange=self.exchange,
            odd_parameters=self.odd_parameters,
            hidden=self.hidden,
            layers=self.layers,
        )


def _require_bins(bins: int) -> None:
    if bins < 2:
        message = f"bins: expected at least 2 on every axis, got {bins}"
        raise ConfigurationError(message)


def begin_histogram(
    charting: ChartingEvents,
    events: EventSample,
    options: HistogramOptions,
    seed: int,  # noqa: ARG001
) -> Beginning:
    """Return a histogram whose bins are fitted and empty.

    Raises:
        MissingReference: the events carry no components.
        ConfigurationError: observables unknown, or not named, or too many bins.
    """
    wanted = options.observables or _usual_observables(events)
    _require_events(events, options.bins, len(wanted))
    numbers = NamedObservables.named(wanted, charting.names, charting.mean, charting.std)
    bins = QuantileBins(len(wanted), options.bins).fit(numbers(charting.x))
    templates = _templates(events, bins)
    note = f"the histogram has {options.bins} bins of equal counts in each of {', '.join(wanted)}"
    surrogate = HistogramEstimator(charting.x.shape[1], numbers, bins, templates)
    resolved = replace(options, observables=tuple(wanted))
    return Beginning(surrogate, _sizes(bins, templates), resolved, (note,))


def begin_sally(
    charting: ChartingEvents, events: EventSample, options: LocalScoreOptions, seed: int
) -> Beginning:
    """Return an untrained network of the score at the reference, its bins empty.

    Raises:
        MissingReference: the events carry no components.
        ConfigurationError: unknown objects or parameters, a reference of another size or one that
            the symmetry moves, or too many bins.
        EventDataError: too few events are like those at the reference.
    """
    tilting, parameters = options.tilting, events.parameter_names
    reference = _reference(options, parameters)
    _require_events(events, options.bins, len(parameters))
    features, resolved = unfitted_features(charting, tilting)
    group = symmetry_group(features, parameters, tilting)
    features.fit(charting.x, group.odd_features)
    mixture = _mixture(events)
    worth = _worth_at(mixture, reference, events.training_weight)
    shape = ScoreShape(
        features.feature_dim, len(parameters), group.order, options.hidden, options.layers
    )
    target = ScoreTarget(mixture.basis.n_components, len(parameters)).fill(mixture, reference)
    bins = QuantileBins(len(parameters), options.bins)
    templates = _templates(events, bins)
    sizes = {
        **_sizes(bins, templates),
        **{f"score.{name}": size for name, size in shape._asdict().items()},
    }
    if isinstance(features, KinematicFeatures):
        sizes["features.objects"] = features.n_objects
    read = f"{features.feature_dim} features of {', '.join(resolved.objects) or 'the observables'}"
    note = (
        f"the network of the score reads {read}; its symmetry group has {group.order} elements; "
        f"events are worth {worth:,.0f} at the reference {reference.tolist()}"
    )
    score = ScoreNetwork(shape, seed).fill(group)
    surrogate = LocalScoreEstimator(charting.x.shape[1], features, score, target, bins, templates)
    return Beginning(surrogate, sizes, options, (note,))


def rebuild_histogram(
    shape: Mapping[str, int],
    options: HistogramOptions,  # noqa: ARG001
    seed: int,  # noqa: ARG001
) -> HistogramEstimator:
    """Return the histogram of these integers, to be filled by `load_state_dict`."""
    bins, templates = _empty(shape)
    return HistogramEstimator(shape["ambient_dim"], NamedObservables(bins.n_axes), bins, templates)


def rebuild_sally(
    shape: Mapping[str, int],
    options: LocalScoreOptions,  # noqa: ARG001
    seed: int,
) -> LocalScoreEstimator:
    """Return the estimator of these integers, to be filled by `load_state_dict`."""
    sizes = {k.removeprefix("score."): v for k, v in shape.items() if k.startswith("score.")}
    n_objects, n = shape.get("features.objects"), shape["ambient_dim"]
    features = ObservableFeatures(n) if n_objects is None else KinematicFeatures(n_objects)
    target = ScoreTarget(shape["templates.components"], shape["parameter_dim"])
    score = ScoreNetwork(ScoreShape(**sizes), seed)
    return LocalScoreEstimator(n, features, score, target, *_empty(shape))


def told_over_mixture(
    events: EventSample,
    options: HistogramOptions | LocalScoreOptions,  # noqa: ARG001
    std: Array,  # noqa: ARG001
) -> Told:
    """Return components over the density of all training events, (N, K) float64.

    Raises:
        MissingReference: the events carry no components.
        EventDataError: events without density.
    """
    return None, torch.from_numpy(_mixture(events).components)


def learn_templates(
    surrogate: HistogramEstimator,
    events: TrainingEvents,
    schedule: Schedule,  # noqa: ARG001
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,  # noqa: ARG001
    on_epoch: Callable[[HistoryRecord], None] | None = None,
) -> list[HistoryRecord]:
    """Count all events into templates; arguments of `training.fit`, one record.

    The record is what templates of the training events alone are worth, to these and to held-out
    events.
    """
    began, objective = time.perf_counter(), TemplateEntropy()
    sides = split_events(events, settings.validation_fraction, settings.seed)
    _count(surrogate, sides[0])
    with torch.no_grad():
        train, held_out = (float(objective(surrogate, as_one_batch(s, None))) for s in sides)
    _count(surrogate, events)
    record = HistoryRecord(
        TEMPLATES, 0, 0, train, held_out, 0.0, seconds=time.perf_counter() - began
    )
    if on_epoch is not None:
        on_epoch(record)
    return [record]


def learn_score_and_templates(
    surrogate: LocalScoreEstimator,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    **watching: Any,  # noqa: ANN401
) -> list[HistoryRecord]:
    """Train the score by `training.fit`, bin it, count; arguments of `training.fit`."""
    history = fit(surrogate, events, schedule.without(TEMPLATES), settings, **watching)
    surrogate.bins.fit(_in_parts(surrogate.numbers, events.x))
    return [*history, *learn_templates(surrogate, events, schedule, settings, **watching)]


@torch.no_grad()
def _in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in x.split(ENCODING_ROWS)])


def _count(surrogate: HistogramEstimator, events: TrainingEvents) -> None:
    assert events.components is not None
    bins = _in_parts(surrogate.bin_of, events.x)
    surrogate.templates.count(bins, events.components.double(), events.weight)


def _usual_observables(events: EventSample) -> tuple[str, ...]:
    if not WBF_COLUMNS <= set(events.observable_names):
        message = (
            "the recipe 'histogram' knows the usual observables of WBF events only "
            f"({', '.join(WBF_OBSERVABLES)}), and process {events.metadata.process!r} is without "
            f"{sorted(WBF_COLUMNS - set(events.observable_names))}; say what to bin, "
            f"`observables: [...]` of {list(events.observable_names)}"
        )
        raise ConfigurationError(message)
    return WBF_OBSERVABLES


def _require_events(events: EventSample, bins: int, n_axes: int) -> None:
    if len(events) < LEAST_PER_BIN * bins**n_axes:
        message = (
            f"bins: {bins} on each of {n_axes} axes are {bins**n_axes:,} bins for {len(events):,} "
            f"events, expected at least {LEAST_PER_BIN} events a bin; take fewer bins or "
            "observables, or more events"
        )
        raise ConfigurationError(message)


def _reference(options: LocalScoreOptions, parameters: tuple[str, ...]) -> Array:
    reference = np.array(options.reference or (0.0,) * len(parameters), dtype=np.float64)
    if reference.shape != (len(parameters),):
        message = (
            f"reference: expected a number for each of {list(parameters)}, got "
            f"{list(options.reference)}"
        )
        raise ConfigurationError(message)
    odd = [
        name
        for name, value in zip(parameters, reference, strict=True)
        if name in options.odd_parameters and value != 0
    ]
    if odd:
        message = (
            f"reference: {odd} are odd under reflection, so that the score is symmetric where "
            f"they are zero; got {reference.tolist()}. Take zero, or leave the reflection out"
        )
        raise ConfigurationError(message)
    return reference


def _worth_at(mixture: EventMixture, reference: Array, weight: Array | None) -> float:
    ratio = mixture.components @ mixture.weights_at(reference)
    summary = WeightSummary.of(ratio if weight is None else ratio * weight)
    if summary.n_effective < LEAST_EFFECTIVE_EVENTS:
        message = (
            f"reference: at {reference.tolist()} the training events are worth "
            f"{summary.n_effective:,.0f} events of equal weight, expected at least "
            f"{LEAST_EFFECTIVE_EVENTS}; take a reference among the training thetas, or more events"
        )
        raise EventDataError(message)
    return summary.n_effective


def _mixture(events: EventSample) -> EventMixture:
    """Return components over q and the cross section of these events, or say what is lacking."""
    morphing = events.metadata.morphing
    if morphing is None or events.components is None:
        message = (
            "the recipes 'histogram' and 'sally' need the dependence of every event on theta: "
            "morphing components in the file and their monomials in its metadata, which events of "
            f"process {events.metadata.process!r} do not carry; take the recipe 'nre', which "
            "needs events and parameters alone"
        )
        raise MissingReference(message)
    return EventMixture.of(
        MorphingBasis(np.array(morphing.exponents)),
        events.components,
        events.require_theta(),
        np.array(morphing.cross_section),
        (events.training_weight, events.theta_weight),
    )


def _templates(events: EventSample, bins: QuantileBins) -> Templates:
    morphing, theta = events.metadata.morphing, events.require_theta()
    if morphing is None:
        _mixture(events)
    assert morphing is not None
    exponents = np.array(morphing.exponents)
    templates = Templates(bins.n_bins, *exponents.shape)
    return templates.fill_theory(exponents, theta.mean(axis=0), theta.std(axis=0))


def _sizes(bins: QuantileBins, templates: Templates) -> dict[str, int]:
    return {
        "templates.axes": bins.n_axes,
        "templates.per_axis": bins.per_axis,
        "templates.components": len(templates.exponents),
    }


def _empty(shape: Mapping[str, int]) -> tuple[QuantileBins, Templates]:
    bins = QuantileBins(shape["templates.axes"], shape["templates.per_axis"])
    sizes = (shape["templates.components"], shape["parameter_dim"])
    return bins, Templates(bins.n_bins, *sizes)
