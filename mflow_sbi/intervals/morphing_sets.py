r"""The exact likelihood of many (weighted) data sets at once, from their morphing components.

    log L_s(theta) = sum_{i in s} a_i log[w(theta).c_i] - A_s log[w(theta).C]      shape,
    log L_s(theta) = sum_{i in s} a_i log[w(theta).c_i] - exposure w(theta).C      shape and rate,

with weights a_i (1 for observed events) and A_s their sum.  The second is the extended likelihood
Poisson(n | mu) prod_i p(x_i|theta) with mu = exposure sigma(theta), up to a constant.

All sets stand in one array (S, N, K), the shorter ones filled up with events of weight 0.
"""

from collections.abc import Iterator, Sequence

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
        filler = np.eye(n_terms)[0] * np.abs(components[:, 0]).max(initial=0.0)
        self._components = np.broadcast_to(filler, (*place.shape, n_terms)).copy()
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
        for rows in self._blocks(len(w)):
            density = (w[rows] @ flat.T).reshape(-1, *self._weights.shape)
            result[rows] += _weighted_logs(density.swapaxes(0, 1), self._weights).T
        return result

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        points, w, sigma = self._at(theta)
        values = -self._of_cross_section(sigma)
        for rows in self._blocks(len(theta)):
            values[rows] += _weighted_logs(self._densities(w, rows), self._weights).T
        return values

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, S, p) -> (M, S), (M, S, p); zero where -inf."""
        points, w, sigma = self._at(theta)
        values, pull = -self._of_cross_section(sigma), np.empty_like(w)
        for rows in self._blocks(len(theta)):
            density = self._densities(w, rows)
            values[rows] += _weighted_logs(density, self._weights).T
            density[density <= 0] = np.inf
            ratio = np.divide(self._weights[:, None], density, out=density)
            pull[:, rows] = ratio @ self._components
        per_sigma = (
            self._sum / sigma if self.exposure is None else np.full(sigma.shape, self.exposure)
        )
        pull -= per_sigma.T[..., None] * self._total
        pull[np.isneginf(values.T)] = 0.0
        gradient = self._basis.gradient(points).reshape(*w.shape, -1)
        return values, np.einsum("smkp,smk->msp", gradient, pull)

    def _at(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return points (S M, p), w(theta) of each set's points (S, M, K), sigma (M, S)."""
        points = theta.swapaxes(0, 1).reshape(-1, theta.shape[2])
        w = self._basis.weights(points).reshape(self.n_sets, len(theta), -1)
        sigma = total_cross_section(self._basis, self._total, points)
        return points, w, sigma.reshape(self.n_sets, len(theta)).T

    def _densities(self, w: Array, rows: slice) -> Array:
        """Return w.c of some of each set's points and all of its events, (S, m, N)."""
        return w[:, rows] @ self._components.swapaxes(1, 2)

    def _blocks(self, n_points: int) -> Iterator[slice]:
        """Yield slices of points of which all densities fit into memory."""
        step = max(1, _BLOCK // max(1, self._weights.size))
        for start in range(0, n_points, step):
            yield slice(start, start + step)

    def _of_cross_section(self, sigma: Array) -> Array:
        """Return what is to be subtracted for the normalisation, (M, S or 1) -> (M, S)."""
        if self.exposure is None:
            return np.log(sigma) * self._sum
        return np.broadcast_to(self.exposure * sigma, (len(sigma), self.n_sets)).copy()


def _weighted_logs(density: Array, weights: Array) -> Array:
    """Return sum_n a_sn log(density_smn), (S, M, N), (S, N) -> (S, M).

    -inf where an event of some weight has no density.
    """
    possible = density > 0
    if possible.all():
        return np.einsum("smn,sn->sm", np.log(density), weights)
    logs = np.log(np.where(possible, density, 1.0))
    lost = (~possible & (weights > 0)[:, None]).any(axis=2)
    return np.where(lost, -np.inf, np.einsum("smn,sn->sm", logs, weights))


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
