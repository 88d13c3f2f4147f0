"""Posteriors of the parameters given observed events: priors, likelihoods, samplers, grids."""

from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.combination import JointLikelihood
from mflow_sbi.inference.convergence import Verdict, autocorrelation_time, verdict_on
from mflow_sbi.inference.cross_section import CrossSection, UncertainCrossSection
from mflow_sbi.inference.event_densities import FixedDensity, density_at, normalised
from mflow_sbi.inference.event_sets import CachedEventSets
from mflow_sbi.inference.exact import exact_likelihood, truth_of
from mflow_sbi.inference.grid import Grid, GridPosterior, common_grid, grid_posterior
from mflow_sbi.inference.grid_sampler import GridSampler
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.mcmc import EmceeSampler, ModelSource
from mflow_sbi.inference.mixture import Component
from mflow_sbi.inference.nested import NestedSampler
from mflow_sbi.inference.nuts import NutsSampler
from mflow_sbi.inference.observation import CountingLikelihood, ExtendedLikelihood, ShapeLikelihood
from mflow_sbi.inference.points import log_posterior_and_gradient
from mflow_sbi.inference.priors import (
    BoxPrior,
    GaussianConstraint,
    LogNormalConstraint,
    LogNormalPrior,
    LogUniformPrior,
    NormalPrior,
    ProductPrior,
    RecordedPrior,
    TruncatedNormalPrior,
    UserPrior,
    prior_from_dict,
)
from mflow_sbi.inference.rates import (
    FixedYield,
    FreeYield,
    LinearFactor,
    LogNormalFactor,
    ProductRate,
    Rate,
    RateModel,
    RemainingFraction,
)
from mflow_sbi.inference.reduction import fix_parameters, rename_parameters
from mflow_sbi.inference.result import (
    Diagnostics,
    InferenceData,
    PosteriorSummary,
    diagnostics_of,
    draws_of,
    load_posterior,
    save_posterior,
    summarise,
)
from mflow_sbi.inference.samplers import SAMPLERS, sampler_from_dict
from mflow_sbi.inference.sampling import Sampler, sample_posterior
from mflow_sbi.inference.unbounded import Unbounded, UnboundedLikelihood, UnboundedPosterior

__all__ = [
    "BoxPrior",
    "CachedEventSets",
    "CachedLikelihood",
    "Component",
    "CountingLikelihood",
    "CrossSection",
    "Diagnostics",
    "EmceeSampler",
    "ExtendedLikelihood",
    "FixedDensity",
    "FixedYield",
    "FlatLikelihood",
    "FreeYield",
    "GaussianConstraint",
    "Grid",
    "GridPosterior",
    "GridSampler",
    "InferenceData",
    "JointLikelihood",
    "LinearFactor",
    "LogNormalConstraint",
    "LogNormalFactor",
    "LogNormalPrior",
    "LogUniformPrior",
    "ModelSource",
    "MorphingLikelihood",
    "NestedSampler",
    "NormalPrior",
    "NutsSampler",
    "PosteriorSummary",
    "ProductPrior",
    "ProductRate",
    "Rate",
    "RateModel",
    "RecordedPrior",
    "RemainingFraction",
    "SAMPLERS",
    "Sampler",
    "ShapeLikelihood",
    "TruncatedNormalPrior",
    "Unbounded",
    "UnboundedLikelihood",
    "UnboundedPosterior",
    "UncertainCrossSection",
    "UserPrior",
    "Verdict",
    "autocorrelation_time",
    "common_grid",
    "density_at",
    "diagnostics_of",
    "draws_of",
    "exact_likelihood",
    "fix_parameters",
    "grid_posterior",
    "load_posterior",
    "log_posterior_and_gradient",
    "normalised",
    "prior_from_dict",
    "rename_parameters",
    "sample_posterior",
    "sampler_from_dict",
    "save_posterior",
    "summarise",
    "truth_of",
    "verdict_on",
]
