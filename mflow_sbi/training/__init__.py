"""Training: schedules of phases of weighted objectives, run by one loop."""

from mflow_sbi.training.batches import TrainingEvents
from mflow_sbi.training.fit import FitSettings, HistoryRecord, fit
from mflow_sbi.training.objectives import (
    LatentNegativeLogProb,
    Objective,
    Reconstruction,
    ReferenceNegativeLogProb,
    TrainingBatch,
)
from mflow_sbi.training.schedules import Phase, Schedule

__all__ = [
    "FitSettings",
    "HistoryRecord",
    "LatentNegativeLogProb",
    "Objective",
    "Phase",
    "Reconstruction",
    "ReferenceNegativeLogProb",
    "Schedule",
    "TrainingBatch",
    "TrainingEvents",
    "fit",
]
