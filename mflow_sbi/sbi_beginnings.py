"""How the baselines of sbi begin with their events, and are made again."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from mflow_sbi.baselines.density import SbiDensity
from mflow_sbi.baselines.door import needing_sbi
from mflow_sbi.baselines.estimators import SbiPosterior, SbiRatio, SbiSetPosterior, SetEmbedding
from mflow_sbi.baselines.inputs import EventInputs
from mflow_sbi.baselines.options import (
    FlowNetworkOptions,
    InputOptions,
    PosteriorOptions,
    RatioOptions,
    SetPosteriorOptions,
)
from mflow_sbi.baselines.sets import draw_training_sets
from mflow_sbi.baselines.theta_density import ThetaDensity
from mflow_sbi.beginnings import Beginning
from mflow_sbi.charting import (
    ChartingEvents,
    ImplicitOptions,
    collider_chart,
    fit_chart,
    rebuild_chart,
    rebuild_collider_chart,
)
from mflow_sbi.charts import LinearHead
from mflow_sbi.events import EventSample
from mflow_sbi.flows import FlowOptions, build_flow, seeded
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow

__all__ = [
    "begin_likelihood",
    "begin_posterior",
    "begin_ratio",
    "begin_set_posterior",
    "rebuild_likelihood",
    "rebuild_posterior",
    "rebuild_ratio",
    "rebuild_set_posterior",
]

_NO_LAYERS = FlowOptions(layers=0)
Shape: TypeAlias = Mapping[str, int]
Density: TypeAlias = AmbientFlow | ManifoldFlow


class _Inputs(NamedTuple):
    """What a network reads of events, and what rebuilds it."""

    module: EventInputs
    shape: Shape
    notes: tuple[str, ...]


def _fit_inputs(charting: ChartingEvents, options: InputOptions, seed: int) -> _Inputs:
    """Return all observables, or the latents of a chart of these events.

    Raises:
        ChartError: the events have no such chart.
    """
    ambient_dim = charting.x.shape[1]
    if options.inputs == "observables":
        return _Inputs(EventInputs(ambient_dim, None), {}, ())
    if options.inputs == "prescribed":
        return _Inputs(EventInputs(ambient_dim, collider_chart(charting)), {}, ())
    fitted = fit_chart(charting, 0, ImplicitOptions(), seed)
    return _Inputs(EventInputs(ambient_dim, fitted.chart), fitted.shape, fitted.notes)


def _rebuild_inputs(shape: Shape, options: InputOptions, seed: int) -> EventInputs:
    ambient_dim = shape["ambient_dim"]
    if options.inputs == "observables":
        return EventInputs(ambient_dim, None)
    if options.inputs == "prescribed":
        return EventInputs(ambient_dim, rebuild_collider_chart(ambient_dim))
    return EventInputs(ambient_dim, rebuild_chart(shape, ambient_dim, ImplicitOptions(), seed))


def _theta(events: EventSample) -> Tensor:
    """Return standardised parameters, (N, p) float32.

    Raises:
        EventDataError: weighted events, of which the trainers of sbi know nothing.
    """
    events.require_unweighted()
    theta = events.require_theta()
    return torch.from_numpy((theta - theta.mean(axis=0)) / theta.std(axis=0)).float()


def _dummies(*dims: int) -> list[Tensor]:
    """Return rows that tell sbi dimensions alone, where weights are loaded afterwards."""
    return [torch.stack([torch.zeros(dim), torch.ones(dim)]) for dim in dims]


def _density(inputs: EventInputs, density: SbiDensity, ambient_dim: int, seed: int) -> Density:
    reference = build_flow(inputs.dim, 0, _NO_LAYERS, seed)
    if inputs.chart is None:
        return AmbientFlow(LinearHead(ambient_dim, ambient_dim), reference, density)
    return ManifoldFlow(inputs.chart, reference, density)


def begin_likelihood(
    kind: str,
) -> Callable[[ChartingEvents, EventSample, FlowNetworkOptions, int], Beginning]:
    """Return how p(x|theta) by a flow of sbi, "maf" or "nsf", begins.

    On observables it is a density of all of them: nothing is known of constraints.  On latents it
    is one on the surface.
    """

    def begin(
        charting: ChartingEvents, events: EventSample, options: FlowNetworkOptions, seed: int
    ) -> Beginning:
        theta, inputs = _theta(events), _fit_inputs(charting, options, seed)
        with needing_sbi():
            from mflow_sbi.baselines.networks import build_likelihood
        raw = inputs.module.raw(charting.x).float()
        network = build_likelihood(kind, theta, raw, options, seed + 2)
        density = SbiDensity(inputs.module.dim, theta.shape[1], network)
        surrogate = _density(inputs.module, density, charting.x.shape[1], seed + 1)
        return Beginning(surrogate, inputs.shape, options, inputs.notes)

    return begin


def rebuild_likelihood(kind: str) -> Callable[[Shape, FlowNetworkOptions, int], Density]:
    """Return how that density is made again, to be filled by `load_state_dict`."""

    def rebuild(shape: Shape, options: FlowNetworkOptions, seed: int) -> Density:
        inputs, p = _rebuild_inputs(shape, options, seed), shape["parameter_dim"]
        with needing_sbi():
            from mflow_sbi.baselines.networks import build_likelihood
        theta, rows = _dummies(p, inputs.dim)
        network = build_likelihood(kind, theta, rows, options, seed + 2)
        density = SbiDensity(inputs.dim, p, network)
        return _density(inputs, density, shape["ambient_dim"], seed + 1)

    return rebuild


def begin_ratio(
    charting: ChartingEvents, events: EventSample, options: RatioOptions, seed: int
) -> Beginning:
    """Return an untrained classifier of pairs."""
    theta, inputs = _theta(events), _fit_inputs(charting, options, seed)
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_classifier
    network = build_classifier(theta, inputs.module.fit(charting.x), options, seed + 2)
    n, p = charting.x.shape[1], theta.shape[1]
    surrogate = SbiRatio(n, p, inputs.module, network, options.lesson)
    return Beginning(surrogate, inputs.shape, options, inputs.notes)


def rebuild_ratio(shape: Shape, options: RatioOptions, seed: int) -> SbiRatio:
    """Return the classifier of these integers, to be filled by `load_state_dict`."""
    inputs, p = _rebuild_inputs(shape, options, seed), shape["parameter_dim"]
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_classifier
    theta, rows = _dummies(p, inputs.dim)
    network = build_classifier(theta, rows, options, seed + 2)
    return SbiRatio(shape["ambient_dim"], p, inputs, network, options.lesson)


def begin_posterior(
    charting: ChartingEvents, events: EventSample, options: PosteriorOptions, seed: int
) -> Beginning:
    """Return an untrained estimator of p(theta|x) of one event.

    Raises:
        MissingReference: the file does not say how theta was drawn.
    """
    theta, prior = _theta(events), ThetaDensity.declared(events, "sbi_npe_single")
    inputs = _fit_inputs(charting, options, seed)
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_posterior
    network = build_posterior(theta, inputs.module.fit(charting.x), options, seed + 2)
    surrogate = SbiPosterior(charting.x.shape[1], inputs.module, network, prior)
    return Beginning(surrogate, inputs.shape, options, inputs.notes)


def rebuild_posterior(shape: Shape, options: PosteriorOptions, seed: int) -> SbiPosterior:
    """Return the estimator of these integers, to be filled by `load_state_dict`."""
    inputs, p = _rebuild_inputs(shape, options, seed), shape["parameter_dim"]
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_posterior
    theta, rows = _dummies(p, inputs.dim)
    network = build_posterior(theta, rows, options, seed + 2)
    return SbiPosterior(shape["ambient_dim"], inputs, network, ThetaDensity(p))


def begin_set_posterior(
    charting: ChartingEvents, events: EventSample, options: SetPosteriorOptions, seed: int
) -> Beginning:
    """Return an untrained estimator of p(theta|{x}) of sets, and sets to train it on.

    Raises:
        MissingReference: the file does not say how theta was drawn, or holds no sets.
    """
    _, prior = _theta(events), ThetaDensity.declared(events, "sbi_npe")
    sets = draw_training_sets(events, prior, options.sets, options.most_events, seed + 4)
    inputs = _fit_inputs(charting, options, seed)
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_set_posterior, pooling_network
    with seeded(seed + 3):
        pooling = pooling_network(inputs.module.dim, options)
    embedding = SetEmbedding(pooling, inputs.module.fit(charting.x))
    network = build_set_posterior(sets.theta, sets.rows.float(), embedding, options, seed + 2)
    surrogate = SbiSetPosterior(
        charting.x.shape[1], inputs.module, network, embedding, prior, sets
    )
    shape = {**inputs.shape, "most_events": sets.rows.shape[1]}
    return Beginning(surrogate, shape, options, (*inputs.notes, sets.note))


def rebuild_set_posterior(
    shape: Shape, options: SetPosteriorOptions, seed: int
) -> SbiSetPosterior:
    """Return the estimator of these integers, to be filled by `load_state_dict`."""
    inputs, p = _rebuild_inputs(shape, options, seed), shape["parameter_dim"]
    with needing_sbi():
        from mflow_sbi.baselines.networks import build_set_posterior, pooling_network
    pooling = pooling_network(inputs.dim, options)
    theta, rows, table = _dummies(p, shape["most_events"], inputs.dim)
    embedding = SetEmbedding(pooling, table)
    network = build_set_posterior(theta, rows, embedding, options, seed + 2)
    return SbiSetPosterior(shape["ambient_dim"], inputs, network, embedding, ThetaDensity(p))
