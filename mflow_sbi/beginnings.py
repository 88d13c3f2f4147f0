"""How every recipe begins a surrogate with its events, and makes it again from integers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from mflow_sbi.charting import (
    AutomaticOptions,
    ChartingEvents,
    ChartOptions,
    EncodedOptions,
    collider_chart,
    fit_chart,
    rebuild_chart,
    rebuild_collider_chart,
)
from mflow_sbi.charts import LinearHead
from mflow_sbi.densities import StandardNormal
from mflow_sbi.events import EventSample
from mflow_sbi.flows import ConditionalFlow, FlowOptions, build_flow
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow, TiltedFlow, tilt
from mflow_sbi.tilting import (
    DensityOptions,
    density_flow_options,
    fit_ratio,
    rebuild_ratio,
    told_by,
)

__all__ = [
    "AmbientOptions",
    "Beginning",
    "EncodedManifoldOptions",
    "ManifoldOptions",
    "Told",
    "again_with_density",
    "begin_ambient",
    "begin_fom",
    "begin_mflow",
    "rebuild_ambient",
    "rebuild_fom",
    "rebuild_mflow",
    "rebuild_tilted",
    "tilted",
    "told_density",
    "with_density",
]


def _reference_options() -> FlowOptions:
    return FlowOptions(layers=6, hidden=96)


@dataclass(frozen=True)
class ManifoldOptions:
    """Architecture of the M-flow.

    Args:
        latent_dim: dimension of the surface; an implicit chart finds its own.
        chart: whichever the events deserve, or one kind: see `charting`.
        reference: flow without theta that straightens the chart's coordinates (0 layers: they
            are whitened only).
        density: conditional flow of the latents, or a ratio that tilts the reference.
    """

    latent_dim: int = 14
    chart: ChartOptions = field(default_factory=AutomaticOptions)
    reference: FlowOptions = field(default_factory=_reference_options)
    density: DensityOptions = field(default_factory=density_flow_options)


@dataclass(frozen=True)
class EncodedManifoldOptions(ManifoldOptions):
    """Architecture of the M_e-flow: the same, its chart behind a free encoder."""

    chart: ChartOptions = field(default_factory=EncodedOptions)


@dataclass(frozen=True)
class AmbientOptions:
    """Architecture at fixed chart: unconditional layers, then conditional ones or a ratio."""

    reference: FlowOptions = field(default_factory=_reference_options)
    density: DensityOptions = field(default_factory=density_flow_options)


Told: TypeAlias = tuple[Tensor | None, Tensor | None]
"""Joint scores of standardised theta (N, p) and components up to a factor (N, K), or neither."""


class Beginning(NamedTuple):
    """An untrained surrogate, the integers and options that rebuild it, and notes."""

    surrogate: Any
    shape: Mapping[str, int]
    options: Any
    notes: tuple[str, ...] = ()


def _flows(
    latent_dim: int, parameter_dim: int, options: ManifoldOptions | AmbientOptions, seed: int
) -> tuple[ConditionalFlow, ConditionalFlow]:
    """Return the reference flow and the density of its latents, normal where a ratio follows."""
    reference = build_flow(latent_dim, 0, options.reference, seed + 1)
    if isinstance(options.density, FlowOptions):
        return reference, build_flow(latent_dim, parameter_dim, options.density, seed + 2)
    return reference, StandardNormal(latent_dim, parameter_dim)


def tilted(
    beginning: Beginning, charting: ChartingEvents, events: EventSample, seed: int
) -> Beginning:
    """Return the beginning tilted by the ratio that its options ask for, if they do."""
    options = beginning.options
    if isinstance(options.density, FlowOptions):
        return beginning
    fitted = fit_ratio(charting, events, options.density, seed + 3)
    return Beginning(
        tilt(beginning.surrogate, fitted.features, fitted.ratio),
        {**beginning.shape, **fitted.shape},
        replace(options, density=fitted.options),
        (*beginning.notes, *fitted.notes),
    )


def begin_mflow(
    events: ChartingEvents, parameter_dim: int, options: ManifoldOptions, seed: int
) -> Beginning:
    """Return an M-flow whose chart is fitted to the events or yet to be learned."""
    fitted = fit_chart(events, options.latent_dim, options.chart, seed)
    flows = _flows(fitted.chart.latent_dim, parameter_dim, options, seed)
    resolved = replace(options, chart=fitted.options)
    return Beginning(ManifoldFlow(fitted.chart, *flows), fitted.shape, resolved, fitted.notes)


def rebuild_mflow(shape: Mapping[str, int], options: ManifoldOptions, seed: int) -> ManifoldFlow:
    """Return the M-flow of these integers, to be filled by `load_state_dict`."""
    chart = rebuild_chart(shape, shape["ambient_dim"], options.chart, seed)
    return ManifoldFlow(chart, *_flows(chart.latent_dim, shape["parameter_dim"], options, seed))


def begin_fom(
    events: ChartingEvents, parameter_dim: int, options: AmbientOptions, seed: int
) -> Beginning:
    """Return a flow on the prescribed surface of WBF events."""
    chart = collider_chart(events)
    flows = _flows(chart.latent_dim, parameter_dim, options, seed)
    return Beginning(ManifoldFlow(chart, *flows), {}, options)


def rebuild_fom(shape: Mapping[str, int], options: AmbientOptions, seed: int) -> ManifoldFlow:
    """Return the flow on the prescribed surface, to be filled by `load_state_dict`."""
    chart = rebuild_collider_chart(shape["ambient_dim"])
    return ManifoldFlow(chart, *_flows(chart.latent_dim, shape["parameter_dim"], options, seed))


def begin_ambient(
    events: ChartingEvents, parameter_dim: int, options: AmbientOptions, seed: int
) -> Beginning:
    """Return an ambient flow whose linear head is fitted to the events."""
    head = LinearHead.fit(events.x)
    flows = _flows(head.rank, parameter_dim, options, seed)
    return Beginning(AmbientFlow(head, *flows), {"rank": head.rank}, options)


def rebuild_ambient(shape: Mapping[str, int], options: AmbientOptions, seed: int) -> AmbientFlow:
    """Return the ambient flow of these integers, to be filled by `load_state_dict`."""
    head = LinearHead(shape["ambient_dim"], shape["rank"])
    return AmbientFlow(head, *_flows(head.rank, shape["parameter_dim"], options, seed))


def rebuild_tilted(
    surrogate: AmbientFlow | ManifoldFlow,
    shape: Mapping[str, int],
    density: DensityOptions,
    seed: int,
) -> AmbientFlow | ManifoldFlow | TiltedFlow:
    """Return the surrogate tilted by an empty ratio, if its density is one."""
    if isinstance(density, FlowOptions):
        return surrogate
    return tilt(surrogate, *rebuild_ratio(shape, shape["ambient_dim"], seed))


def with_density(
    begin: Callable[[ChartingEvents, int, Any, int], Beginning],
) -> Callable[[ChartingEvents, EventSample, Any, int], Beginning]:
    """Return `begin` followed by the ratio that its options ask for, if they do."""

    def begin_tilted(
        charting: ChartingEvents,
        events: EventSample,
        options: Any,  # noqa: ANN401
        seed: int,
    ) -> Beginning:
        beginning = begin(charting, len(events.parameter_names), options, seed)
        return tilted(beginning, charting, events, seed)

    return begin_tilted


def again_with_density(
    rebuild: Callable[[Mapping[str, int], Any, int], AmbientFlow | ManifoldFlow],
) -> Callable[[Mapping[str, int], Any, int], Any]:
    """Return `rebuild` followed by an empty ratio, if its density is one."""

    def rebuild_density(shape: Mapping[str, int], options: Any, seed: int) -> Any:  # noqa: ANN401
        return rebuild_tilted(rebuild(shape, options, seed), shape, options.density, seed)

    return rebuild_density


def told_density(events: EventSample, options: Any, std: Array) -> Told:  # noqa: ANN401
    """Return what the density learns from beside events and theta."""
    return told_by(events, options.density, std)
