"""The one training loop: it knows phases, objectives and parts by their promises only.

Everything random in an epoch comes from a generator seeded by (seed, position in the schedule),
so that a run resumed from a checkpoint repeats the uninterrupted run bit for bit.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from mflow_sbi.errors import TrainingError
from mflow_sbi.training.batches import TrainingEvents
from mflow_sbi.training.checkpoint import (
    Checkpoint,
    PhaseCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from mflow_sbi.training.processes import Processes
from mflow_sbi.training.schedules import Phase, Schedule
from mflow_sbi.training.settings import EpochCallback, FitSettings, HistoryRecord, Trainable
from mflow_sbi.training.sources import EpochSeed, EventSource, InMemoryEvents
from mflow_sbi.training.steps import PhaseSteps
from mflow_sbi.training.stopping import HeldOut, held_out_objective
from mflow_sbi.transforms import compiled_layers

__all__ = ["fit"]

NEVER = HeldOut(math.inf)


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


def _resting_tensors(surrogate: Trainable, phase: Phase) -> dict[str, Tensor]:
    """Return the numbers of the surrogate that no part of the phase trains, by name."""
    trained = {
        tensor.data_ptr()
        for part in _parts(surrogate, phase)
        for tensor in part.state_dict().values()
    }
    state = surrogate.state_dict()
    return {name: value for name, value in state.items() if value.data_ptr() not in trained}


@dataclass
class _Run:
    """One call of `fit`: the data, the clockwork and what happened so far."""

    surrogate: Trainable
    schedule: Schedule
    settings: FitSettings
    source: EventSource
    folder: Path | None
    history: list[HistoryRecord]
    states: dict[str, _PhaseState]

    @cached_property
    def fingerprint(self) -> str:
        """What must agree for a checkpoint to be taken up."""
        return repr((self.schedule, self.settings, self.source.digest))

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return self.settings.processes

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
                    self.surrogate.prepare(part, self.source.preparing())
            self.processes.take_from_first(self.surrogate.state_dict().values())
            state.best, state.best_tensors = NEVER, None
            state.epochs_since_best = 0
        return state

    def run_phase(self, phase: Phase, cycle: int, on_epoch: EpochCallback) -> None:
        """Train one phase of one cycle and leave the surrogate at its best held-out epoch."""
        state = self.begin(phase, cycle)
        encoder = self.surrogate.resting_encoder(phase.trains)
        data = self.source.phase_events(encoder, _resting_tensors(self.surrogate, phase))
        steps_per_epoch = max(1, data.n_events // phase.batch_size)
        total_steps = steps_per_epoch * phase.epochs * self.schedule.cycles
        steps = PhaseSteps(self.surrogate, phase, self.processes, total_steps)
        index = list(self.schedule.phase_names).index(phase.name)
        while (epoch := self.epochs_done(phase, cycle)) < phase.epochs:
            if state.epochs_since_best >= phase.patience:
                break
            began = time.perf_counter()
            seed = EpochSeed(self.settings.seed, cycle, index, epoch)
            batches = data.batches(phase.batch_size, seed)
            with self.layers_of(phase):
                train, made = steps.epoch(state.optimizer, batches, state.steps_done)
            state.steps_done += made
            validation = held_out_objective(steps.objective, data.held_out, self.processes)
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
        if self.folder is None or not self.processes.is_first:
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
    events: TrainingEvents | EventSource,
    schedule: Schedule,
    settings: FitSettings,
    *,
    checkpoint_folder: Path | None = None,
    on_epoch: EpochCallback | None = None,
) -> list[HistoryRecord]:
    """Train the surrogate in place by a schedule and return the history, one record an epoch.

    Each phase ends at its best held-out epoch (see `training.stopping`).  With a checkpoint folder
    the state is written after every epoch, and a checkpoint found there is taken up.

    Processes that train together (see `training.processes`) all call this with the same arguments
    and end with the same surrogate; the first alone writes checkpoints.

    Args:
        surrogate: parts, `prepare`, `encode` and whatever its objectives call.
        events: standardised events and parameters, with weights where these differ; or a source
            of such events that are not all in memory.
        schedule: phases of weighted objectives on named parts.
        settings: seed, held-out share, and the processes that train together.
        checkpoint_folder: where to write and look for a checkpoint.
        on_epoch: called with each new record.

    Raises:
        TrainingError: too few events, weights of no positive sum, a non-finite objective, an
            unknown part, batches too small for the processes, or a checkpoint of another run.
    """
    if isinstance(events, TrainingEvents):
        events = InMemoryEvents.split(events, settings)
    run = _Run(surrogate, schedule, settings, events, checkpoint_folder, [], {})
    run.resume()
    for cycle in range(schedule.cycles):
        for phase in schedule.phases:
            if not run.is_past(phase, cycle):
                run.run_phase(phase, cycle, on_epoch or (lambda record: None))
    return run.history
