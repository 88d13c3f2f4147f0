"""Densities: ratios p(x|theta) / p_ref(x) that know the theory, and the features they read."""

from mflow_sbi.densities.base import PairWeights, Ratio, StandardNormal
from mflow_sbi.densities.features import Features, ObservableFeatures
from mflow_sbi.densities.kinematics import KinematicFeatures
from mflow_sbi.densities.morphing_ratio import MorphingRatio, MorphingShape
from mflow_sbi.densities.pairs import PairNetwork, PairShape
from mflow_sbi.densities.residual_ratio import ResidualRatio, ResidualShape
from mflow_sbi.densities.symmetries import SymmetryGroup

__all__ = [
    "Features",
    "KinematicFeatures",
    "MorphingRatio",
    "MorphingShape",
    "ObservableFeatures",
    "PairNetwork",
    "PairShape",
    "PairWeights",
    "Ratio",
    "ResidualRatio",
    "ResidualShape",
    "StandardNormal",
    "SymmetryGroup",
]
