"""Trainings that several processes do together, as a program: `trained_together.py FOLDER`.

Each process writes what it ended with to FOLDER/CASE.RANK.npz.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

if __package__:
    from ..densities.toys import toy_events
    from .curves import SomeChunks, curve_sample, curve_schedule, numbers_of, small_mflow, told
else:
    sys.path[:0] = [str(Path(__file__).parents[1] / "densities"), str(Path(__file__).parent)]
    from curves import (  # pyright: ignore[reportMissingImports]
        SomeChunks,
        curve_sample,
        curve_schedule,
        numbers_of,
        small_mflow,
        told,
    )
    from toys import toy_events  # pyright: ignore[reportMissingImports]

from mflow_sbi.recipes import find_recipe, train
from mflow_sbi.training import (
    FitSettings,
    LatentNegativeLogProb,
    Phase,
    SampleTransport,
    Schedule,
    ScoreMatching,
    StreamingSettings,
    TrainingEvents,
    fit,
)
from mflow_sbi.training.gathering import gathered_events
from mflow_sbi.training.processes import Processes, torchrun_processes
from mflow_sbi.training.settings import HistoryRecord
from mflow_sbi.training.streamed import StreamedEvents

Outcome = tuple[torch.nn.Module, list[HistoryRecord]]


def _fitted(events: TrainingEvents, schedule: Schedule, settings: FitSettings) -> Outcome:
    surrogate = small_mflow(seed=settings.processes.rank).double()  # the first one's counts
    return surrogate, fit(surrogate, events, schedule, settings)


def in_memory(settings: FitSettings, folder: Path) -> Outcome:
    return _fitted(told(curve_sample(600)), curve_schedule(2, batch_size=75), settings)


def streamed(settings: FitSettings, folder: Path) -> Outcome:
    surrogate = small_mflow(seed=settings.processes.rank).double()
    chunks, streaming = SomeChunks(curve_sample(600), 128), StreamingSettings(128, 2)
    checkpoint = folder / "checkpoint"
    with gathered_events(chunks, settings, streaming, folder=checkpoint / "events") as gathered:
        source = StreamedEvents(gathered, told, settings.seed)
        schedule = curve_schedule(2, batch_size=75)
        history = fit(surrogate, source, schedule, settings, checkpoint_folder=checkpoint)
    return surrogate, history


def signed_weights_and_scores(settings: FitSettings, folder: Path) -> Outcome:
    events = told(curve_sample(600))
    sign = torch.where(torch.arange(600) % 7 == 0, -0.5, 1.0).double()
    events = events._replace(weight=sign, score=torch.ones(600, 1).double())
    objectives = ((LatentNegativeLogProb(), 1.0), (ScoreMatching(), 0.1))
    phase = Phase("density", objectives, ("density",), 2, 75, 5e-3)
    return _fitted(events, Schedule((phase,)), settings)


def transport(settings: FitSettings, folder: Path) -> Outcome:
    parts = ("chart", "reference", "density")
    phase = Phase("transport", ((SampleTransport(), 1.0),), parts, 1, 75, 5e-3)
    return _fitted(told(curve_sample(300)), Schedule((phase,)), settings)


def _recipe(name: str, options: dict, settings: FitSettings, **phase: dict) -> Outcome:
    recipe = find_recipe(name)
    schedule = recipe.schedule_for(recipe.parse_options(options)).with_phases(**phase)
    result = train(toy_events(800, 1), name, options=options, schedule=schedule, settings=settings)
    assert isinstance(result.surrogate.surrogate, torch.nn.Module)
    return result.surrogate.surrogate, result.history


def ratio_estimator(settings: FitSettings, folder: Path) -> Outcome:
    """Events are turned by a symmetry in turn, and meet thetas of other processes."""
    options = {"hidden": 8, "layers": 1}
    steps = {"epochs": 2, "batch_size": 101}
    return _recipe("nre", options, settings, ratio=steps)


def morphing_density(settings: FitSettings, folder: Path) -> Outcome:
    network = {"kind": "morphing", "hidden": 8, "layers": 2}
    options = {"reference": {"layers": 1, "hidden": 8, "bins": 4}, "density": network}
    steps = {"epochs": 1, "batch_size": 101}
    return _recipe("af", options, settings, reference=steps, ratio=steps)


CASES: dict[str, Callable[[FitSettings, Path], Outcome]] = {
    function.__name__: function
    for function in (
        in_memory,
        streamed,
        signed_weights_and_scores,
        transport,
        ratio_estimator,
        morphing_density,
    )
}


def train_all(folder: Path, processes: Processes) -> None:
    """Do all trainings and write what they end with."""
    torch.set_num_threads(1)
    settings = replace(FitSettings(seed=3), processes=processes)
    for name, case in CASES.items():
        surrogate, history = case(settings, folder)
        rows = [(r.train, r.validation) for r in history]
        target = folder / f"{name}.{processes.rank}.npz"
        np.savez(target, numbers=numbers_of(surrogate).numpy(), history=np.array(rows))


if __name__ == "__main__":
    with torchrun_processes() as started:
        train_all(Path(sys.argv[1]), started)
