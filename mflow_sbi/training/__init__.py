"""Training: schedules of phases of weighted objectives, run by one loop."""

from mflow_sbi.training.batches import TrainingEvents
from mflow_sbi.training.classifier_objectives import AlicesLoss, BinaryCrossEntropy
from mflow_sbi.training.fit import fit
from mflow_sbi.training.gathering import StreamingSettings
from mflow_sbi.training.joint_objectives import ScoreMatching, SurfaceNegativeLogProb
from mflow_sbi.training.objectives import (
    LatentNegativeLogProb,
    Objective,
    Reconstruction,
    ReconstructionDistance,
    ReferenceNegativeLogProb,
    TrainingBatch,
)
from mflow_sbi.training.optimisers import AdamW, Muon, Optimiser
from mflow_sbi.training.ratio_objectives import (
    RatioDivergence,
    RatioLikelihood,
    RatioScore,
    RichestRatio,
)
from mflow_sbi.training.schedules import Phase, Schedule
from mflow_sbi.training.settings import FitSettings, HistoryRecord
from mflow_sbi.training.sources import EventSource
from mflow_sbi.training.transport import SampleTransport

__all__ = [
    "AdamW",
    "AlicesLoss",
    "BinaryCrossEntropy",
    "EventSource",
    "FitSettings",
    "HistoryRecord",
    "LatentNegativeLogProb",
    "Muon",
    "Objective",
    "Optimiser",
    "Phase",
    "RatioDivergence",
    "RatioLikelihood",
    "RatioScore",
    "Reconstruction",
    "ReconstructionDistance",
    "ReferenceNegativeLogProb",
    "RichestRatio",
    "SampleTransport",
    "Schedule",
    "ScoreMatching",
    "StreamingSettings",
    "SurfaceNegativeLogProb",
    "TrainingBatch",
    "TrainingEvents",
    "fit",
]
