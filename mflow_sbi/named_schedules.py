"""Ways to train a chart and a density, by the name that a configuration gives them.

| name | what it does | charts |
|---|---|---|
| `sequential` | surface by reconstruction, then density by likelihood (M/D) | any |
| `alternating` | the same in turn, one pass each | learned |
| `simultaneous` | reconstruction and exact likelihood together | learned, with a volume |
| `optimal_transport` | Sinkhorn divergence of generated events from simulated ones | invertible |
| `alternating_optimal_transport` | that and the likelihood of the density in turn | invertible |

`scandal` adds score matching to the density phase of any of them, and of recipes without a chart.

References:
    | Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
      arXiv:2003.13913, section 3
    | Mining gold from implicit models (Brehmer et al., 2018), arXiv:1805.12244 (SCANDAL)
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mflow_sbi import default_schedules
from mflow_sbi.charting import AutomaticOptions, EncodedOptions, ImplicitOptions
from mflow_sbi.charts import NetworkOptions
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventSample
from mflow_sbi.flows import FlowOptions
from mflow_sbi.interfaces import Array, Measure
from mflow_sbi.training import FitSettings, Schedule, ScoreMatching

__all__ = [
    "SCHEDULES",
    "NamedSchedule",
    "joint_scores_for",
    "named_schedule",
    "require_compilable",
    "with_scores",
]

LEARNED_CHARTS = (FlowOptions, EncodedOptions, NetworkOptions)
ANY_CHART = (*LEARNED_CHARTS, ImplicitOptions, AutomaticOptions)


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule and what it can train.

    Args:
        schedule: its phases.
        charts: options of the charts that it can train.
        needs: what other charts lack.
        measures: of the surrogates that it can train.
        any_density: whether a ratio may take the place of the flow.
    """

    schedule: Schedule
    charts: tuple[type, ...] = LEARNED_CHARTS
    needs: str = "a chart that is learned: say `chart: invertible` (or encoded, or autoencoder)"
    measures: tuple[Measure, ...] = ("manifold", "none")
    any_density: bool = False


_GENERATES = (
    "a chart whose encoder is the inverse of its decoder, as a free encoder learns nothing from "
    "generated events: say `chart: invertible`"
)

SCHEDULES: Mapping[str, NamedSchedule] = MappingProxyType(
    {
        "sequential": NamedSchedule(
            default_schedules.CHART_THEN_DENSITY, ANY_CHART, any_density=True
        ),
        "alternating": NamedSchedule(default_schedules.ALTERNATING),
        "simultaneous": NamedSchedule(default_schedules.SIMULTANEOUS, measures=("manifold",)),
        "optimal_transport": NamedSchedule(
            default_schedules.OPTIMAL_TRANSPORT, (FlowOptions,), _GENERATES
        ),
        "alternating_optimal_transport": NamedSchedule(
            default_schedules.ALTERNATING_OPTIMAL_TRANSPORT, (FlowOptions,), _GENERATES
        ),
    }
)


def named_schedule(name: str, recipe: str, options: Any, measure: Measure) -> Schedule:  # noqa: ANN401
    """Return the schedule of that name for a recipe with these options.

    Raises:
        ConfigurationError: unknown name (with the nearest spelling), or a schedule that cannot
            train this recipe's chart or density.
    """
    if name not in SCHEDULES:
        near = difflib.get_close_matches(name, SCHEDULES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"schedule: unknown name {name!r}, expected one of {list(SCHEDULES)}{hint}"
        raise ConfigurationError(message)
    chosen, where = SCHEDULES[name], f"schedule {name!r} for recipe {recipe!r}"
    chart = getattr(options, "chart", None)
    if chart is None:
        message = f"{where}: the recipe has no chart to train; leave `schedule` out"
        raise ConfigurationError(message)
    if not isinstance(chart, chosen.charts):
        message = f"{where}: it needs {chosen.needs}"
        raise ConfigurationError(message)
    if measure not in chosen.measures:
        message = (
            f"{where}: it needs the volume of the surface, which the recipe leaves out, so that "
            "latents would shrink to a point; take the recipe mflow with this chart"
        )
        raise ConfigurationError(message)
    if not chosen.any_density and not isinstance(options.density, FlowOptions):
        message = (
            f"{where}: a ratio is trained at fixed chart; take `density: flow`, or sequential"
        )
        raise ConfigurationError(message)
    return chosen.schedule


def with_scores(schedule: Schedule, weight: float) -> Schedule:
    """Return the schedule with score matching of that weight in its density phase (SCANDAL).

    Raises:
        ConfigurationError: there is no such phase.
    """
    if "density" not in schedule.phase_names:
        message = (
            "scandal: expected a schedule with a density phase, which a flow density has; the "
            f"phases are {schedule.phase_names} (a ratio density takes `inputs: score`)"
        )
        raise ConfigurationError(message)
    return schedule.adding(ScoreMatching(), weight, to="density")


def joint_scores_for(schedule: Schedule, events: EventSample, std: Array) -> Tensor | None:
    """Return the joint scores of theta / std (N, p), if the schedule matches scores.

    Raises:
        MissingReference: it does, and the events carry none.
    """
    if not _matches_scores(schedule):
        return None
    return torch.from_numpy(events.require_score() * std).float()


def require_compilable(schedule: Schedule, settings: FitSettings) -> None:
    """Refuse score matching on compiled layers, which have no second derivative.

    Raises:
        ConfigurationError: both are asked for.
    """
    if settings.compiled and _matches_scores(schedule):
        message = (
            "scandal: score matching needs second derivatives, which compiled layers do not have; "
            "leave `compiled` out"
        )
        raise ConfigurationError(message)


def _matches_scores(schedule: Schedule) -> bool:
    objectives = [objective for phase in schedule.phases for objective, _ in phase.objectives]
    return any(isinstance(objective, ScoreMatching) for objective in objectives)
