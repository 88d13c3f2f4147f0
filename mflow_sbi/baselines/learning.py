"""Ways to learn that recipes bring: sbi's trainers in place of our loop, with its arguments.

Of a phase they take epochs, batch size, learning rate, clipping and patience; sbi knows no
weight decay, no cycles, no compiled layers, no weights of events and no checkpoints: an
interrupted training begins anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from mflow_sbi.baselines.density import SbiDensity
from mflow_sbi.baselines.door import needing_sbi
from mflow_sbi.baselines.estimators import SbiPosterior, SbiRatio, SbiSetPosterior
from mflow_sbi.errors import ConfigurationError, EventDataError, TrainingError
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow
from mflow_sbi.training import (
    FitSettings,
    HistoryRecord,
    Phase,
    Schedule,
    TrainingBatch,
    TrainingEvents,
)
from mflow_sbi.training.batches import ENCODING_ROWS

__all__ = ["LossOfSbi", "learn_density", "learn_posterior", "learn_ratio", "learn_set_posterior"]

_LEAST_EPOCHS = 2
EpochCallback: TypeAlias = Callable[[HistoryRecord], None] | None


@dataclass(frozen=True)
class LossOfSbi:
    """The loss inside a trainer of sbi, named in the schedule; our loop cannot call it."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Refuse: the trainer calls its loss itself.

        Raises:
            TrainingError: always.
        """
        return _refuse_loss(surrogate, batch)


def _refuse_loss(surrogate: object, batch: TrainingBatch) -> NoReturn:  # noqa: ARG001
    message = "the loss of sbi's trainers is no objective of ours; train by the recipe's own way"
    raise TrainingError(message)


def learn_density(
    surrogate: AmbientFlow | ManifoldFlow,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,  # noqa: ARG001
    on_epoch: EpochCallback = None,
) -> list[HistoryRecord]:
    """Train p(u|theta) by neural likelihood estimation (NLE); arguments of `training.fit`."""
    phase, density = _phase_of(schedule, settings, events), surrogate.density
    assert isinstance(density, SbiDensity)
    with torch.no_grad():
        inputs = torch.cat([surrogate.encode(part) for part in events.x.split(ENCODING_ROWS)])
    with needing_sbi():
        from mflow_sbi.baselines.trainers import run_trainer
    return run_trainer("nle", density.network, events.theta, inputs, phase, settings, on_epoch)


def learn_ratio(
    surrogate: SbiRatio,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,  # noqa: ARG001
    on_epoch: EpochCallback = None,
) -> list[HistoryRecord]:
    """Train log r(x, theta) by neural ratio estimation (NRE); arguments of `training.fit`."""
    phase, lesson = _phase_of(schedule, settings, events), surrogate.lesson
    inputs = surrogate.inputs(events.x)
    with needing_sbi():
        from mflow_sbi.baselines.trainers import run_trainer
    return run_trainer(
        lesson.trainer,
        surrogate.network,
        events.theta,
        inputs,
        phase,
        settings,
        on_epoch,
        **lesson.arguments,
    )


def learn_posterior(
    surrogate: SbiPosterior,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,  # noqa: ARG001
    on_epoch: EpochCallback = None,
) -> list[HistoryRecord]:
    """Train q(theta|x) by neural posterior estimation (NPE); arguments of `training.fit`."""
    phase, inputs = _phase_of(schedule, settings, events), surrogate.inputs(events.x)
    with needing_sbi():
        from mflow_sbi.baselines.trainers import run_trainer
    return run_trainer("npe", surrogate.network, events.theta, inputs, phase, settings, on_epoch)


def learn_set_posterior(
    surrogate: SbiSetPosterior,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,  # noqa: ARG001
    on_epoch: EpochCallback = None,
) -> list[HistoryRecord]:
    """Train q(theta|{x}) on the sets drawn when it began; arguments of `training.fit`."""
    phase, sets = _phase_of(schedule, settings, events), surrogate.sets
    assert sets is not None
    with needing_sbi():
        from mflow_sbi.baselines.trainers import run_trainer
    return run_trainer("npe", surrogate.network, sets.theta, sets.rows, phase, settings, on_epoch)


def _phase_of(schedule: Schedule, settings: FitSettings, events: TrainingEvents) -> Phase:
    """Return the only phase, of which sbi's trainers can do all that it asks.

    Raises:
        ConfigurationError: they cannot.
        EventDataError: weighted events.
    """
    if events.weight is not None:
        message = (
            "the trainers of sbi know no weights of events, and these differ; take a recipe that "
            "does (mflow, fom, af, nre, alices), or unweighted events"
        )
        raise EventDataError(message)
    phase = schedule.phases[0]
    asked = {
        f"phases {schedule.phase_names}, expected one": len(schedule.phases) > 1,
        f"{schedule.cycles} cycles, expected one": schedule.cycles > 1,
        f"weight_decay {phase.weight_decay:g}, expected 0": phase.weight_decay != 0,
        "one epoch, expected at least two": phase.epochs < _LEAST_EPOCHS,
        "compiled layers": settings.compiled,
        "objectives of ours": phase.objectives != ((LossOfSbi(), 1.0),),
    }
    if any(asked.values()):
        words = "; ".join(what for what, is_asked in asked.items() if is_asked)
        message = f"the trainers of sbi cannot do what the schedule asks: {words}"
        raise ConfigurationError(message)
    return phase
