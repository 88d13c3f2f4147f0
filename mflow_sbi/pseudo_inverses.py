"""How `pie` and `pae` begin with their events, and are made again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mflow_sbi.beginnings import Beginning, ManifoldOptions, begin_mflow, rebuild_mflow
from mflow_sbi.charting import ChartingEvents, ChartOptions
from mflow_sbi.charts import LinearHead, NetworkOptions
from mflow_sbi.charts.invertible import require_latent_dim
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import ConditionalFlow, FlowOptions, build_flow, build_transform, seeded
from mflow_sbi.surrogates import ManifoldFlow, ProbabilisticAutoencoder, PseudoInvertibleFlow
from mflow_sbi.tilting import DensityOptions, density_flow_options

__all__ = [
    "AutoencoderOptions",
    "PseudoInvertibleOptions",
    "begin_pae",
    "begin_pie",
    "rebuild_pae",
    "rebuild_pie",
]


def _require_flow(density: DensityOptions, recipe: str) -> None:
    if not isinstance(density, FlowOptions):
        message = (
            f"recipe {recipe!r}, density: expected a flow, as a ratio tilts a density of events; "
            "take the recipe mflow or af for morphing and residual densities"
        )
        raise ConfigurationError(message)


@dataclass(frozen=True)
class AutoencoderOptions(ManifoldOptions):
    """Architecture of the probabilistic autoencoder: the M-flow's, its chart free networks."""

    chart: ChartOptions = field(default_factory=NetworkOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.chart, NetworkOptions):
            message = (
                "recipe 'pae', chart: expected free networks (chart: autoencoder); the recipes "
                "mflow and emflow have the other charts, with a density"
            )
            raise ConfigurationError(message)
        _require_flow(self.density, "pae")


@dataclass(frozen=True)
class PseudoInvertibleOptions:
    """Architecture of the pseudo-invertible encoder.

    Args:
        latent_dim: dimension of the surface, d.
        split: the flow that tells u from v.
        density: conditional flow of u.
        width: eps of v, in spreads of the whitened data; published: 0.01 for toys, 0.1 for the 40
            observables of WBF events, where smaller ones learn slowly.
        surface_per_theta: whether `split` knows theta, as published, so that each theta has a
            surface of its own.
    """

    latent_dim: int = 14
    split: FlowOptions = field(default_factory=lambda: FlowOptions(layers=6, hidden=96))
    density: DensityOptions = field(default_factory=density_flow_options)
    width: float = 0.01
    surface_per_theta: bool = True

    def __post_init__(self) -> None:
        _require_flow(self.density, "pie")
        if not self.width > 0:
            message = f"recipe 'pie', width: expected a positive number, got {self.width}"
            raise ConfigurationError(message)


def begin_pae(
    events: ChartingEvents, parameter_dim: int, options: AutoencoderOptions, seed: int
) -> Beginning:
    """Return a probabilistic autoencoder whose chart is yet to be learned."""
    beginning = begin_mflow(events, parameter_dim, options, seed)
    return beginning._replace(surrogate=_without_measure(beginning.surrogate))


def rebuild_pae(
    shape: Mapping[str, int], options: AutoencoderOptions, seed: int
) -> ProbabilisticAutoencoder:
    """Return the autoencoder of these integers, to be filled by `load_state_dict`."""
    return _without_measure(rebuild_mflow(shape, options, seed))


def _without_measure(flow: ManifoldFlow) -> ProbabilisticAutoencoder:
    return ProbabilisticAutoencoder(flow.chart, flow.reference, flow.density)


def begin_pie(
    events: ChartingEvents, parameter_dim: int, options: PseudoInvertibleOptions, seed: int
) -> Beginning:
    """Return a pseudo-invertible encoder that starts at the leading principal directions."""
    head = LinearHead.fit(events.x)
    surrogate = _pseudo_invertible(head, parameter_dim, options, seed)
    return Beginning(surrogate, {"rank": head.rank}, options)


def rebuild_pie(
    shape: Mapping[str, int], options: PseudoInvertibleOptions, seed: int
) -> PseudoInvertibleFlow:
    """Return the encoder of these integers, to be filled by `load_state_dict`."""
    head = LinearHead(shape["ambient_dim"], shape["rank"])
    return _pseudo_invertible(head, shape["parameter_dim"], options, seed)


def _pseudo_invertible(
    head: LinearHead, parameter_dim: int, options: PseudoInvertibleOptions, seed: int
) -> PseudoInvertibleFlow:
    require_latent_dim(head, options.latent_dim)
    assert isinstance(options.density, FlowOptions)
    known = parameter_dim if options.surface_per_theta else 0
    with seeded(seed + 1):
        transform = build_transform(head.rank, known, options.split, keep_order=options.latent_dim)
    split = ConditionalFlow(head.rank, known, transform)
    density = build_flow(options.latent_dim, parameter_dim, options.density, seed + 2)
    return PseudoInvertibleFlow(head, split, density, options.width)
