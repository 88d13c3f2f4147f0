"""Surrogates: a chart times a latent density, and their trained form in physical units."""

from mflow_sbi.surrogates.ambient import AmbientFlow
from mflow_sbi.surrogates.manifold import ManifoldFlow
from mflow_sbi.surrogates.pae import ProbabilisticAutoencoder
from mflow_sbi.surrogates.pie import PseudoInvertibleFlow
from mflow_sbi.surrogates.tilted import TiltedFlow, TiltedManifoldFlow, tilt
from mflow_sbi.surrogates.trained import TrainedSurrogate

__all__ = [
    "AmbientFlow",
    "ManifoldFlow",
    "ProbabilisticAutoencoder",
    "PseudoInvertibleFlow",
    "TiltedFlow",
    "TiltedManifoldFlow",
    "TrainedSurrogate",
    "tilt",
]
