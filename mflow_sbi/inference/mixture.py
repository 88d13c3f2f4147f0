r"""Densities of events added with their expected numbers, in one numerically safe formula.

    log lambda(x_i|theta) = log sum_c mu_c(theta) p_c(x_i|theta)
                          = logsumexp_c [log mu_c(theta) + l_ci(theta)]

l_ci is the term of event i in component c.  Terms may leave out a constant of the event, but all
components the same: they must be densities with respect to one measure.  What that measure is, a
shape says by its `event_measure`; equal values may be added:

- exact morphing components: the coordinates named in the file (`Morphing.measure`); a background
  may be the same process at another theta, or another process' components c_k(x_i) of the same
  events in the same coordinates;
- a learned surrogate: only itself at another theta, since its terms leave out the volume of its
  chart; see `event_densities.normalised` for terms that do not;
- ratio estimators log p(x|theta)/q(x): only with the same reference q, hence only themselves.

The gradient needs no (M, N, p) numbers: with q_ci = p_ci / lambda_i,

    d/dtheta sum_i g_i log lambda_i = sum_c [mu_c sum_i g_i q_ci dl_ci + (sum_i g_i q_ci) dmu_c].
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import xlogy

from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.inference.likelihood import ObservedData, OwnMeasure
from mflow_sbi.inference.naming import Columns, distinct, union_of_names
from mflow_sbi.inference.rates import FixedYield, Rate
from mflow_sbi.interfaces import Array, DifferentiableEventwiseLikelihood, Pull

__all__ = ["Component", "HasEventMeasure", "HasWeights", "Mixture", "measure_of"]

_BLOCK_NUMBERS = 2**18  # pairs of a point and an event held at a time


@runtime_checkable
class HasEventMeasure(Protocol):
    """A likelihood that says which constants its terms leave out."""

    @property
    def event_measure(self) -> Hashable:
        """Equal for two likelihoods of the same events whose terms may be added as densities."""
        ...


def measure_of(likelihood: object) -> Hashable:
    """Return what the terms of a likelihood are densities of; of itself alone if it is silent."""
    if isinstance(likelihood, HasEventMeasure):
        return likelihood.event_measure
    return OwnMeasure(likelihood)


@runtime_checkable
class HasWeights(Protocol):
    """A likelihood of weighted events."""

    @property
    def weights(self) -> Array | None:
        """Weight of each event, (N,); None where all are one."""
        ...


@dataclass(frozen=True)
class Component:
    """One kind of events: their density, and how many are expected.

    Args:
        name: e.g. "signal".
        shape: log p(x_i|theta) of the observed events under this component.
        rate: expected number of its events, or its fraction; one by default.
    """

    name: str
    shape: DifferentiableEventwiseLikelihood
    rate: Rate = FixedYield(1.0)  # noqa: RUF009 (frozen)


class Mixture:
    """lambda(x_i|theta) = sum_c mu_c(theta) p_c(x_i|theta), and sum_i w_i log lambda(x_i|theta).

    Points (M, p) come with their yields mu_c (M, C) and the slopes of those (M, C, p).

    Args:
        components: at least one.
        weights: of the events, (N,); None for one each.

    Raises:
        ConfigurationError: no components, a name used twice, weighted shapes, or terms that are
            densities of different measures.
        ShapeError: shapes of different events.
    """

    def __init__(self, components: Sequence[Component], weights: Array | None) -> None:
        self.components = tuple(components)
        self.weights = weights
        _require_compatible(self.components)
        self.shapes = tuple(component.shape for component in components)
        self.rates = tuple(component.rate for component in components)
        self.names = union_of_names(
            part.parameter_names for c in components for part in (c.shape, c.rate)
        )
        self._of_shape = [Columns(shape.parameter_names, self.names) for shape in self.shapes]
        self._of_rate = [Columns(rate.parameter_names, self.names) for rate in self.rates]
        self.n_events = self.shapes[0].n_events

    def yields(self, points: Array) -> Array:
        """Return mu_c(theta), (M, p) -> (M, C)."""
        pairs = zip(self.rates, self._of_rate, strict=True)
        return np.stack([rate(columns.of(points)) for rate, columns in pairs], axis=1)

    def yields_and_gradients(self, points: Array) -> tuple[Array, Array]:
        """Return mu_c(theta) and its gradient, (M, p) -> (M, C), (M, C, p)."""
        yields = np.empty((len(points), len(self.rates)))
        slopes = np.zeros((*yields.shape, points.shape[1]))
        for c, (rate, columns) in enumerate(zip(self.rates, self._of_rate, strict=True)):
            yields[:, c], own = rate.value_and_gradient(columns.of(points))
            columns.add(own, slopes[:, c])
        return yields, slopes

    def sum_of_logs(self, points: Array, yields: Array) -> Array:
        """Return sum_i w_i log lambda(x_i|theta), (M,)."""
        if self._is_bare:
            own = self._of_shape[0].of(points)
            return self.shapes[0](own) + xlogy(self.n_events, np.maximum(yields[:, 0], 0.0))
        values = np.empty(len(points))
        for rows in self._blocks(len(points)):
            values[rows] = self._weighted(self.log_intensity(points[rows], yields[rows]))
        return values

    def sum_of_logs_and_gradient(
        self, points: Array, yields: Array, slopes: Array
    ) -> tuple[Array, Array]:
        """Return sum_i w_i log lambda(x_i|theta) and its gradient, (M,), (M, p)."""
        if self._is_bare:
            return self._bare_sum_and_gradient(points, yields, slopes)
        values, gradients = np.empty(len(points)), np.empty_like(points)
        weights = 1.0 if self.weights is None else self.weights
        for rows in self._blocks(len(points)):
            logs, pull = self.log_intensity_with_pull(points[rows], yields[rows], slopes[rows])
            values[rows] = self._weighted(logs)
            gradients[rows] = pull(np.broadcast_to(weights, logs.shape))
        return values, gradients

    @property
    def _is_bare(self) -> bool:
        """Whether lambda = mu p, whose sum of logs is that of p and n log mu."""
        return len(self.shapes) == 1 and self.weights is None

    def _bare_sum_and_gradient(
        self, points: Array, yields: Array, slopes: Array
    ) -> tuple[Array, Array]:
        mu = np.maximum(yields[:, 0], 0.0)
        values, own = self.shapes[0].value_and_gradient(self._of_shape[0].of(points))
        gradients = (self.n_events / np.where(mu > 0, mu, np.inf))[:, None] * slopes[:, 0]
        self._of_shape[0].add(own, gradients)
        return values + xlogy(self.n_events, mu), gradients

    def _weighted(self, logs: Array) -> Array:
        return logs.sum(axis=1) if self.weights is None else logs @ self.weights

    def _blocks(self, n_points: int) -> Iterator[slice]:
        step = max(1, _BLOCK_NUMBERS // max(1, self.n_events))
        for start in range(0, n_points, step):
            yield slice(start, start + step)

    def log_intensity(self, points: Array, yields: Array) -> Array:
        """Return log lambda(x_i|theta_m), (M, p), (M, C) -> (M, N)."""
        logs = (
            shape.per_event(columns.of(points)) + log_yield[:, None]
            for shape, columns, log_yield in zip(
                self.shapes, self._of_shape, _logs(yields).T, strict=True
            )
        )
        return reduce(np.logaddexp, logs)

    def log_intensity_with_pull(
        self, points: Array, yields: Array, slopes: Array
    ) -> tuple[Array, Pull]:
        """Return log lambda and the pull of its slopes, (M, N) and (M, N) -> (M, p)."""
        terms, pulls = zip(
            *(
                shape.per_event_with_pull(columns.of(points))
                for shape, columns in zip(self.shapes, self._of_shape, strict=True)
            ),
            strict=True,
        )
        logs = [term + log[:, None] for term, log in zip(terms, _logs(yields).T, strict=True)]
        total = reduce(np.logaddexp, logs)

        def pull(g: Array) -> Array:
            gradient = np.zeros_like(points)
            below = np.where(np.isneginf(total), np.inf, total)
            for c, pull_shape in enumerate(pulls):
                with np.errstate(over="ignore"):
                    relative = g * np.exp(terms[c] - below)
                own = pull_shape(relative * np.maximum(yields[:, c, None], 0.0))
                self._of_shape[c].add(own, gradient)
                gradient += relative.sum(axis=1)[:, None] * slopes[:, c]
            return gradient

        return total, pull


def _logs(yields: Array) -> Array:
    """Return log mu_c, (M, C); -inf where a yield is not positive."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(yields, 0.0))


def _require_compatible(components: Sequence[Component]) -> None:
    """Refuse components that are no densities of the same events and one measure."""
    if not components:
        message = "components: expected at least one, got none"
        raise ConfigurationError(message)
    distinct([component.name for component in components], "components")
    first = components[0]
    for component in components:
        shape = component.shape
        if isinstance(shape, HasWeights) and shape.weights is not None:
            message = (
                f"component {component.name}: expected unweighted events; give the weights to the "
                "likelihood of the whole observation"
            )
            raise ConfigurationError(message)
        if shape.n_events != first.shape.n_events or _other_events(shape, first.shape):
            message = (
                f"component {component.name}: expected the density of the same "
                f"{first.shape.n_events} observed events as {first.name}, got other events "
                f"({shape.n_events})"
            )
            raise ShapeError(message)
    if len(components) > 1:
        _require_one_measure(components)


def _other_events(shape: object, first: object) -> bool:
    """Return whether two shapes show different observables."""
    if not isinstance(shape, ObservedData) or not isinstance(first, ObservedData):
        return False
    mine, theirs = shape.observed.get("x"), first.observed.get("x")
    return mine is not None and theirs is not None and not np.array_equal(mine, theirs)


def _require_one_measure(components: Sequence[Component]) -> None:
    measures: list[Hashable] = []
    for component in components:
        if not isinstance(component.shape, HasEventMeasure):
            message = (
                f"component {component.name}: its shape does not say of which measure it is a "
                "density (event_measure), so it cannot be added to another"
            )
            raise ConfigurationError(message)
        measures.append(component.shape.event_measure)
        if measures[-1] != measures[0]:
            message = (
                f"components {components[0].name} and {component.name}: expected densities of one "
                f"measure, got {measures[0]!r} and {measures[-1]!r}; the constants that their "
                "terms leave out differ from event to event"
            )
            raise ConfigurationError(message)
