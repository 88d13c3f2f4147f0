"""Which ratio and features a tilted density gets for its events, and how to make them again.

| options | density | needs |
|---|---|---|
| `FlowOptions` | conditional flow | nothing |
| `MorphingOptions` | reference x positive polynomial in theta | monomials, in the metadata |
| `ResidualOptions` | reference x normalised ratio, any dependence on theta | nothing |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.charting import ChartingEvents
from mflow_sbi.densities import (
    Features,
    KinematicFeatures,
    MorphingRatio,
    MorphingShape,
    ObservableFeatures,
    Ratio,
    ResidualRatio,
    ResidualShape,
    SymmetryGroup,
)
from mflow_sbi.densities.kinematics import find_objects
from mflow_sbi.densities.morphing_ratio import STORED_POINTS, amplitude_monomials
from mflow_sbi.densities.symmetries import Reflection
from mflow_sbi.errors import ConfigurationError, EventDataError
from mflow_sbi.events import EventSample
from mflow_sbi.flows import FlowOptions
from mflow_sbi.interfaces import Array

__all__ = [
    "DensityOptions",
    "FittedRatio",
    "MorphingOptions",
    "ResidualOptions",
    "TiltingOptions",
    "density_flow_options",
    "fit_ratio",
    "rebuild_ratio",
    "symmetry_group",
    "told_by",
    "unfitted_features",
]

FEATURES = ("automatic", "kinematic", "observables")
INPUTS = ("automatic", "samples", "score", "components")


@dataclass(frozen=True)
class TiltingOptions:
    """What a ratio reads and learns from, common to all kinds.

    Args:
        inputs: what of the events it learns from: "samples" (events and theta), "score" (joint
            scores too), "components" (morphing components), "automatic" (the most it can use).
        features: "kinematic" (four-momenta of objects), "observables" (any), or "automatic":
            kinematic where objects are found.
        objects: o of the observables e_o, px_o, py_o, pz_o; none: those that are no sums.
        reflection: p(x|theta) is unchanged where py and the odd parameters change sign.
        exchange: p(x|theta) is unchanged under exchange of the beams (py and pz change sign).
        odd_parameters: names of the parameters that change sign under reflection.
        hidden: width of the network.
        layers: hidden layers.
    """

    inputs: str = "automatic"
    features: str = "automatic"
    objects: tuple[str, ...] = ()
    reflection: bool = False
    exchange: bool = False
    odd_parameters: tuple[str, ...] = ()
    hidden: int = 96
    layers: int = 3

    def __post_init__(self) -> None:
        for name, known in (("inputs", INPUTS), ("features", FEATURES)):
            if getattr(self, name) not in known:
                message = f"{name}: expected one of {list(known)}, got {getattr(self, name)!r}"
                raise ConfigurationError(message)
        for name in ("hidden", "layers", "members", "head_layers", "points"):
            if getattr(self, name, 1) < 1:
                message = f"{name}: expected at least 1, got {getattr(self, name)}"
                raise ConfigurationError(message)
        if self.odd_parameters and not self.reflection:
            message = "odd_parameters: they are odd under reflection; set `reflection: true`"
            raise ConfigurationError(message)


@dataclass(frozen=True)
class MorphingOptions(TiltingOptions):
    """The ratio of an effective theory: a positive polynomial in theta.

    Args:
        members: networks that are averaged.
        learned_rate: learn the cross section's dependence on theta from the events, where that
            of the metadata does not apply (after a selection).
    """

    members: int = 1
    learned_rate: bool = False


@dataclass(frozen=True)
class ResidualOptions(TiltingOptions):
    """A ratio for any dependence on theta; it cannot use components.

    Args:
        head_layers: hidden layers that read event and theta.
        candidates: thetas of the batch over which an event is normalised in training.
        points: training thetas over which the ratio is normalised.
    """

    layers: int = 2
    head_layers: int = 1
    candidates: int = 8
    points: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 2:
            message = f"candidates: expected at least 2, got {self.candidates}"
            raise ConfigurationError(message)


RatioOptions: TypeAlias = MorphingOptions | ResidualOptions
DensityOptions: TypeAlias = FlowOptions | RatioOptions


def density_flow_options() -> FlowOptions:
    """Return the default architecture of a conditional flow behind a reference."""
    return FlowOptions(layers=4, hidden=64)


class FittedRatio(NamedTuple):
    """Features and ratio, the integers and options that rebuild them, and notes."""

    features: Features
    ratio: Ratio
    shape: Mapping[str, int]
    options: RatioOptions
    notes: tuple[str, ...]


def told_by(
    sample: EventSample, options: DensityOptions, std: Array
) -> tuple[Tensor | None, Tensor | None]:
    """Return what the ratio learns from beside events and theta: scores, components, or neither.

    Scores (N, p) are those of theta / std; components (N, K) are scaled to order one.

    Raises:
        MissingReference: the options ask for what the events do not carry.
        EventDataError: events whose components vanish.
    """
    if isinstance(options, FlowOptions):
        return None, None
    wanted = options.inputs
    if isinstance(options, ResidualOptions) and wanted == "components":
        message = "a residual density cannot learn from morphing components; take inputs: score"
        raise ConfigurationError(message)
    if wanted == "automatic":
        usable = None if isinstance(options, ResidualOptions) else sample.components
        carried = {"components": usable, "score": sample.score}
        wanted = next((k for k, v in carried.items() if v is not None), "samples")
    if wanted == "components":
        components = sample.require_components()
        size = np.abs(components).max(axis=1, keepdims=True)
        if (size == 0).any():
            message = (
                f"{int((size == 0).sum())} of {len(size)} events have vanishing morphing "
                "components, no density at any theta; drop them, or take inputs: samples"
            )
            raise EventDataError(message)
        return None, torch.from_numpy(components / size).float()
    if wanted == "score":
        return torch.from_numpy(sample.require_score() * std).float(), None
    return None, None


def fit_ratio(
    events: ChartingEvents, sample: EventSample, options: RatioOptions, seed: int
) -> FittedRatio:
    """Return an untrained ratio that knows the theory of the sample, and its fitted features.

    Weights of the sample make the prior pi over which the ratio is normalised; features are scaled
    by the events as they come, whatever their weights.

    Raises:
        ConfigurationError: no morphing monomials in the metadata, unknown objects or parameters.
    """
    features, resolved = unfitted_features(events, options)
    options = replace(options, features=resolved.features, objects=resolved.objects)
    group = symmetry_group(features, sample.parameter_names, options)
    features.fit(events.x, group.odd_features)
    if isinstance(options, MorphingOptions):
        ratio = _morphing(features.feature_dim, sample, group, options, seed)
    else:
        ratio = _residual(features.feature_dim, sample, group, options, seed)
    sizes = {f"ratio.{name}": size for name, size in ratio.shape._asdict().items()}
    if isinstance(features, KinematicFeatures):
        sizes["features.objects"] = features.n_objects
    read = f"{features.feature_dim} features of {', '.join(options.objects) or 'the observables'}"
    note = f"the ratio reads {read}; its symmetry group has {group.order} elements"
    return FittedRatio(features, ratio, sizes, options, (note,))


def _morphing(
    feature_dim: int,
    sample: EventSample,
    group: SymmetryGroup,
    options: MorphingOptions,
    seed: int,
) -> MorphingRatio:
    morphing = sample.metadata.morphing
    if morphing is None:
        message = (
            "a morphing density needs the monomials and the cross section of the theory, which "
            f"the metadata of process {sample.metadata.process!r} do not hold; take `density: "
            "residual` or `flow`, or write them into the file"
        )
        raise ConfigurationError(message)
    exponents, theta = np.array(morphing.exponents), sample.require_theta()
    selected = sample.report is not None and bool(sample.report.cuts)
    learned = options.learned_rate or selected
    shape = MorphingShape(
        feature_dim=feature_dim,
        parameter_dim=theta.shape[1],
        n_components=len(exponents),
        n_amplitudes=len(amplitude_monomials(exponents)),
        group=group.order,
        hidden=options.hidden,
        layers=options.layers,
        members=options.members,
        points=min(STORED_POINTS, len(theta)) if learned else 0,
    )
    rate = None if learned else np.array(morphing.cross_section)
    return MorphingRatio(shape, seed).fill(exponents, theta, rate, group, sample.theta_weight)


def _residual(
    feature_dim: int,
    sample: EventSample,
    group: SymmetryGroup,
    options: ResidualOptions,
    seed: int,
) -> ResidualRatio:
    theta = sample.require_theta()
    images = len(np.unique(group.parameter_signs.numpy(), axis=0))
    shape = ResidualShape(
        feature_dim=feature_dim,
        parameter_dim=theta.shape[1],
        group=group.order,
        hidden=options.hidden,
        layers=options.layers,
        head_layers=options.head_layers,
        candidates=options.candidates,
        points=images * max(1, min(options.points, len(theta)) // images),
    )
    return ResidualRatio(shape, seed).fill(theta, group, sample.theta_weight)


def unfitted_features(
    events: ChartingEvents, options: TiltingOptions
) -> tuple[Features, TiltingOptions]:
    """Return features that know their observables, and the options that name them."""
    kind, objects = options.features, options.objects
    if kind != "observables" and not objects:
        objects = find_objects(events.names, events.physical)
    if kind == "kinematic" or (kind == "automatic" and len(objects) >= 2):
        resolved = replace(options, features="kinematic", objects=objects)
        known = (events.names, events.mean, events.std, events.x)
        return KinematicFeatures.for_objects(objects, *known), resolved
    resolved = replace(options, features="observables", objects=())
    known = (events.x, events.mean, events.std)
    return ObservableFeatures.for_observables(*known), resolved


def symmetry_group(
    features: Features, parameters: Sequence[str], options: TiltingOptions
) -> SymmetryGroup:
    """Return the symmetry group that the options declare."""
    unknown = [name for name in options.odd_parameters if name not in parameters]
    if unknown:
        message = f"odd_parameters: unknown {unknown}; the parameters are {list(parameters)}"
        raise ConfigurationError(message)
    even = np.ones(len(parameters))
    odd = np.where(np.isin(parameters, options.odd_parameters), -1.0, 1.0)
    reflections = []
    if options.reflection or options.exchange:
        if not isinstance(features, KinematicFeatures):
            message = (
                "reflection and exchange are symmetries of four-momenta; the features are those "
                "of any observables. Name the objects, or leave the symmetries out"
            )
            raise ConfigurationError(message)
        if options.reflection:
            reflections.append(Reflection(np.array(features.reflection_signs()), odd))
        if options.exchange:
            reflections.append(Reflection(np.array(features.exchange_signs()), even))
    return SymmetryGroup.generated_by(reflections, features.feature_dim, len(parameters))


def rebuild_ratio(shape: Mapping[str, int], ambient_dim: int, seed: int) -> tuple[Features, Ratio]:
    """Return features and ratio of these integers, to be filled by `load_state_dict`."""
    sizes = {k.removeprefix("ratio."): v for k, v in shape.items() if k.startswith("ratio.")}
    n_objects = shape.get("features.objects")
    features = (
        ObservableFeatures(ambient_dim) if n_objects is None else KinematicFeatures(n_objects)
    )
    if "candidates" in sizes:
        return features, ResidualRatio(ResidualShape(**sizes), seed)
    return features, MorphingRatio(MorphingShape(**sizes), seed)
