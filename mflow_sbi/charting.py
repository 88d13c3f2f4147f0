"""Which chart the events deserve, and how to make it again from integers.

| options | chart | needs |
|---|---|---|
| `FlowOptions` | invertible flow, learned by reconstruction | nothing |
| `EncodedOptions` | the same behind a free encoder | nothing |
| `NetworkOptions` | free encoder and decoder, learned by reconstruction | nothing |
| `ImplicitOptions` | discovered constraints, solved by Newton | constraints exact to precision |
| `AutomaticOptions` | implicit where the constraints are exact, invertible otherwise | nothing |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from torch import Tensor

from mflow_sbi.charts import (
    AdaptedChart,
    Chart,
    ColliderChart,
    ImplicitShape,
    LinearHead,
    NetworkOptions,
    build_adapted_chart,
    build_autoencoder_chart,
    build_encoded_chart,
    build_invertible_chart,
)
from mflow_sbi.constraints import Dictionary, Discovery, discover_constraints
from mflow_sbi.errors import ChartError
from mflow_sbi.flows import FlowOptions
from mflow_sbi.interfaces import Array

__all__ = [
    "AutomaticOptions",
    "ChartOptions",
    "ChartingEvents",
    "EncodedOptions",
    "FittedChart",
    "ImplicitOptions",
    "collider_chart",
    "fit_chart",
    "invertible_options",
    "rebuild_chart",
    "rebuild_collider_chart",
]


GIVEN_BACK_EVENTS = 2000
LEAST_FOUND = 0.9
"""Share of events that Newton must give back from the best pivots: a surface that folds over every
choice of pivots, like a whole sphere, loses a branch."""


def invertible_options() -> FlowOptions:
    """Return the default architecture of the invertible chart."""
    return FlowOptions(layers=6, hidden=128, blocks=2, coupling="affine")


@dataclass(frozen=True)
class EncodedOptions:
    """Chart of the M_e-flow: a free encoder, and the invertible map whose surface it reads."""

    encoder: NetworkOptions = field(default_factory=NetworkOptions)
    decoder: FlowOptions = field(default_factory=invertible_options)


@dataclass(frozen=True)
class ImplicitOptions:
    """Chart on discovered constraints.

    Args:
        hidden: width of the network that tells Newton where to begin.
        blocks: its residual blocks.
        epochs: its passes over the events.
        degree: largest degree of the monomials of which constraints are made.
    """

    hidden: int = 96
    blocks: int = 2
    epochs: int = 10
    degree: int = 2


@dataclass(frozen=True)
class AutomaticOptions:
    """Implicit where the data obey exact constraints, invertible otherwise."""

    implicit: ImplicitOptions = field(default_factory=ImplicitOptions)
    invertible: FlowOptions = field(default_factory=invertible_options)


LearnedOptions: TypeAlias = FlowOptions | EncodedOptions | NetworkOptions
ChartOptions: TypeAlias = LearnedOptions | ImplicitOptions | AutomaticOptions
Shape: TypeAlias = Mapping[str, int]


class ChartingEvents(NamedTuple):
    """Events as a chart is fitted to them.

    Physical (N, n), standardised (N, n), means and stds (n,), and names of the observables.
    """

    physical: Array
    x: Tensor
    mean: Array
    std: Array
    names: Sequence[str]


class FittedChart(NamedTuple):
    """A chart, the integers and options that rebuild it, and what the user should know."""

    chart: Chart
    shape: Shape
    options: ChartOptions
    notes: tuple[str, ...]


def fit_chart(
    events: ChartingEvents, latent_dim: int, options: ChartOptions, seed: int
) -> FittedChart:
    """Return a chart for these events.

    Raises:
        ChartError: an implicit chart was asked for, but the data obey no exact constraints, or
            no pivots determine the surface.
    """
    if isinstance(options, LearnedOptions):
        return _fit_learned(events, latent_dim, options, seed, ())
    if isinstance(options, ImplicitOptions):
        return _fit_discovered(events, options, seed)
    try:
        return _fit_discovered(events, options.implicit, seed)
    except ChartError as error:
        notes = (f"{error}; the chart is an invertible flow",)
    return _fit_learned(events, latent_dim, options.invertible, seed, notes)


def _fit_discovered(events: ChartingEvents, options: ImplicitOptions, seed: int) -> FittedChart:
    """Return an implicit chart on the constraints found, or say why there is none."""
    discovery = discover_constraints(
        events.physical,
        events.mean,
        events.std,
        names=events.names,
        dictionary=Dictionary(degree=options.degree),
        seed=seed,
    )
    found = f"constraints of the observables: {discovery.verdict} ({discovery.reason})"
    if discovery.constraints is not None:
        return _fit_implicit(events, discovery, options, seed, found)
    message = (
        f"an implicit chart needs exact constraints, found {found}; take the invertible "
        "chart (chart: invertible) for these events"
    )
    raise ChartError(message)


def _fit_learned(
    events: ChartingEvents,
    latent_dim: int,
    options: LearnedOptions,
    seed: int,
    notes: tuple[str, ...],
) -> FittedChart:
    head = LinearHead.fit(events.x)
    shape = {"rank": head.rank, "latent_dim": latent_dim}
    return FittedChart(_learned_chart(head, latent_dim, options, seed), shape, options, notes)


def _learned_chart(head: LinearHead, latent_dim: int, options: LearnedOptions, seed: int) -> Chart:
    """Return the untrained chart that reconstruction is to move."""
    if isinstance(options, FlowOptions):
        return build_invertible_chart(head, latent_dim, options, seed)
    if isinstance(options, EncodedOptions):
        return build_encoded_chart(head, latent_dim, options.encoder, options.decoder, seed)
    return build_autoencoder_chart(head, latent_dim, options, seed)


def _fit_implicit(
    events: ChartingEvents, discovery: Discovery, options: ImplicitOptions, seed: int, found: str
) -> FittedChart:
    constraints = discovery.constraints
    assert constraints is not None
    wanted = ImplicitShape(n_linear=0, hidden=options.hidden, blocks=options.blocks)
    chart, choice = build_adapted_chart(
        constraints, events.x, wanted, epochs=options.epochs, seed=seed
    )
    latents = ", ".join(chart.describe(events.names))
    found = f"{found}; the chart is implicit, {chart.latent_dim} latents: {latents}"
    share = chart.share_given_back(events.x[:GIVEN_BACK_EVENTS])
    if share < LEAST_FOUND:
        message = (
            f"{found}; but the surface folds: over these only {share:.0%} of the events are given "
            f"back, expected {LEAST_FOUND:.0%}; take the invertible chart, or select events of "
            "one branch"
        )
        raise ChartError(message)
    notes = (
        found,
        f"decode(encode(x)) gives back {share:.2%} of training events; the data's log density in "
        f"these coordinates, as a product of marginals: {choice.best.simplicity:.1f}",
    )
    return FittedChart(chart, chart.shape, options, notes)


def rebuild_chart(shape: Shape, ambient_dim: int, options: ChartOptions, seed: int) -> Chart:
    """Return the chart of these integers and options, to be filled by `load_state_dict`."""
    if isinstance(options, LearnedOptions):
        head = LinearHead(ambient_dim, shape["rank"])
        return _learned_chart(head, shape["latent_dim"], options, seed)
    return AdaptedChart.empty(shape)


def collider_chart(events: ChartingEvents) -> ColliderChart:
    """Return the closed-form chart of the 40 WBF observables.

    Raises:
        ChartError: other observables.
    """
    return ColliderChart.for_observables(events.names, events.mean, events.std)


def rebuild_collider_chart(ambient_dim: int) -> ColliderChart:
    """Return the closed-form chart, to be filled by `load_state_dict`."""
    return ColliderChart(ambient_dim)
