"""Surrogates: a chart times a latent density, and their trained form in physical units."""

from mflow_sbi.surrogates.ambient import AmbientFlow
from mflow_sbi.surrogates.manifold import ManifoldFlow
from mflow_sbi.surrogates.tilted import TiltedFlow, TiltedManifoldFlow, tilt
from mflow_sbi.surrogates.trained import TrainedSurrogate

__all__ = [
    "AmbientFlow",
    "ManifoldFlow",
    "TiltedFlow",
    "TiltedManifoldFlow",
    "TrainedSurrogate",
    "tilt",
]
