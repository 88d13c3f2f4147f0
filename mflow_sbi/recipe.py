"""What a recipe is: how a surrogate begins, learns, is made again, and is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from mflow_sbi.beginnings import Beginning, Told
from mflow_sbi.calibration import LikelihoodOfSets
from mflow_sbi.calibration.sets import learned_sets
from mflow_sbi.charting import ChartingEvents
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventMetadata, EventSample, Standardizer
from mflow_sbi.flows import FlowOptions
from mflow_sbi.inference import CachedLikelihood
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Measure
from mflow_sbi.named_schedules import joint_scores_for, named_schedule, require_compilable
from mflow_sbi.options import parse_options, plain_options
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord
from mflow_sbi.training import (
    FitSettings,
    HistoryRecord,
    Schedule,
    TrainingEvents,
    fit,
)

__all__ = ["EVENTWISE", "BegunTraining", "Learn", "LikelihoodMakers", "Recipe"]


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
        streams: whether `training.fit` trains it, and what it is told of an event needs no other.
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
    streams: bool = False

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

    def start(
        self,
        events: EventSample,
        options: Any,  # noqa: ANN401
        schedule: Schedule | None,
        settings: FitSettings,
    ) -> "BegunTraining":
        """Return a training that begins with these events; nothing has been learned yet.

        Args:
            events: all training events, or some drawn from them at random.
            options: of the recipe.
            schedule: other than the default one.
            settings: of the loop.

        Raises:
            MissingReference: the events carry no theta, or not what the schedule needs.
            ConfigurationError: what cannot be compiled, or be shared out to processes.
        """
        if settings.processes.are_many and self.learn is not fit:
            message = (
                f"recipe {self.name!r}: its training cannot be shared out to "
                f"{settings.processes.size} processes; train it without torchrun"
            )
            raise ConfigurationError(message)
        theta = events.require_theta()
        x_scale = Standardizer.fit(events.x, names=events.observable_names)
        theta_scale = Standardizer.fit(theta, names=events.parameter_names)
        x = torch.from_numpy(x_scale.transform(events.x))
        charting = ChartingEvents(events.x, x, x_scale.mean, x_scale.std, events.observable_names)
        beginning = self.begin(charting, events, options, settings.seed)
        wanted = schedule or self.schedule_for(options)
        require_compilable(wanted, settings)
        return BegunTraining(self, settings, beginning, x_scale, theta_scale, wanted)


@dataclass(frozen=True, eq=False)
class BegunTraining:
    """A surrogate before its first gradient, and how events come to it.

    Args:
        recipe: that it follows.
        settings: of the loop.
        beginning: the surrogate and what rebuilds it.
        observables: scale of x.
        parameters: scale of theta.
        wanted: schedule, also of parts that this surrogate lacks.
    """

    recipe: Recipe
    settings: FitSettings
    beginning: Beginning
    observables: Standardizer
    parameters: Standardizer
    wanted: Schedule

    @property
    def schedule(self) -> Schedule:
        """The phases that train this surrogate."""
        return self.wanted.for_parts(self.beginning.surrogate.trainable_parts)

    def notes(self, n_events: int) -> tuple[str, ...]:
        """Return what was found in the events, and which phases are short for so many of them."""
        found = self.beginning.notes
        if self.recipe.learn is not fit:
            return found
        kept = n_events - round(self.settings.validation_fraction * n_events)
        return (*found, *self.schedule.short_phases(kept))

    def training_events(self, events: EventSample) -> TrainingEvents:
        """Return events as the loop takes them, but for their weights.

        Raises:
            MissingReference: the events do not carry what the schedule needs.
            EventDataError: components that vanish.
        """
        std = self.parameters.std
        x = torch.from_numpy(self.observables.transform(events.x))
        theta = torch.from_numpy(self.parameters.transform(events.require_theta())).float()
        score, components = self.recipe.told(events, self.beginning.options, std)
        if score is None:
            score = joint_scores_for(self.wanted, events, std)
        return TrainingEvents(x, theta, score, components)

    def finished(
        self, metadata: EventMetadata, digest: str, notes: Sequence[str]
    ) -> TrainedSurrogate:
        """Return the surrogate, now trained, with its record.

        Args:
            metadata: of all training events, with the ranges of theta.
            digest: of all training events.
            notes: what was found in them.
        """
        surrogate = self.beginning.surrogate
        record = SurrogateRecord(
            recipe=self.recipe.name,
            shape={
                "ambient_dim": len(self.observables.mean),
                "parameter_dim": len(self.parameters.mean),
                **self.beginning.shape,
            },
            options=plain_options(self.beginning.options),
            seed=self.settings.seed,
            observables=self.observables,
            parameters=self.parameters,
            metadata=metadata,
            digests={"training_events": digest},
            notes=tuple(notes),
        )
        surrogate.eval()
        return TrainedSurrogate(surrogate, record)
