r"""Fisher information from scores beside the Hessian of the likelihood of the same events.

    E[t t^T] = E[-grad t],    t = grad log p(x|theta),

on average; of N events the two differ by the mean of grad grad^T p / p, whose standard error is
told.  Of events drawn at theta that error is ruled by few events of tiny density; of events drawn
from a mixture of thetas, with weights p(x|theta) / p_mixture(x), it is smaller, since then
grad grad^T p is divided by a density that is nowhere tiny beside it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals import (
    EventPool,
    MorphingSets,
    WeightedLikelihood,
    hessian_information,
    score_information,
)

__all__ = ["fisher_metrics", "mixture_weights"]

BATCHES = 20  # of events, for standard errors


def mixture_weights(sample: EventSample, theta: Sequence[float]) -> Array:
    """Return p(x_i|theta) / mean_j p(x_i|theta_j), by which events stand for those at theta."""
    pool = EventPool(sample)
    basis, total, own = pool.basis, pool.cross_section, sample.require_theta()
    average = (basis.weights(own) / (basis.weights(own) @ total)[:, None]).mean(axis=0)
    at = basis.weights(np.array([theta]))[0]
    components = sample.require_components()
    return (components @ at) / (at @ total) / (components @ average)


def fisher_metrics(label: str, events: EventSample, weights: Array) -> dict[str, float]:
    """Return how far apart score and Hessian are at (0, 0) on the same events, and the error.

    The error is that of the entry, from the spread of equal parts of the events.
    """
    pool = EventPool(events)
    names, rng = pool.parameter_names, np.random.default_rng(4)
    scores, components = pool.scores([0, 0]), events.require_components()

    def both(rows: NDArray[np.intp]) -> tuple[Array, Array]:
        w, n = weights[rows], [len(rows)]
        sets = MorphingSets(
            names, pool.basis, components[rows], n, pool.cross_section, None, w / w.sum()
        )
        outer = score_information(names, scores[rows], rng, weights=w, n_bootstrap=0)
        return outer.matrix, hessian_information(WeightedLikelihood(sets), [0, 0]).matrix

    fisher, hessian = both(np.arange(len(events)))
    scale = np.sqrt(np.outer(np.diag(hessian), np.diag(hessian)))
    pairs = [both(rows) for rows in np.array_split(np.arange(len(events)), BATCHES)]
    spread = np.std([a - b for a, b in pairs], axis=0, ddof=1) / np.sqrt(BATCHES)
    gaps = np.abs((fisher - hessian) / scale)
    worst = np.unravel_index(gaps.argmax(), gaps.shape)
    return {label: float(gaps[worst]), f"{label}_error": float((spread / scale)[worst])}
