"""Unbinned EFT posteriors from simulated collider events with manifold-learning flows."""

__version__ = "0.1.0"
