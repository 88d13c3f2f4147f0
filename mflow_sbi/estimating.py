"""How the ratio estimators `nre` and `alices` begin with their events, and are made again."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mflow_sbi.beginnings import Beginning, Told
from mflow_sbi.charting import ChartingEvents
from mflow_sbi.densities import KinematicFeatures, ObservableFeatures, PairNetwork, PairShape
from mflow_sbi.errors import ConfigurationError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.events.metadata import Morphing
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, score, total_cross_section
from mflow_sbi.surrogates.ratio import JointRatio, RatioEstimator
from mflow_sbi.tilting import (
    MorphingOptions,
    TiltingOptions,
    symmetry_group,
    told_by,
    unfitted_features,
)

__all__ = [
    "EstimatorOptions",
    "begin_alices",
    "begin_nre",
    "rebuild_estimator",
    "told_jointly",
    "told_nothing",
]


@dataclass(frozen=True)
class EstimatorOptions:
    """What a ratio estimator reads of events, and the sizes of its network.

    Args:
        features: "kinematic" (four-momenta of objects), "observables" (any), or "automatic":
            kinematic where objects are found.
        objects: o of the observables e_o, px_o, py_o, pz_o; none: those that are no sums.
        reflection: p(x|theta) is unchanged where py and the odd parameters change sign.
        exchange: p(x|theta) is unchanged under exchange of the beams (py and pz change sign).
        odd_parameters: names of the parameters that change sign under reflection.
        hidden: width of all layers.
        layers: hidden layers that read the event.
        head_layers: hidden layers that read event and theta.
    """

    features: str = "automatic"
    objects: tuple[str, ...] = ()
    reflection: bool = False
    exchange: bool = False
    odd_parameters: tuple[str, ...] = ()
    hidden: int = 96
    layers: int = 2
    head_layers: int = 1

    def __post_init__(self) -> None:
        _ = self.tilting
        if self.head_layers < 1:
            message = f"head_layers: expected at least 1, got {self.head_layers}"
            raise ConfigurationError(message)

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


def begin_nre(
    charting: ChartingEvents, events: EventSample, options: EstimatorOptions, seed: int
) -> Beginning:
    """Return an untrained estimator that knows events and their parameters only.

    Raises:
        ConfigurationError: unknown objects or parameters.
    """
    tilting = options.tilting
    features, resolved = unfitted_features(charting, tilting)
    group = symmetry_group(features, events.parameter_names, tilting)
    features.fit(charting.x, group.odd_features)
    theta = events.require_theta()
    shape = PairShape(
        feature_dim=features.feature_dim,
        parameter_dim=theta.shape[1],
        group=group.order,
        hidden=options.hidden,
        layers=options.layers,
        head_layers=options.head_layers,
    )
    ratio = PairNetwork(shape, seed).fill(theta, group)
    sizes = {f"ratio.{name}": size for name, size in shape._asdict().items()}
    if isinstance(features, KinematicFeatures):
        sizes["features.objects"] = features.n_objects
    read = f"{features.feature_dim} features of {', '.join(resolved.objects) or 'the observables'}"
    note = f"the estimator reads {read}; its symmetry group has {group.order} elements"
    surrogate = RatioEstimator(charting.x.shape[1], features, ratio)
    return Beginning(surrogate, sizes, options, (note,))


def begin_alices(
    charting: ChartingEvents, events: EventSample, options: EstimatorOptions, seed: int
) -> Beginning:
    """Return the same with what makes joint ratios of components.

    Raises:
        MissingReference: the events carry no components.
        ConfigurationError: the events were selected, so that their rate is another.
    """
    morphing, theta = _theory(events), events.require_theta()
    beginning = begin_nre(charting, events, options, seed)
    beginning.surrogate.joint = JointRatio(
        np.array(morphing.exponents),
        np.array(morphing.cross_section),
        theta.mean(axis=0),
        theta.std(axis=0),
    )
    return beginning


def rebuild_estimator(
    shape: Mapping[str, int],
    options: EstimatorOptions,  # noqa: ARG001
    seed: int,
) -> RatioEstimator:
    """Return the estimator of these integers, to be filled by `load_state_dict`."""
    sizes = {k.removeprefix("ratio."): v for k, v in shape.items() if k.startswith("ratio.")}
    n_objects, n = shape.get("features.objects"), shape["ambient_dim"]
    features = ObservableFeatures(n) if n_objects is None else KinematicFeatures(n_objects)
    return RatioEstimator(n, features, PairNetwork(PairShape(**sizes), seed))


def told_nothing(
    events: EventSample,  # noqa: ARG001
    options: EstimatorOptions,  # noqa: ARG001
    std: Array,  # noqa: ARG001
) -> Told:
    """Return neither scores nor components: events and theta are all."""
    return None, None


def told_jointly(
    events: EventSample,
    options: EstimatorOptions,  # noqa: ARG001
    std: Array,
) -> Told:
    """Return joint scores of theta / std (N, p) and components over V . c (N, K).

    V_k = mean w_k(theta) / sigma(theta) over the training thetas (weighted, where the events are),
    so that V . c is the density of all training events.

    Raises:
        MissingReference: the events carry no components.
        EventDataError: events whose components vanish.
    """
    morphing, theta = _theory(events), events.require_theta()
    scaled = told_by(events, MorphingOptions(inputs="components"), std)[1]
    assert scaled is not None
    components = scaled.double().numpy()
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    rate = total_cross_section(basis, total, theta)
    monomials = basis.weights(theta) / rate[:, None]
    average = np.average(monomials, axis=0, weights=events.theta_weight)
    joint_scores = score(basis, events.require_components(), total, theta)
    normalised = components / (components @ average)[:, None]
    return torch.from_numpy(joint_scores * std).float(), torch.from_numpy(normalised).float()


def _theory(events: EventSample) -> Morphing:
    """Return monomials and cross section, or say what joint ratios lack."""
    morphing = events.metadata.morphing
    if morphing is None or events.components is None:
        message = (
            "the recipe 'alices' needs the joint ratio of every event: morphing components in "
            f"the file and their monomials in its metadata, which events of process "
            f"{events.metadata.process!r} do not carry; take the recipe 'nre', which needs "
            "events and parameters alone"
        )
        raise MissingReference(message)
    if events.report is not None and events.report.cuts:
        message = (
            "the recipe 'alices' needs the cross section of its events, and that of the metadata "
            f"is another after a selection ({'; '.join(events.report.cuts)}); take 'nre', "
            "or a morphing density, which learns the rate"
        )
        raise ConfigurationError(message)
    return morphing
