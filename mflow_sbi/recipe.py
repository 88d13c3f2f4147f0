"""What a recipe is: how a surrogate begins, learns, is made again, and is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mflow_sbi.beginnings import Beginning, Told
from mflow_sbi.calibration import LikelihoodOfSets
from mflow_sbi.calibration.sets import learned_sets
from mflow_sbi.charting import ChartingEvents
from mflow_sbi.events import EventSample
from mflow_sbi.flows import FlowOptions
from mflow_sbi.inference import CachedLikelihood
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Measure
from mflow_sbi.named_schedules import named_schedule
from mflow_sbi.options import parse_options
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule, TrainingEvents, fit

__all__ = ["EVENTWISE", "Learn", "LikelihoodMakers", "Recipe"]


class Learn(Protocol):
    """A way to train a surrogate in place by a schedule; ours is `training.fit`."""

    def __call__(
        self,
        surrogate: Any,  # noqa: ANN401
        events: TrainingEvents,
        schedule: Schedule,
        settings: FitSettings,
        *,
        checkpoint_folder: Path | None = None,
        on_epoch: Callable[[HistoryRecord], None] | None = None,
    ) -> list[HistoryRecord]:
        """Return the history, one record an epoch."""
        ...


@dataclass(frozen=True)
class LikelihoodMakers:
    """How a trained surrogate becomes a likelihood of theta.

    Args:
        of_set: likelihood of one set of observed events, (N, n), physical units.
        of_sets: of many sets, (N_s, n) each.
    """

    of_set: Callable[[TrainedSurrogate, Array], DifferentiableLikelihood]
    of_sets: Callable[[TrainedSurrogate, Sequence[Array]], LikelihoodOfSets]


EVENTWISE = LikelihoodMakers(CachedLikelihood, learned_sets)
"""The likelihood of a set is the product of those of its events."""


@dataclass(frozen=True)
class Recipe:
    """A named way to begin a surrogate with its events, to train it, to make and to ask it again.

    Args:
        name: in configurations.
        title: in tables and figures.
        paper: where the method was published.
        surrogate: what it makes, up to the kind of density.
        options: record of its architecture.
        begin: returns an untrained surrogate for these events.
        rebuild: returns the same from integers and options.
        told: what it learns from beside events and theta.
        schedule: default phases.
        needs: of the events, beside x and theta.
        learn: runs the schedule.
        likelihoods: what inference asks.
    """

    name: str
    title: str
    paper: str
    surrogate: type
    options: type
    begin: Callable[[ChartingEvents, EventSample, Any, int], Beginning]
    rebuild: Callable[[Mapping[str, int], Any, int], Any]
    told: Callable[[EventSample, Any, Array], Told]
    schedule: Schedule
    needs: tuple[str, ...] = ()
    learn: Learn = fit
    likelihoods: LikelihoodMakers = EVENTWISE

    @property
    def measure(self) -> Measure:
        """Measure of its densities, "none" without one."""
        return self.surrogate.measure

    @property
    def has_surface(self) -> bool:
        """Whether events have points on a learned or given surface next to them."""
        return hasattr(self.surrogate, "project") or hasattr(self.surrogate, "project_at")

    @property
    def generates(self) -> bool:
        """Whether it draws events."""
        return self.has_surface or self.measure != "none"

    @property
    def is_eventwise(self) -> bool:
        """Whether the likelihood of a set is the product of those of its events."""
        return self.likelihoods is EVENTWISE

    def parse_options(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Return the recipe's options from plain values.

        Raises:
            ConfigurationError: unknown option (with the nearest spelling) or impossible value.
        """
        return parse_options(self.options, values, f"recipe {self.name!r}")

    def schedule_for(self, options: Any, name: str | None = None) -> Schedule:  # noqa: ANN401
        """Return the schedule without the phase of the other kind of density.

        Args:
            options: of the recipe.
            name: of another than the default schedule, see `named_schedules`.

        Raises:
            ConfigurationError: unknown name, or a schedule that cannot train this surrogate.
        """
        schedule = self.schedule
        if name is not None:
            schedule = named_schedule(name, self.name, options, self.measure)
        density = getattr(options, "density", None)
        if density is None:
            return schedule
        return schedule.without("ratio" if isinstance(density, FlowOptions) else "density")
