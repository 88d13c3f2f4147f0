r"""Tests with random points r_s: f_s = P(|theta - r_s| < |theta_s - r_s|) over the posterior.

The ball around a reference point r_s that reaches to the truth holds a posterior probability f_s,
which is uniform over sets for calibrated posteriors, whatever the references, as long as they do
not know the truth.  References that know the events are the stronger test: to references drawn
from the prior, the prior itself passes for a posterior.

References:
    | Sampling-based accuracy testing of posterior estimators for general inference (Lemos et al.,
      2023), arXiv:2302.03026, section 3
"""

from dataclasses import dataclass

import numpy as np

from mflow_sbi.calibration.reports import (
    CoverageCurve,
    Uniformity,
    coverage_curve,
    uniformity,
)
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["Tarp", "crossfitted_means", "informed_references", "tarp"]


@dataclass(frozen=True, eq=False)
class Tarp:
    """What random balls around references say of posteriors.

    Args:
        fractions: f_s, (S,).
        curve: share of sets with f_s <= q, with the band of calibrated posteriors.
        test: of uniform fractions.
    """

    fractions: Array
    curve: CoverageCurve
    test: Uniformity


def tarp(draws: Array, theta: Array, references: Array, rng: np.random.Generator) -> Tarp:
    """Return the test with one reference per set; distances in standard deviations of the truths.

    Args:
        draws: independent posterior draws, (S, L, p).
        theta: parameters behind each set, (S, p).
        references: points that do not know these, (S, p): `prior.sample`, `informed_references`.
        rng: spreads the L + 1 possible fractions over their steps.

    Raises:
        ShapeError: the arrays do not fit each other.
        EventDataError: all truths agree in some parameter.
    """
    shape = (len(theta), -1 if draws.ndim != 3 else draws.shape[1], theta.shape[-1])
    if draws.shape != shape or theta.shape != references.shape or theta.ndim != 2:
        message = (
            f"expected draws (S, L, p), truths and references (S, p), got {draws.shape}, "
            f"{theta.shape} and {references.shape}"
        )
        raise ShapeError(message)
    scale = _spread(theta)
    radius = np.linalg.norm((theta - references) / scale, axis=1)
    away = np.linalg.norm((draws - references[:, None]) / scale, axis=2)
    counts = (away < radius[:, None]).sum(axis=1)
    fractions = (counts + rng.random(len(counts))) / (draws.shape[1] + 1)
    test = uniformity("random balls", fractions)
    return Tarp(fractions, coverage_curve(fractions), test)


def informed_references(summaries: Array, theta: Array, rng: np.random.Generator) -> Array:
    """Return references near the truth that know the events only, (S, p).

    Linear predictions of theta from summaries of the events, fitted on the other half of the
    sets, plus normal noise of the size of their errors.

    Args:
        summaries: a few numbers of each set, e.g. means of its observables, (S, k).
        theta: parameters behind each set, (S, p).
        rng: halves the sets and draws the noise.

    Raises:
        ShapeError: the arrays do not fit each other.
        EventDataError: too few sets for so many summaries.
    """
    means = crossfitted_means(summaries, theta, rng)
    errors = np.sqrt(np.square(theta - means).mean(axis=0))
    return means + errors * rng.normal(size=means.shape)


def crossfitted_means(summaries: Array, theta: Array, rng: np.random.Generator) -> Array:
    """Return linear predictions of theta (S, p) from summaries (S, k) by the other half's fit.

    Raises:
        ShapeError: the arrays do not fit each other.
        EventDataError: too few sets for so many summaries.
    """
    summaries = np.asarray(summaries, dtype=np.float64)
    if summaries.ndim != 2 or theta.ndim != 2 or len(summaries) != len(theta):
        message = (
            f"expected summaries (S, k) and theta (S, p), got {summaries.shape} and {theta.shape}"
        )
        raise ShapeError(message)
    n, k = summaries.shape
    if n < 4 * (k + 1):
        message = f"expected at least {4 * (k + 1)} sets for {k} summaries, got {n}"
        raise EventDataError(message)
    scaled = (summaries - summaries.mean(axis=0)) / _spread(summaries)
    table = np.column_stack([np.ones(n), scaled])
    first = rng.permutation(n) < n // 2
    means = np.empty_like(theta, dtype=np.float64)
    for half in (first, ~first):
        means[half] = table[half] @ np.linalg.lstsq(table[~half], theta[~half], rcond=None)[0]
    return means


def _spread(values: Array) -> Array:
    """Return the standard deviation of every column, positive."""
    spread = values.std(axis=0)
    if not (spread > 0).all():
        message = f"expected columns that vary over the sets, got standard deviations {spread}"
        raise EventDataError(message)
    return spread
