r"""Polynomial morphing: the exact dependence of events and rates on EFT parameters.

An amplitude linear in theta makes every density a polynomial in theta,

    sigma(theta) p(x|theta) = sum_k w_k(theta) c_k(x),    w_k(theta) = prod_j theta_j^{e_kj},

so six numbers per event, c_k(x), and six of the process, C_k = int c_k(x) dx, hold the likelihood
at every theta:

    log p(x|theta) = log[w(theta) . c(x)] - log[w(theta) . C].

The same holds for p(x, z|theta) with latent variables z; then these are the joint likelihood and
the joint score (arXiv:1805.00013).

Shapes: M parameter points, N events, K monomials, p parameters.
"""

from mflow_sbi.morphing.basis import MorphingBasis
from mflow_sbi.morphing.benchmarks import BenchmarkFit, MorphingBenchmarks
from mflow_sbi.morphing.designs import morphing_error, suggest_benchmarks
from mflow_sbi.morphing.estimates import CrossSectionEstimate, joint_ratio, joint_score
from mflow_sbi.morphing.likelihood import (
    log_likelihood,
    log_likelihood_and_score_of_set,
    log_likelihood_of_set,
    score,
    total_cross_section,
)

__all__ = [
    "BenchmarkFit",
    "MorphingBenchmarks",
    "CrossSectionEstimate",
    "MorphingBasis",
    "joint_ratio",
    "joint_score",
    "log_likelihood",
    "log_likelihood_and_score_of_set",
    "log_likelihood_of_set",
    "morphing_error",
    "score",
    "suggest_benchmarks",
    "total_cross_section",
]
