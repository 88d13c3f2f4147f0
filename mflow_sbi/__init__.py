"""Unbinned EFT posteriors from simulated collider events with manifold-learning flows."""

__version__ = "0.1.0"

from mflow_sbi.events import read_events
from mflow_sbi.inference import sample_posterior
from mflow_sbi.recipes import RECIPES, load_surrogate, train

__all__ = ["RECIPES", "__version__", "load_surrogate", "read_events", "sample_posterior", "train"]
