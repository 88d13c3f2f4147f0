"""Posteriors of the parameters given observed events: priors, likelihoods, MCMC, grids."""

from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.event_sets import CachedEventSets
from mflow_sbi.inference.exact import exact_likelihood, truth_of
from mflow_sbi.inference.grid import Grid, GridPosterior, common_grid, grid_posterior
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.mcmc import McmcSettings, sample_posterior
from mflow_sbi.inference.points import log_posterior_and_gradient
from mflow_sbi.inference.priors import BoxPrior, NormalPrior, prior_from_dict
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

__all__ = [
    "BoxPrior",
    "CachedEventSets",
    "CachedLikelihood",
    "Diagnostics",
    "FlatLikelihood",
    "Grid",
    "GridPosterior",
    "InferenceData",
    "McmcSettings",
    "MorphingLikelihood",
    "NormalPrior",
    "PosteriorSummary",
    "common_grid",
    "diagnostics_of",
    "draws_of",
    "exact_likelihood",
    "grid_posterior",
    "load_posterior",
    "log_posterior_and_gradient",
    "prior_from_dict",
    "sample_posterior",
    "save_posterior",
    "summarise",
    "truth_of",
]
