"""Recipes: named surrogates with their default schedules.  The only table of names.

| recipe | surrogate | measure | default schedule |
|---|---|---|---|
| `mflow` | manifold-learning flow (arXiv:2003.13913) | manifold | manifold, reference, density |
| `af` | ambient flow | ambient | reference, density |
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.errors import ConfigurationError, RunFolderError
from mflow_sbi.events import EventSample, Standardizer
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow, TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord, read_record
from mflow_sbi.training import (
    FitSettings,
    HistoryRecord,
    LatentNegativeLogProb,
    Phase,
    Reconstruction,
    ReferenceNegativeLogProb,
    Schedule,
    TrainingEvents,
    fit,
)

__all__ = [
    "RECIPES",
    "AmbientOptions",
    "ManifoldOptions",
    "Recipe",
    "TrainingResult",
    "find_recipe",
    "load_surrogate",
    "train",
]


def _reference_options() -> FlowOptions:
    return FlowOptions(layers=8, hidden=64)


def _density_options() -> FlowOptions:
    return FlowOptions(layers=4, hidden=64)


@dataclass(frozen=True)
class ManifoldOptions:
    """Architecture of the M-flow.

    Args:
        latent_dim: dimension of the surface.
        chart: flow of the invertible chart.
        reference: flow without theta that straightens the chart's coordinates (0 layers: they
            are whitened only).
        density: conditional flow of the latents.
    """

    latent_dim: int = 14
    chart: FlowOptions = field(
        default_factory=lambda: FlowOptions(layers=6, hidden=128, blocks=2, coupling="affine")
    )
    reference: FlowOptions = field(default_factory=_reference_options)
    density: FlowOptions = field(default_factory=_density_options)


@dataclass(frozen=True)
class AmbientOptions:
    """Architecture of the ambient flow: unconditional layers first, then conditional ones."""

    reference: FlowOptions = field(default_factory=_reference_options)
    density: FlowOptions = field(default_factory=_density_options)


def _build_mflow(
    head: LinearHead, parameter_dim: int, options: ManifoldOptions, seed: int
) -> ManifoldFlow:
    d = options.latent_dim
    return ManifoldFlow(
        build_invertible_chart(head, d, options.chart, seed),
        build_flow(d, 0, options.reference, seed + 1),
        build_flow(d, parameter_dim, options.density, seed + 2),
    )


def _build_ambient(
    head: LinearHead, parameter_dim: int, options: AmbientOptions, seed: int
) -> AmbientFlow:
    return AmbientFlow(
        head,
        build_flow(head.rank, 0, options.reference, seed + 1),
        build_flow(head.rank, parameter_dim, options.density, seed + 2),
    )


@dataclass(frozen=True)
class Recipe:
    """A named way to build a surrogate from the data's linear head, and how to train it."""

    name: str
    title: str
    paper: str
    measure: str
    options: type
    build: Callable[[LinearHead, int, Any, int], Any]
    schedule: Schedule

    def parse_options(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Return the recipe's options from plain values.

        Raises:
            ConfigurationError: unknown option (with the nearest spelling) or impossible value.
        """
        return _parse(self.options, values, f"recipe {self.name!r}")


def _parse_flow(default: object, value: Any, where: str) -> Any:  # noqa: ANN401
    """Return flow options with the named ones changed, or a plain value of the default's type."""
    if isinstance(default, FlowOptions) and isinstance(value, Mapping):
        return _parse(FlowOptions, {**asdict(default), **value}, where)
    if type(value) is int and type(default) is float:
        return float(value)
    if type(value) is not type(default):
        message = f"{where}: expected {type(default).__name__}, got {value!r}"
        raise ConfigurationError(message)
    return value


def _parse(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    known = {entry.name: entry for entry in fields(kind)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{where}: unknown option {name!r}, expected one of {sorted(known)}{hint}"
            raise ConfigurationError(message)
    defaults = kind()
    parsed = {
        name: _parse_flow(getattr(defaults, name), value, f"{where}, {name}")
        for name, value in values.items()
    }
    try:
        return kind(**parsed)
    except TypeError as error:
        message = f"{where}: {error}"
        raise ConfigurationError(message) from error


_MANIFOLD_PHASE = Phase(
    "manifold",
    objectives=((Reconstruction(), 1.0),),
    trains=("chart",),
    epochs=3,
    batch_size=250,
    clip_norm=1.0,
)
_REFERENCE_PHASE = Phase(
    "reference",
    objectives=((ReferenceNegativeLogProb(), 1.0),),
    trains=("reference",),
    epochs=3,
    batch_size=300,
    clip_norm=5.0,
)
_DENSITY_PHASE = Phase(
    "density",
    objectives=((LatentNegativeLogProb(), 1.0),),
    trains=("density",),
    epochs=8,
    batch_size=500,
    learning_rate=3e-3,
    clip_norm=5.0,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "mflow": Recipe(
            name="mflow",
            title="M-flow",
            paper="arXiv:2003.13913",
            measure=ManifoldFlow.measure,
            options=ManifoldOptions,
            build=_build_mflow,
            schedule=Schedule((_MANIFOLD_PHASE, _REFERENCE_PHASE, _DENSITY_PHASE)),
        ),
        "af": Recipe(
            name="af",
            title="ambient flow",
            paper="arXiv:1912.02762",
            measure=AmbientFlow.measure,
            options=AmbientOptions,
            build=_build_ambient,
            schedule=Schedule((_REFERENCE_PHASE, _DENSITY_PHASE)),
        ),
    }
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        ConfigurationError: unknown name (with the nearest spelling).
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"unknown recipe {name!r}, expected one of {sorted(RECIPES)}{hint}"
        raise ConfigurationError(message)
    return RECIPES[name]


@dataclass(frozen=True)
class TrainingResult:
    """A trained surrogate and the history of its training."""

    surrogate: TrainedSurrogate
    history: list[HistoryRecord]


def train(
    events: EventSample,
    recipe: str = "mflow",
    *,
    options: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    settings: FitSettings | None = None,
    checkpoint_folder: Path | None = None,
    on_epoch: Callable[[HistoryRecord], None] | None = None,
) -> TrainingResult:
    """Train a surrogate of p(x|theta) on simulated events.

    Observables and parameters are standardised on these events, exactly linear constraints are
    found and built in, then the recipe's schedule runs.  Same events, options and settings give
    the same weights bit for bit on the same machine and number of threads.

    Args:
        events: simulated events with the parameters they were generated at.
        recipe: name of the recipe, see `RECIPES`.
        options: architecture options of the recipe, by name.
        schedule: other than the recipe's default schedule.
        settings: seed and held-out share.
        checkpoint_folder: where to keep (and look for) an unfinished run.
        on_epoch: called with each epoch's record.

    Raises:
        MissingReference: the events carry no theta.
        ConfigurationError: unknown recipe or option.
        EventDataError: weighted events.
        TrainingError: too few events, or a diverging objective.
    """
    chosen = find_recipe(recipe)
    settings = settings or FitSettings()
    theta = events.require_theta()
    events.require_unweighted()
    parsed = chosen.parse_options(options or {})
    x_scale = Standardizer.fit(events.x, names=events.observable_names)
    theta_scale = Standardizer.fit(theta, names=events.parameter_names)
    x = torch.from_numpy(x_scale.transform(events.x))
    parameters = torch.from_numpy(theta_scale.transform(theta)).float()
    head = LinearHead.fit(x)
    surrogate = chosen.build(head, theta.shape[1], parsed, settings.seed)
    history = fit(
        surrogate,
        TrainingEvents(x, parameters),
        schedule or chosen.schedule,
        settings,
        checkpoint_folder=checkpoint_folder,
        on_epoch=on_epoch,
    )
    record = SurrogateRecord(
        recipe=recipe,
        shape={
            "ambient_dim": head.ambient_dim,
            "rank": head.rank,
            "parameter_dim": theta.shape[1],
        },
        options=asdict(parsed),
        seed=settings.seed,
        observables=x_scale,
        parameters=theta_scale,
        metadata=events.metadata.with_ranges_of(theta),
        digests={"training_events": events.digest},
    )
    surrogate.eval()
    return TrainingResult(TrainedSurrogate(surrogate, record), history)


def load_surrogate(folder: str | Path) -> TrainedSurrogate:
    """Return the trained surrogate saved in a folder (or in its `surrogate/` subfolder).

    Raises:
        RunFolderError: the folder is incomplete, altered or of another version.
    """
    folder = Path(folder)
    if (folder / "surrogate").is_dir():
        folder = folder / "surrogate"
    record, tensors = read_record(folder)
    recipe = find_recipe(record.recipe)
    if not isinstance(rank := record.shape.get("rank"), int):
        message = f"{folder}: the record has no rank of the data; train again"
        raise RunFolderError(message)
    head = LinearHead(record.shape["ambient_dim"], rank)
    options = recipe.parse_options(record.options)
    surrogate = recipe.build(head, record.shape["parameter_dim"], options, record.seed)
    _load_tensors(surrogate, tensors, folder)
    surrogate.eval()
    return TrainedSurrogate(surrogate, record)


def _load_tensors(surrogate: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    floats = {value.dtype for value in tensors.values() if value.dtype.is_floating_point}
    if torch.float32 not in floats:
        surrogate.double()
    try:
        surrogate.load_state_dict(tensors)
    except RuntimeError as error:
        message = f"{folder}: the weights do not fit the recipe ({error})"
        raise RunFolderError(message) from error
