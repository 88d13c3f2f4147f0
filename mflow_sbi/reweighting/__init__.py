"""Events at other parameters: components from weights, reweighting, resampling to a prior."""

from mflow_sbi.reweighting.components import benchmarks_of, with_morphing
from mflow_sbi.reweighting.parts import pool_part
from mflow_sbi.reweighting.pool import MorphingPool
from mflow_sbi.reweighting.reports import ResamplingReport
from mflow_sbi.reweighting.resampling import resampled, reweighted, thinned, weighted

__all__ = [
    "MorphingPool",
    "ResamplingReport",
    "benchmarks_of",
    "pool_part",
    "resampled",
    "reweighted",
    "thinned",
    "weighted",
    "with_morphing",
]
