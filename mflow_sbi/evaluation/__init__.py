"""How good posteriors and generated events are, in numbers comparable across recipes."""

from mflow_sbi.evaluation.compare import (
    Comparison,
    ComparisonRow,
    ComparisonTable,
    SurfaceMetrics,
    compare_posteriors,
)
from mflow_sbi.evaluation.metrics import (
    MarginalDistance,
    PosteriorMetrics,
    ProjectionMetrics,
    marginal_distances,
    posterior_metrics,
    projection_metrics,
    reconstruction_error,
)

__all__ = [
    "Comparison",
    "ComparisonRow",
    "ComparisonTable",
    "MarginalDistance",
    "PosteriorMetrics",
    "ProjectionMetrics",
    "SurfaceMetrics",
    "compare_posteriors",
    "marginal_distances",
    "posterior_metrics",
    "projection_metrics",
    "reconstruction_error",
]
