r"""log L_s(theta) of many observed sets at once: exact, with a rate, or one by one.

Calibration asks hundreds of posteriors the same questions.  What it needs of their likelihoods is
`LikelihoodOfSets`; the learned one is `mflow_sbi.inference.CachedEventSets`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.inference import CachedEventSets, FlatLikelihood, MorphingLikelihood
from mflow_sbi.interfaces import Array, EncodedLikelihood, Likelihood
from mflow_sbi.morphing import MorphingBasis, log_likelihood, log_likelihood_of_set

__all__ = [
    "ExpectedCount",
    "LikelihoodOfSets",
    "MorphingEventSets",
    "RateSets",
    "SeparateSets",
    "learned_sets",
]

ExpectedCount: TypeAlias = Callable[[Array], Array]
"""mu(theta), the expected number of events, (M, p) -> (M,)."""


@runtime_checkable
class LikelihoodOfSets(Protocol):
    """Log-likelihoods of S observed sets of events, up to constants in the parameters."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        ...

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        ...

    def likelihood_of(self, index: int) -> Likelihood:
        """Return the likelihood of one set."""
        ...

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        ...

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        ...


class MorphingEventSets:
    r"""log L_s(theta) = sum_{i in s} log[w(theta).c_i] - N_s log[w(theta).C], exact.

    Sets may be empty: their shape says nothing, log L = 0.

    Args:
        parameter_names: the p names.
        basis: exponents of the monomials w_k(theta).
        components: density coefficients of the events of each set, (N_s, K), any common unit.
        cross_section: fiducial cross section coefficients, (K,), pb.

    Raises:
        ShapeError: components, names or cross section do not fit the basis.
        EventDataError: no sets, or non-finite numbers.
        ParameterRangeError: the cross section is not positive at some theta.
    """

    def __init__(
        self,
        parameter_names: Sequence[str],
        basis: MorphingBasis,
        components: Sequence[Array],
        cross_section: Array,
    ) -> None:
        if not components:
            message = "components: expected at least one set of events, got none"
            raise EventDataError(message)
        self._names = tuple(parameter_names)
        self._basis = basis
        self._components = [np.asarray(c, dtype=np.float64) for c in components]
        self._cross_section = np.asarray(cross_section, dtype=np.float64)
        self._filled = [s for s, c in enumerate(self._components) if len(c)]
        for s in self._filled[:1] or [0]:  # the rest is checked with the first product
            self.likelihood_of(s)
        self._table = np.concatenate([self._components[s] for s in self._filled] or [np.empty(0)])
        sizes = [len(self._components[s]) for s in self._filled]
        self._first = np.cumsum([0, *sizes[:-1]])

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self._components)

    def likelihood_of(self, index: int) -> Likelihood:
        """Return the likelihood of one set."""
        components = self._components[_as_index(index, self.n_sets)]
        if not len(components):
            return FlatLikelihood(self._names)
        return MorphingLikelihood(self._names, self._basis, components, self._cross_section)

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        points = np.asarray(theta, dtype=np.float64)
        total = np.zeros((len(points), self.n_sets))
        if not self._filled:
            return total
        step = max(1, _BLOCK // len(self._table))
        for start in range(0, len(points), step):
            rows = slice(start, start + step)
            values = log_likelihood(self._basis, self._table, self._cross_section, points[rows])
            total[rows, self._filled] = np.add.reduceat(values, self._first, axis=1)
        return total

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        points = as_own_points(theta, self.n_sets, len(self._names))
        total = np.zeros(points.shape[:2])
        for s in self._filled:
            total[:, s] = log_likelihood_of_set(
                self._basis, self._components[s], self._cross_section, points[:, s]
            )
        return total


class RateSets:
    r"""log L_s(theta) = log L_s^shape(theta) + N_s log mu(theta) - mu(theta): shape and rate.

    The extended likelihood of Poisson counts N_s with expectation mu(theta).

    Args:
        sets: log-likelihoods of the shapes.
        counts: N_s, observed events of each set, (S,).
        expected: mu(theta).

    Raises:
        ShapeError: not one count per set.
        LikelihoodError: mu is negative or not a number at some theta.
    """

    def __init__(
        self, sets: LikelihoodOfSets, counts: Sequence[int], expected: ExpectedCount
    ) -> None:
        self._sets = sets
        self._counts = np.asarray(counts, dtype=np.float64)
        self._expected = expected
        if self._counts.shape != (sets.n_sets,):
            message = (
                f"counts: expected one per set ({sets.n_sets}), got shape {self._counts.shape}"
            )
            raise ShapeError(message)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._sets.parameter_names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return self._sets.n_sets

    def likelihood_of(self, index: int) -> Likelihood:
        """Return the likelihood of one set."""
        shape = self._sets.likelihood_of(index)
        return _WithCount(shape, float(self._counts[index]), self._expected)

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        mu = _expected_at(self._expected, theta)
        return self._sets(theta) + _log_poisson(self._counts, mu[:, None])

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        points = as_own_points(theta, self.n_sets, len(self.parameter_names))
        mu = _expected_at(self._expected, points.reshape(-1, points.shape[2]))
        rates = _log_poisson(self._counts, mu.reshape(points.shape[:2]))
        return self._sets.at_own_points(points) + rates


class SeparateSets:
    """Likelihoods of S sets that know nothing of each other, asked one by one.

    Args:
        likelihoods: one per set, of the same parameters.

    Raises:
        EventDataError: there are none.
        ShapeError: they have other parameters or another order.
    """

    def __init__(self, likelihoods: Sequence[Likelihood]) -> None:
        if not likelihoods:
            message = "likelihoods: expected at least one set, got none"
            raise EventDataError(message)
        self._likelihoods = tuple(likelihoods)
        names = {tuple(likelihood.parameter_names) for likelihood in likelihoods}
        if len(names) > 1:
            message = f"expected likelihoods of the same parameters in one order, got {names}"
            raise ShapeError(message)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._likelihoods[0].parameter_names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self._likelihoods)

    def likelihood_of(self, index: int) -> Likelihood:
        """Return the likelihood of one set."""
        return self._likelihoods[_as_index(index, self.n_sets)]

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        return np.stack([likelihood(theta) for likelihood in self._likelihoods], axis=1)

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        points = as_own_points(theta, self.n_sets, len(self.parameter_names))
        columns = [own(points[:, s]) for s, own in enumerate(self._likelihoods)]
        return np.stack(columns, axis=1)


class _SomeEmpty:
    """Sets of which some are empty and say nothing, log L = 0."""

    def __init__(self, filled: LikelihoodOfSets, where: NDArray[np.intp], n_sets: int) -> None:
        self._filled = filled
        self._where = where
        self.n_sets = n_sets

    @property
    def parameter_names(self) -> Sequence[str]:
        return self._filled.parameter_names

    def likelihood_of(self, index: int) -> Likelihood:
        place = np.flatnonzero(self._where == _as_index(index, self.n_sets))
        if not len(place):
            return FlatLikelihood(tuple(self.parameter_names))
        return self._filled.likelihood_of(int(place[0]))

    def __call__(self, theta: Array) -> Array:
        return self._spread(self._filled(theta))

    def at_own_points(self, theta: Array) -> Array:
        points = as_own_points(theta, self.n_sets, len(self.parameter_names))
        return self._spread(self._filled.at_own_points(points[:, self._where]))

    def _spread(self, values: Array) -> Array:
        total = np.zeros((len(values), self.n_sets))
        total[:, self._where] = values
        return total


def learned_sets(surrogate: EncodedLikelihood, sets: Sequence[Array]) -> LikelihoodOfSets:
    """Return the learned likelihood of sets of events (N_s, n); sets may be empty.

    Raises:
        ShapeError: a set is not (N_s, n), or sets of different n.
        EventDataError: all sets are empty, or non-finite observables.
    """
    where = np.flatnonzero([len(x) > 0 for x in sets])
    filled = CachedEventSets(surrogate, [sets[s] for s in where.tolist()])
    return filled if len(where) == len(sets) else _SomeEmpty(filled, where, len(sets))


class _WithCount:
    """log L(theta) = log L^shape(theta) + n log mu(theta) - mu(theta) of one set."""

    def __init__(self, shape: Likelihood, count: float, expected: ExpectedCount) -> None:
        self._shape = shape
        self._count = count
        self._expected = expected

    @property
    def parameter_names(self) -> Sequence[str]:
        return self._shape.parameter_names

    @property
    def n_events(self) -> int:
        return int(self._count)

    def __call__(self, theta: Array) -> Array:
        return self._shape(theta) + _log_poisson(self._count, _expected_at(self._expected, theta))


_BLOCK = 2**21  # numbers in one temporary array


def as_own_points(theta: Array, n_sets: int, parameter_dim: int) -> Array:
    """Return theta as (M, S, p) float64.

    Raises:
        ShapeError: theta has another shape.
    """
    points = np.asarray(theta, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (n_sets, parameter_dim):
        message = f"theta: expected shape (M, {n_sets}, {parameter_dim}), got {points.shape}"
        raise ShapeError(message)
    return points


def _as_index(index: int, n_sets: int) -> int:
    if not 0 <= index < n_sets:
        message = f"expected a set from 0 to {n_sets - 1}, got {index}"
        raise ShapeError(message)
    return index


def _expected_at(expected: ExpectedCount, theta: Array) -> Array:
    """Return mu at points (M, p), (M,), refused where it is no expectation."""
    mu = np.asarray(expected(theta), dtype=np.float64)
    good = (mu >= 0) & (mu < np.inf)
    if not good.all():
        first = int(np.argmin(good))
        message = (
            f"expected count: expected finite numbers >= 0, got {mu[first]} at theta "
            f"{np.asarray(theta)[first].tolist()}; check the cross section there"
        )
        raise LikelihoodError(message)
    return mu


def _log_poisson(counts: Array | float, mu: Array) -> Array:
    """Return n log mu - mu, -inf where mu = 0 and n > 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(np.asarray(counts) == 0, 0.0, counts * np.log(mu))
    return logs - mu
