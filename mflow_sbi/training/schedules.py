"""Schedules: ordered phases of weighted objectives on named parts, repeated for some cycles."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.training.objectives import Objective
from mflow_sbi.training.optimisers import AdamW, Optimiser

__all__ = ["FEW_STEPS", "Phase", "Schedule"]

FEW_STEPS = 300
"""Steps of a phase below which networks have hardly moved; default epochs are those of samples of
100,000 events and more."""


@dataclass(frozen=True)
class Phase:
    """One optimisation stage.

    Args:
        name: shown in the history.
        objectives: (objective, weight) pairs; their weighted sum is minimised.
        trains: names of the surrogate's parts whose parameters move.
        epochs: passes over the training events per cycle.
        batch_size: events per step.
        learning_rate: peak of the warm-up and cosine decay.
        patience: epochs without improvement on held-out events before the phase stops.
        optimiser: how gradients become steps.
    """

    name: str
    objectives: tuple[tuple[Objective, float], ...]
    trains: tuple[str, ...]
    epochs: int = 25
    batch_size: int = 1000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    clip_norm: float = 10.0
    patience: int = 10
    optimiser: Optimiser = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                message = (
                    f"phase {self.name!r}, {name}: expected at least 1, got {getattr(self, name)}"
                )
                raise ConfigurationError(message)
        if not self.learning_rate > 0:
            message = (
                f"phase {self.name!r}, learning_rate: expected a positive number, "
                f"got {self.learning_rate}"
            )
            raise ConfigurationError(message)
        if not self.objectives or not self.trains:
            message = f"phase {self.name!r}: expected at least one objective and one part to train"
            raise ConfigurationError(message)

    def with_epochs(self, epochs: int) -> "Phase":
        """Return the same phase for another number of epochs."""
        return replace(self, epochs=epochs)


@dataclass(frozen=True)
class Schedule:
    """Phases in order, repeated for a number of cycles (alternating training: cycles > 1)."""

    phases: tuple[Phase, ...]
    cycles: int = 1

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names) or self.cycles < 1:
            message = (
                "a schedule needs at least one phase, phases of different names and at least one "
                f"cycle; got phases {names}, cycles {self.cycles}"
            )
            raise ConfigurationError(message)

    @property
    def phase_names(self) -> Sequence[str]:
        """Names of the phases in order."""
        return [phase.name for phase in self.phases]

    def with_phases(self, **changes: dict[str, object]) -> "Schedule":
        """Return the schedule with fields of named phases changed.

        >>> from mflow_sbi.training import LatentNegativeLogProb, Phase, Schedule
        >>> density = Phase("density", ((LatentNegativeLogProb(), 1.0),), ("density",))
        >>> Schedule((density,)).with_phases(density={"epochs": 3}).phases[0].epochs
        3
        """
        unknown = sorted(set(changes) - set(self.phase_names))
        if unknown:
            message = f"schedule: unknown phases {unknown}; this schedule has {self.phase_names}"
            raise ConfigurationError(message)
        phases = tuple(replace(phase, **changes.get(phase.name, {})) for phase in self.phases)
        return replace(self, phases=phases)

    def without(self, name: str) -> "Schedule":
        """Return the schedule without the phase of that name."""
        return replace(self, phases=tuple(p for p in self.phases if p.name != name))

    def adding(self, objective: Objective, weight: float, *, to: str) -> "Schedule":
        """Return the schedule with one more weighted objective in the phase of that name.

        Raises:
            ConfigurationError: no phase of that name, or a weight that is not positive.
        """
        if to not in self.phase_names or not 0 < weight < math.inf:
            message = (
                f"schedule: expected a phase {to!r} and a positive weight for "
                f"{type(objective).__name__}; the phases are {self.phase_names}, the weight is "
                f"{weight}"
            )
            raise ConfigurationError(message)
        phases = (
            replace(phase, objectives=(*phase.objectives, (objective, weight)))
            if phase.name == to
            else phase
            for phase in self.phases
        )
        return replace(self, phases=tuple(phases))

    def short_phases(self, n_events: int) -> tuple[str, ...]:
        """Return a sentence on every phase of fewer than `FEW_STEPS` steps on so many events.

        >>> from mflow_sbi.training import LatentNegativeLogProb, Phase, Schedule
        >>> density = Phase("density", ((LatentNegativeLogProb(), 1.0),), ("density",), epochs=8)
        >>> Schedule((density,)).short_phases(7200)[0]  # doctest: +ELLIPSIS
        "phase 'density' takes 56 steps (epochs: 8, of 7,200 events, 1,000 at a time): few for ..."
        """
        found = []
        for phase in self.phases:
            epochs = phase.epochs * self.cycles
            steps = epochs * max(1, n_events // phase.batch_size)
            if steps < FEW_STEPS:
                found.append(
                    f"phase {phase.name!r} takes {steps} steps (epochs: {epochs}, of {n_events:,} "
                    f"events, {min(phase.batch_size, n_events):,} at a time): few for a network; "
                    f"with so few events raise its epochs (`phases: {{{phase.name}: "
                    "{epochs: ..., batch_size: ...}}`), early stopping ends it in time"
                )
        return tuple(found)

    def for_parts(self, parts: Collection[str]) -> "Schedule":
        """Return the schedule without phases all of whose parts a surrogate does not train."""
        kept = tuple(phase for phase in self.phases if set(phase.trains) & set(parts))
        return replace(self, phases=kept)
