"""The one training loop: it knows phases, objectives and parts by their promises only.

Everything random in an epoch comes from a generator seeded by (seed, position in the schedule),
so that a run resumed from a checkpoint repeats the uninterrupted run bit for bit.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mflow_sbi.errors import TrainingError
from mflow_sbi.training.batches import (
    TrainingEvents,
    as_one_batch,
    batches_of,
    generator_of,
    split_events,
)
from mflow_sbi.training.checkpoint import (
    Checkpoint,
    PhaseCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.schedules import Phase, Schedule
from mflow_sbi.training.stopping import HeldOut, held_out_objective
from mflow_sbi.transforms import compiled_layers

__all__ = ["FitSettings", "HistoryRecord", "TrainingEvents", "fit"]

WARM_UP_SHARE = 0.05
FINAL_RATE_SHARE = 0.01
PREPARING_ROWS = 100_000
NEVER = HeldOut(math.inf)


class Trainable(Protocol):
    """What the loop needs of a surrogate."""

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """Parts by name."""
        ...

    def prepare(self, part: str, x: Tensor) -> None:
        """Fit what the part takes from data before gradients."""
        ...

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Tensor], Tensor] | None:
        """Return the part of the encoding that rests while the named parts train, if any."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Take all tensors by name."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """How the loop runs, whatever it trains.

    Args:
        seed: seed of the shuffles and the split.
        validation_fraction: share of events held out for early stopping.
        compiled: compile the layers while they train: half a minute once, then steps take about
            three quarters of their time.  Needs a C++ compiler; pays for long trainings.
    """

    seed: int = 0
    validation_fraction: float = 0.1
    compiled: bool = False


@dataclass(frozen=True)
class HistoryRecord:
    """One epoch: weighted objective on training and held-out events, and what it took."""

    phase: str
    cycle: int
    epoch: int
    train: float
    validation: float
    learning_rate: float
    seconds: float

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


EpochCallback = Callable[[HistoryRecord], None]


@dataclass
class _PhaseState:
    """What a phase carries from epoch to epoch."""

    optimizer: torch.optim.Optimizer
    steps_done: int = 0
    best: HeldOut = NEVER
    epochs_since_best: int = 0
    best_tensors: dict[str, Tensor] | None = None

    def take(self, surrogate: Trainable, validation: HeldOut) -> None:
        """Keep the tensors of the surrogate where its epoch is the best so far."""
        if validation.is_better_than(self.best):
            self.best = validation
            self.epochs_since_best = 0
            self.best_tensors = {k: v.detach().clone() for k, v in surrogate.state_dict().items()}
        else:
            self.epochs_since_best += 1


def _parts(surrogate: Trainable, phase: Phase) -> list[nn.Module]:
    parts = surrogate.trainable_parts
    unknown = sorted(set(phase.trains) - set(parts))
    if unknown:
        message = f"phase {phase.name!r} trains {unknown}, but the parts are {sorted(parts)}"
        raise TrainingError(message)
    return [parts[name] for name in phase.trains]


def learning_rate_share(step: int, total: int) -> float:
    """Return the share of the peak rate: linear warm-up, cosine decay to 1%.

    >>> [round(learning_rate_share(step, 100), 3) for step in (0, 4, 99)]
    [0.2, 1.0, 0.01]
    """
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - 1 - warm_up)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine


def _objective(surrogate: Trainable, phase: Phase, batch: TrainingBatch) -> Tensor:
    terms = [weight * objective(surrogate, batch) for objective, weight in phase.objectives]
    return torch.stack(terms).sum()


def _train_epoch(
    surrogate: Trainable,
    phase: Phase,
    state: _PhaseState,
    data: TrainingBatch,
    order: Tensor,
    total_steps: int,
) -> float:
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    losses = []
    for batch in batches_of(data, order, phase.batch_size):
        rate = phase.learning_rate * learning_rate_share(state.steps_done, total_steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        loss = _objective(surrogate, phase, batch)
        if not bool(torch.isfinite(loss)):
            message = (
                f"phase {phase.name!r} diverged at step {state.steps_done}: the objective is "
                f"{loss.item()}; lower learning_rate (now {phase.learning_rate:g}) or look for "
                "outliers in the events"
            )
            raise TrainingError(message)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, phase.clip_norm, foreach=True)
        state.optimizer.step()
        state.steps_done += 1
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


@dataclass
class _Run:
    """One call of `fit`: the data, the clockwork and what happened so far."""

    surrogate: Trainable
    schedule: Schedule
    settings: FitSettings
    train: TrainingEvents
    held_out: TrainingEvents
    folder: Path | None
    history: list[HistoryRecord]
    states: dict[str, _PhaseState]

    @cached_property
    def fingerprint(self) -> str:
        """What must agree for a checkpoint to be taken up."""
        data = sha256()
        for tensor in (part for part in self.train if part is not None):
            data.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return repr((self.schedule, self.settings, data.hexdigest()))

    def state_of(self, phase: Phase) -> _PhaseState:
        """Return the optimiser state of a phase, made on first use and kept across cycles."""
        if phase.name not in self.states:
            parts = _parts(self.surrogate, phase)
            optimizer = phase.optimiser.build(parts, phase.learning_rate, phase.weight_decay)
            self.states[phase.name] = _PhaseState(optimizer)
        return self.states[phase.name]

    def epochs_done(self, phase: Phase, cycle: int) -> int:
        """Return how many epochs of this phase and cycle the history holds."""
        return sum(r.phase == phase.name and r.cycle == cycle for r in self.history)

    def is_past(self, phase: Phase, cycle: int) -> bool:
        """Return whether a later phase or cycle has begun."""
        if not self.history:
            return False
        names = list(self.schedule.phase_names)
        last = self.history[-1]
        return (last.cycle, names.index(last.phase)) > (cycle, names.index(phase.name))

    def begin(self, phase: Phase, cycle: int) -> _PhaseState:
        """Open a phase, or take it up where the checkpoint left it."""
        state = self.state_of(phase)
        if self.epochs_done(phase, cycle) == 0:
            if cycle == 0:
                for part in phase.trains:
                    self.surrogate.prepare(part, self.train.x[:PREPARING_ROWS])
            state.best, state.best_tensors = NEVER, None
            state.epochs_since_best = 0
        return state

    def run_phase(self, phase: Phase, cycle: int, on_epoch: EpochCallback) -> None:
        """Train one phase of one cycle and leave the surrogate at its best held-out epoch."""
        state = self.begin(phase, cycle)
        encoder = self.surrogate.resting_encoder(phase.trains)
        data = as_one_batch(self.train, encoder)
        held_out = as_one_batch(self.held_out, encoder)
        steps_per_epoch = max(1, len(data.x) // phase.batch_size)
        total_steps = steps_per_epoch * phase.epochs * self.schedule.cycles
        index = list(self.schedule.phase_names).index(phase.name)
        objective = partial(_objective, self.surrogate, phase)
        while (epoch := self.epochs_done(phase, cycle)) < phase.epochs:
            if state.epochs_since_best >= phase.patience:
                break
            began = time.perf_counter()
            generator = generator_of(self.settings.seed, 1, cycle, index, epoch)
            order = torch.randperm(len(data.x), generator=generator)
            with self.layers_of(phase):
                train = _train_epoch(self.surrogate, phase, state, data, order, total_steps)
            validation = held_out_objective(objective, held_out)
            state.take(self.surrogate, validation)
            rate = float(state.optimizer.param_groups[0]["lr"])
            seconds = time.perf_counter() - began
            record = HistoryRecord(
                phase.name, cycle, epoch, train, validation.value, rate, seconds
            )
            self.history.append(record)
            self.save()
            on_epoch(record)
        if state.best_tensors is None:
            message = f"phase {phase.name!r}: the held-out objective was never finite"
            raise TrainingError(message)
        self.surrogate.load_state_dict(state.best_tensors)

    def layers_of(self, phase: Phase) -> AbstractContextManager[None]:
        """Return the block in which the layers of the phase's parts are compiled, if they are."""
        if not self.settings.compiled:
            return nullcontext()
        parts = self.surrogate.trainable_parts
        return compiled_layers(*(parts[name] for name in phase.trains))

    def save(self) -> None:
        """Write the checkpoint, if a folder was given."""
        if self.folder is None:
            return
        phases = {
            name: PhaseCheckpoint(
                state.optimizer.state_dict()["state"],
                state.best_tensors or {},
                state.steps_done,
                state.best.value,
                state.epochs_since_best,
                state.best.blocks,
            )
            for name, state in self.states.items()
        }
        rows = [record.as_row() for record in self.history]
        save_checkpoint(
            self.folder, Checkpoint(self.fingerprint, self.surrogate.state_dict(), phases, rows)
        )

    def resume(self) -> None:
        """Take up a checkpoint of the same schedule, settings and events."""
        checkpoint = None if self.folder is None else load_checkpoint(self.folder)
        if checkpoint is None:
            return
        if checkpoint.fingerprint != self.fingerprint:
            message = (
                f"{self.folder}: the checkpoint belongs to another schedule, seed or set of "
                "events; remove the folder to start afresh, or restore the old configuration"
            )
            raise TrainingError(message)
        self.surrogate.load_state_dict(checkpoint.surrogate)
        self.history.extend(HistoryRecord(**row) for row in checkpoint.history)
        for phase in self.schedule.phases:
            if phase.name not in checkpoint.phases:
                continue
            saved, state = checkpoint.phases[phase.name], self.state_of(phase)
            groups = state.optimizer.state_dict()["param_groups"]
            state.optimizer.load_state_dict(
                {"state": saved.optimizer_state, "param_groups": groups}
            )
            state.best_tensors = saved.best_tensors or None
            state.steps_done = saved.steps_done
            state.best = HeldOut(saved.best_validation, tuple(saved.best_blocks))
            state.epochs_since_best = saved.epochs_since_best


def fit(
    surrogate: Trainable,
    events: TrainingEvents,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,
    on_epoch: EpochCallback | None = None,
) -> list[HistoryRecord]:
    """Train the surrogate in place by a schedule and return the history, one record an epoch.

    Each phase ends at its best held-out epoch (see `training.stopping`).  With a checkpoint folder
    the state is written after every epoch, and a checkpoint found there is taken up.

    Args:
        surrogate: parts, `prepare`, `encode` and whatever its objectives call.
        events: standardised events and parameters, with weights where these differ.
        schedule: phases of weighted objectives on named parts.
        settings: seed and held-out share.
        checkpoint_folder: where to write and look for a checkpoint.
        on_epoch: called with each new record.

    Raises:
        TrainingError: too few events, weights of no positive sum, a non-finite objective, an
            unknown part, or a checkpoint of another run.
    """
    train, held_out = split_events(events, settings.validation_fraction, settings.seed)
    run = _Run(surrogate, schedule, settings, train, held_out, checkpoint_folder, [], {})
    run.resume()
    for cycle in range(schedule.cycles):
        for phase in schedule.phases:
            if not run.is_past(phase, cycle):
                run.run_phase(phase, cycle, on_epoch or (lambda record: None))
    return run.history
