"""How good posteriors and generated events are, in numbers comparable across recipes."""

from mflow_sbi.evaluation.compare import (
    EXACT,
    PRIOR,
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
from mflow_sbi.evaluation.ratio_quality import (
    ReferenceCover,
    Reliability,
    estimator_quality,
    ratio_quality,
    reference_cover,
    reliability,
)

__all__ = [
    "EXACT",
    "PRIOR",
    "Comparison",
    "ComparisonRow",
    "ComparisonTable",
    "MarginalDistance",
    "PosteriorMetrics",
    "ProjectionMetrics",
    "ReferenceCover",
    "Reliability",
    "SurfaceMetrics",
    "compare_posteriors",
    "estimator_quality",
    "marginal_distances",
    "posterior_metrics",
    "projection_metrics",
    "ratio_quality",
    "reconstruction_error",
    "reference_cover",
    "reliability",
]
