r"""The exact likelihood of many (weighted) data sets at once, from their morphing components.

    log L_s(theta) = sum_{i in s} a_i log[w(theta).c_i] - A_s log[w(theta).C]      shape,
    log L_s(theta) = sum_{i in s} a_i log[w(theta).c_i] - exposure w(theta).C      shape and rate,

with weights a_i (1 for observed events) and A_s their sum.  The second is the extended likelihood
Poisson(n | mu) prod_i p(x_i|theta) with mu = exposure sigma(theta), up to a constant.

All sets stand in one array (S, N, K), the shorter ones filled up with events of weight 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section

__all__ = ["MorphingSets", "WeightedLikelihood"]

_BLOCK = 2**21  # densities in one temporary array


class MorphingSets:
    """Exact likelihoods of S data sets.

    Args:
        parameter_names: the p names.
        basis: the monomials.
        components: c_k of all events, set after set, (E, K).
        sizes: events of each set, (S,), summing to E; a set may be empty.
        cross_section: C_k, pb, (K,).
        exposure: luminosity times efficiency, 1/pb, for shape and rate; None for shape alone.
        weights: a_i >= 0, (E,); 1 by default.

    Raises:
        ShapeError: arrays that do not fit each other or the basis.
        EventDataError: numbers that are not finite, negative weights, an exposure not above zero.
        ParameterRangeError: the cross section is not positive at some theta.
    """

    def __init__(
        self,
        parameter_names: Sequence[str],
        basis: MorphingBasis,
        components: Array,
        sizes: Sequence[int] | NDArray[np.int64],
        cross_section: Array,
        exposure: float | None = None,
        weights: Array | None = None,
    ) -> None:
        counts = np.asarray(sizes, dtype=np.int64)
        n_events, n_terms = int(counts.sum()), basis.n_components
        a = np.ones(n_events) if weights is None else np.asarray(weights, dtype=np.float64)
        fits = components.shape == (n_events, n_terms) and a.shape == (n_events,)
        if not fits or len(parameter_names) != basis.parameter_dim:
            message = (
                f"expected {basis.parameter_dim} names, components ({n_events}, {n_terms}) and as "
                f"many weights for sets of {n_events} events in all, got "
                f"{list(parameter_names)}, {components.shape} and {a.shape}"
            )
            raise ShapeError(message)
        if not np.isfinite(components).all() or not (np.isfinite(a) & (a >= 0)).all():
            message = "expected finite components and weights >= 0, got others"
            raise EventDataError(message)
        if exposure is not None and not 0 < exposure < np.inf:
            message = f"exposure: expected a positive number of 1/pb, got {exposure:g}"
            raise EventDataError(message)
        self.parameter_names = tuple(parameter_names)
        self.sizes, self.exposure = counts, exposure
        self._basis, self._total = basis, np.asarray(cross_section, dtype=np.float64)
        place = np.arange(counts.max(initial=0)) < counts[:, None]
        self._weights = np.zeros(place.shape)
        self._weights[place] = a
        self._components = np.zeros((*place.shape, n_terms))
        self._components[place] = components
        self._sum = self._weights.sum(axis=1)

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self.sizes)

    def likelihood_of(self, index: int) -> "WeightedLikelihood":
        """Return the likelihood of one set.

        Raises:
            ShapeError: there is no such set.
        """
        if not 0 <= index < self.n_sets:
            message = f"likelihood_of: expected a set from 0 to {self.n_sets - 1}, got {index}"
            raise ShapeError(message)
        events = slice(int(self.sizes[index]))
        return WeightedLikelihood(
            MorphingSets(
                self.parameter_names,
                self._basis,
                self._components[index, events],
                [int(self.sizes[index])],
                self._total,
                self.exposure,
                self._weights[index, events],
            )
        )

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        w = self._basis.weights(theta)
        sigma = total_cross_section(self._basis, self._total, theta)
        result = -self._of_cross_section(sigma[:, None])
        flat = self._components.reshape(-1, w.shape[1])
        step = max(1, _BLOCK // max(1, len(flat)))
        for start in range(0, len(w), step):
            rows = slice(start, start + step)
            density = (w[rows] @ flat.T).reshape(-1, *self._weights.shape)
            result[rows] += self._weighted_logs(density, self._weights).sum(axis=2)
        return result

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        return self._evaluated(theta)[0]

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, S, p) -> (M, S), (M, S, p); zero where -inf."""
        values, w_gradient, pull = self._evaluated(theta)
        return values, np.einsum("smkp,smk->msp", w_gradient, pull)

    def _evaluated(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return log L (M, S), dw/dtheta (S, M, K, p) and d log L / dw (S, M, K)."""
        points = theta.swapaxes(0, 1).reshape(-1, theta.shape[2])
        shape = (self.n_sets, len(theta))
        w = self._basis.weights(points).reshape(*shape, -1)
        gradient = self._basis.gradient(points).reshape(*shape, w.shape[2], -1)
        sigma = total_cross_section(self._basis, self._total, points).reshape(shape)
        values, pull = -self._of_cross_section(sigma.T), np.empty_like(w)
        step = max(1, _BLOCK // max(1, self._weights.size))
        for start in range(0, len(theta), step):
            rows = slice(start, start + step)
            density = w[:, rows] @ self._components.swapaxes(1, 2)  # (S, m, N)
            a = self._weights[:, None]
            values[rows] += self._weighted_logs(density, a).sum(axis=2).T
            ratio = np.divide(a, density, out=np.zeros_like(density), where=density > 0)
            pull[:, rows] = ratio @ self._components
        per_sigma = self.exposure or self._sum[:, None] / sigma
        pull -= np.broadcast_to(per_sigma, shape)[..., None] * self._total
        pull[np.isneginf(values.T)] = 0.0
        return values, gradient, pull

    def _of_cross_section(self, sigma: Array) -> Array:
        """Return what is to be subtracted for the normalisation, (M, S or 1) -> (M, S)."""
        if self.exposure is None:
            return np.log(sigma) * self._sum
        return np.broadcast_to(self.exposure * sigma, (len(sigma), self.n_sets)).copy()

    def _weighted_logs(self, density: Array, weights: Array) -> Array:
        """Return a log(density): 0 for weight 0, -inf where there is no density."""
        counted = np.broadcast_to(weights > 0, density.shape)
        safe = np.where(counted, np.maximum(density, 0.0), 1.0)
        with np.errstate(divide="ignore"):
            return weights * np.log(safe)


class WeightedLikelihood:
    """The exact likelihood of one set of (weighted) events, with its gradient.

    Args:
        sets: exactly one set.
    """

    def __init__(self, sets: MorphingSets) -> None:
        self._sets = sets

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._sets.parameter_names

    @property
    def n_events(self) -> int:
        """Number of events, weighted or not."""
        return int(self._sets.sizes[0])

    def __call__(self, theta: Array) -> Array:
        """Return log L up to a constant, (M, p) -> (M,)."""
        return self._sets(np.asarray(theta, dtype=np.float64))[:, 0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, p) -> (M,), (M, p)."""
        values, slopes = self._sets.slopes_at_own_points(
            np.asarray(theta, dtype=np.float64)[:, None]
        )
        return values[:, 0], slopes[:, 0]
