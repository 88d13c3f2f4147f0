"""Default schedules of the recipes: which phases, how long, at which rates."""

from dataclasses import replace

from mflow_sbi.training import (
    LatentNegativeLogProb,
    Muon,
    Phase,
    ReconstructionDistance,
    ReferenceNegativeLogProb,
    RichestRatio,
    SampleTransport,
    Schedule,
    SurfaceNegativeLogProb,
)
from mflow_sbi.training.classifier_objectives import AlicesLoss, BinaryCrossEntropy
from mflow_sbi.training.score_objectives import LocalScoreLoss, TemplateEntropy

__all__ = [
    "ALICES",
    "ALTERNATING",
    "ALTERNATING_OPTIMAL_TRANSPORT",
    "AT_FIXED_CHART",
    "CHART_THEN_DENSITY",
    "HISTOGRAM",
    "NRE",
    "OPTIMAL_TRANSPORT",
    "SALLY",
    "SIMULTANEOUS",
    "SPLIT_DENSITY",
]

_RATIO_PHASE = Phase(
    "ratio",
    objectives=((RichestRatio(), 1.0),),
    trains=("ratio",),
    epochs=8,
    batch_size=1000,
    learning_rate=5e-3,
    weight_decay=1e-3,
    clip_norm=5.0,
    optimiser=Muon(matrix_rate=5.0),
)
_MANIFOLD_PHASE = Phase(
    "manifold",
    objectives=((ReconstructionDistance(), 1.0),),
    trains=("chart",),
    epochs=3,
    batch_size=500,
    clip_norm=1.0,
    optimiser=Muon(),
)
_REFERENCE_PHASE = Phase(
    "reference",
    objectives=((ReferenceNegativeLogProb(), 1.0),),
    trains=("reference",),
    epochs=3,
    batch_size=300,
    learning_rate=3e-3,
    clip_norm=5.0,
    optimiser=Muon(matrix_rate=10.0),
)
_DENSITY_PHASE = Phase(
    "density",
    objectives=((LatentNegativeLogProb(), 1.0),),
    trains=("density",),
    epochs=8,
    batch_size=500,
    learning_rate=3e-3,
    clip_norm=5.0,
    optimiser=Muon(matrix_rate=10.0),
)
_SPLIT_DENSITY_PHASE = replace(_DENSITY_PHASE, trains=("split", "density"))
_JOINT_PHASE = replace(
    _MANIFOLD_PHASE,
    name="joint",
    objectives=((ReconstructionDistance(), 1.0), (SurfaceNegativeLogProb(), 0.01)),
    trains=("chart", "reference", "density"),
)
_TRANSPORT_PHASE = Phase(
    "transport",
    objectives=((SampleTransport(), 1.0),),
    trains=("chart", "reference", "density"),
    epochs=3,
    batch_size=300,
    learning_rate=5e-3,
    clip_norm=1.0,
)
_ENTROPY_PHASE = Phase(
    "ratio",
    objectives=((BinaryCrossEntropy(), 1.0),),
    trains=("ratio",),
    epochs=8,
    batch_size=500,
    learning_rate=5e-3,
    weight_decay=1e-3,
    clip_norm=5.0,
)
_ALICES_PHASE = replace(_ENTROPY_PHASE, objectives=((AlicesLoss(), 1.0),))
_SCORE_PHASE = replace(
    _RATIO_PHASE, name="score", objectives=((LocalScoreLoss(), 1.0),), trains=("score",)
)
_TEMPLATES_PHASE = Phase(
    "templates", objectives=((TemplateEntropy(), 1.0),), trains=("templates",), epochs=1
)

CHART_THEN_DENSITY = Schedule((_MANIFOLD_PHASE, _REFERENCE_PHASE, _DENSITY_PHASE, _RATIO_PHASE))
"""The M-flow's: surface, then reference, then what depends on theta (a flow or a ratio)."""

AT_FIXED_CHART = CHART_THEN_DENSITY.without("manifold")
"""The same where the surface is given, or there is none."""

SPLIT_DENSITY = Schedule((_SPLIT_DENSITY_PHASE,))
"""Maximum likelihood of everything at once, where all directions have a density (PIE)."""

ALTERNATING = Schedule(
    tuple(p.with_epochs(1) for p in (_MANIFOLD_PHASE, _REFERENCE_PHASE, _DENSITY_PHASE)), cycles=8
)
"""Surface, reference and density in turn, one pass each."""

SIMULTANEOUS = Schedule((_MANIFOLD_PHASE, _JOINT_PHASE, _DENSITY_PHASE))
"""Surface alone; surface and density by reconstruction and exact likelihood; density alone."""

OPTIMAL_TRANSPORT = Schedule((_TRANSPORT_PHASE,))
"""Generated events onto simulated ones, no likelihood."""

ALTERNATING_OPTIMAL_TRANSPORT = Schedule(
    (_TRANSPORT_PHASE.with_epochs(1), _DENSITY_PHASE.with_epochs(1)), cycles=3
)
"""The same and the likelihood of the density, in turn."""

NRE = Schedule((_ENTROPY_PHASE,))
ALICES = Schedule((_ALICES_PHASE,))
HISTOGRAM = Schedule((_TEMPLATES_PHASE,))
SALLY = Schedule((_SCORE_PHASE, _TEMPLATES_PHASE))
