"""Maximum likelihood, profiles, intervals with coverage, Fisher information."""

from mflow_sbi.intervals.constructions import LEVELS, Construction, NeymanBelt, Wilks
from mflow_sbi.intervals.contours import Contour
from mflow_sbi.intervals.crossings import Interval, IntervalSet
from mflow_sbi.intervals.expected import (
    ExpectedIntervals,
    expected_intervals,
    intervals_of_sets,
)
from mflow_sbi.intervals.fisher import (
    FisherInformation,
    hessian_information,
    learned_curvatures,
    learned_scores,
    rate_information,
    score_information,
)
from mflow_sbi.intervals.maximum import MaximumLikelihood, Mode, maximise
from mflow_sbi.intervals.morphing_sets import MorphingSets, WeightedLikelihood
from mflow_sbi.intervals.parameters import Limits
from mflow_sbi.intervals.pools import EventPool
from mflow_sbi.intervals.profiles import ProfileScan, profile
from mflow_sbi.intervals.sets import DifferentiableSets, LikelihoodSets, SeparateSets
from mflow_sbi.intervals.starts import starts_from_prior, starts_in_box
from mflow_sbi.intervals.stationary import stationary_weights
from mflow_sbi.intervals.toys import (
    Coverage,
    Simulate,
    likelihood_ratios,
    neyman_belt,
    toy_coverage,
)

__all__ = [
    "LEVELS",
    "Construction",
    "Contour",
    "Coverage",
    "DifferentiableSets",
    "EventPool",
    "ExpectedIntervals",
    "FisherInformation",
    "Interval",
    "IntervalSet",
    "LikelihoodSets",
    "Limits",
    "MaximumLikelihood",
    "Mode",
    "MorphingSets",
    "NeymanBelt",
    "ProfileScan",
    "SeparateSets",
    "Simulate",
    "WeightedLikelihood",
    "Wilks",
    "expected_intervals",
    "hessian_information",
    "intervals_of_sets",
    "learned_curvatures",
    "learned_scores",
    "likelihood_ratios",
    "maximise",
    "neyman_belt",
    "profile",
    "rate_information",
    "score_information",
    "starts_from_prior",
    "starts_in_box",
    "stationary_weights",
    "toy_coverage",
]
