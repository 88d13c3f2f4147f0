r"""The likelihood of an observation: n events and, if wanted, their number.

    shape only        log L = sum_i w_i log[ sum_c mu_c p_c(x_i) / sum_c mu_c ]
    shape and rate    log L = sum_i w_i log[ sum_c mu_c p_c(x_i) ] - sum_c mu_c - log n!
    rate only         log L = n log[ sum_c mu_c ] - sum_c mu_c - log n!

The second is log Poisson(n | sum_c mu_c) plus the first, the extended likelihood (Barlow, Nucl.
Instrum. Meth. A 297, 1990).  Weights w_i stand for so many events each (Asimov data), and n =
sum_i w_i; log n! = log Gamma(n + 1).  One component without weights costs no more than the bare
likelihood of its events.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy.special import gammaln, xlogy

from mflow_sbi.errors import ConfigurationError, EventDataError, ShapeError
from mflow_sbi.inference.checks import checked_gradients, checked_terms, checked_values
from mflow_sbi.inference.composite import Composite
from mflow_sbi.inference.likelihood import ObservedData
from mflow_sbi.inference.mixture import Component, Mixture, measure_of
from mflow_sbi.inference.naming import Columns, union_of_names
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.rates import Rate
from mflow_sbi.interfaces import Array, Pull

__all__ = ["CountingLikelihood", "ExtendedLikelihood", "ShapeLikelihood", "as_weights"]


def as_weights(weights: Array, n_events: int) -> Array:
    """Return the weights of N observed events as (N,) float64, positive and finite.

    Raises:
        ShapeError: not one weight per event.
        EventDataError: weights that are negative, zero, NaN or infinite; the message counts them.
    """
    rows = np.asarray(weights, dtype=np.float64)
    if rows.shape != (n_events,):
        message = f"weights: expected shape ({n_events},), one per event, got {rows.shape}"
        raise ShapeError(message)
    good = (rows > 0) & (rows < np.inf)
    if not good.all():
        message = (
            f"weights: expected positive numbers, got {int((~good).sum())} of {n_events} that are "
            f"not ({int((rows < 0).sum())} negative, {int((rows == 0).sum())} zero, "
            f"{int((~np.isfinite(rows)).sum())} not finite); an observation has no negative "
            "events: leave out zeros, and reweight a simulation with negative weights first"
        )
        raise EventDataError(message)
    return rows


class _Observation(Composite, ABC):
    """The log likelihood of observed events: sum_i w_i log lambda(x_i) and a normalisation."""

    def __init__(self, components: Sequence[Component], weights: Array | None = None) -> None:
        parts = [part for c in components for part in (c.shape, c.rate)]
        checked = None
        if weights is not None and components:
            checked = as_weights(weights, components[0].shape.n_events)
        self._mixture = Mixture(components, checked)
        super().__init__(self._mixture.names, parts)

    @property
    def n_events(self) -> int:
        """Number of observed events, N, weights left aside."""
        return self._mixture.n_events

    @property
    def weights(self) -> Array | None:
        """Weight of each event, (N,); None where all are one."""
        return self._mixture.weights

    @property
    def sum_of_weights(self) -> float:
        """The number n of events that the observation stands for."""
        return float(self.n_events if self.weights is None else self.weights.sum())

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events as the first component shows them, and the weights."""
        shape = self._mixture.shapes[0]
        shown = dict(shape.observed) if isinstance(shape, ObservedData) else {}
        return shown if self.weights is None else {**shown, "weights": self.weights}

    def expected_events(self, theta: Array) -> Mapping[str, Array]:
        """Return mu_c(theta) by the name of the component, (M, p) -> (M,) each."""
        yields = self._mixture.yields(as_points(theta, len(self._names)))
        names = [component.name for component in self._mixture.components]
        return dict(zip(names, yields.T, strict=True))

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, p) -> (M,); -inf where a yield is negative."""
        points = self._counted(theta)
        yields = self._mixture.yields(points)
        values = self._mixture.sum_of_logs(points, yields)
        values += self._normalisation(yields.sum(axis=1))[0]
        values[(yields < 0).any(axis=1)] = -np.inf
        return checked_values(values, points, self._names)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, p) -> (M,), (M, p).

        The gradient is zero where log L is -inf.

        Raises:
            LikelihoodError: a value or gradient that is not a number.
        """
        points = self._counted(theta)
        yields, slopes = self._mixture.yields_and_gradients(points)
        values, gradients = self._mixture.sum_of_logs_and_gradient(points, yields, slopes)
        normalisation, per_event = self._normalisation(yields.sum(axis=1))
        values += normalisation
        values[(yields < 0).any(axis=1)] = -np.inf
        gradients += per_event[:, None] * slopes.sum(axis=1)
        checked_values(values, points, self._names)
        return values, checked_gradients(gradients, values, points, self._names)

    @abstractmethod
    def _normalisation(self, total: Array) -> tuple[Array, Array]:
        """Return what sum_i w_i log lambda_i lacks, and its slope in mu, (M,) -> (M,), (M,)."""


class ExtendedLikelihood(_Observation):
    r"""log L = sum_i w_i log[sum_c mu_c(theta) p_c(x_i|theta)] - sum_c mu_c(theta) - log n!.

    Shape and rate.  No events are an observation too: with `FlatLikelihood` as shape log L = -mu.

    Args:
        components: signal and backgrounds, each a density of the observed events and an expected
            number.
        weights: positive weights of the events, (N,); None for one each.

    Raises:
        ConfigurationError: components that do not fit each other (see `Mixture`).
        ShapeError: components of different events, or not one weight per event.
        EventDataError: weights that are not positive numbers.
        LikelihoodError: when called: NaN or +inf.
    """

    def _normalisation(self, total: Array) -> tuple[Array, Array]:
        return -total - gammaln(self.sum_of_weights + 1), -np.ones_like(total)


class ShapeLikelihood(_Observation):
    r"""log L = sum_i w_i log[sum_c mu_c(theta) p_c(x_i|theta) / sum_c mu_c(theta)].

    Shape only: the number of events tells nothing.  With one component the rates drop out; with
    two, mu = (1 - f, f) for a fraction f (`RemainingFraction` and `FreeYield`, or `FixedYield`).
    It is a density of events itself, and may be a component.

    Args:
        components: signal and backgrounds, each a density of the observed events and a rate,
            whose scale does not matter.
        weights: positive weights of the events, (N,); None for one each.

    Raises:
        ConfigurationError: components that do not fit each other (see `Mixture`).
        ShapeError: components of different events, or not one weight per event.
        EventDataError: no events, or weights that are not positive numbers.
        LikelihoodError: when called: NaN or +inf.
    """

    def __init__(self, components: Sequence[Component], weights: Array | None = None) -> None:
        super().__init__(components, weights)
        if self.n_events == 0:
            message = (
                "shape only: expected at least one observed event, got none; no events tell "
                "something only with a rate: use ExtendedLikelihood or CountingLikelihood"
            )
            raise EventDataError(message)

    @property
    def event_measure(self) -> Hashable:
        """The measure of the components."""
        return measure_of(self._mixture.shapes[0])

    def per_event(self, theta: Array) -> Array:
        """Return log[sum_c mu_c p_c(x_i) / sum_c mu_c], weights left aside, (M, p) -> (M, N)."""
        points = self._counted(theta)
        yields = self._mixture.yields(points)
        logs = self._mixture.log_intensity(points, yields)
        return checked_terms(_relative(logs, yields), points, self._names)

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and the pull of its slopes, (M, p) -> (M, N), (M, N) -> (M, p)."""
        points = self._counted(theta)
        yields, slopes = self._mixture.yields_and_gradients(points)
        logs, pull = self._mixture.log_intensity_with_pull(points, yields, slopes)
        total = yields.sum(axis=1)
        relative = slopes.sum(axis=1) / np.where(total > 0, total, np.inf)[:, None]

        def pull_relative(g: Array) -> Array:
            return pull(g) - g.sum(axis=1)[:, None] * relative

        return checked_terms(_relative(logs, yields), points, self._names), pull_relative

    def _normalisation(self, total: Array) -> tuple[Array, Array]:
        some = np.where(total > 0, total, np.inf)
        n = self.sum_of_weights
        return -n * np.log(some), -n / some


def _relative(logs: Array, yields: Array) -> Array:
    """Return log lambda - log mu, (M, N); -inf where a yield is negative or all are zero."""
    total = yields.sum(axis=1)
    possible = (total > 0) & (yields >= 0).all(axis=1)
    norm = np.log(np.where(possible, total, np.inf))
    return logs - norm[:, None]


class CountingLikelihood(Composite):
    """log L = n log mu(theta) - mu(theta) - log n!, mu = sum_c mu_c: the number of events alone.

    Args:
        rates: expected numbers of events, which add.
        n: observed number of events, >= 0; not necessarily whole (Asimov data).

    Raises:
        ConfigurationError: no rates.
        EventDataError: a number that is negative or not finite.

    Example:
        >>> from mflow_sbi.inference.rates import FreeYield
        >>> CountingLikelihood((FreeYield("mu"),), n=0)(np.array([[2.5]]))
        array([-2.5])
    """

    def __init__(self, rates: Sequence[Rate], n: float) -> None:
        if not rates:
            message = "rates: expected at least one, got none"
            raise ConfigurationError(message)
        if not 0 <= n < np.inf:
            message = f"observed number of events: expected a finite number >= 0, got {n}"
            raise EventDataError(message)
        super().__init__(union_of_names(rate.parameter_names for rate in rates), rates)
        self._n = float(n)
        self._rates = [(rate, Columns(rate.parameter_names, self._names)) for rate in rates]

    @property
    def n_events(self) -> int:
        """Number of observed events, rounded."""
        return round(self._n)

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, p) -> (M,); -inf where a rate is negative."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, p) -> (M,), (M, p); zero where log L is -inf."""
        points = self._counted(theta)
        total, slopes = np.zeros(len(points)), np.zeros_like(points)
        negative = np.zeros(len(points), dtype=bool)
        for rate, columns in self._rates:
            mu, own = rate.value_and_gradient(columns.of(points))
            total += mu
            negative |= mu < 0
            columns.add(own, slopes)
        some = np.maximum(total, 0.0)
        values = xlogy(self._n, some) - total - gammaln(self._n + 1)
        values[negative] = -np.inf
        checked_values(values, points, self._names)
        gradients = (self._n / np.where(some > 0, some, np.inf) - 1)[:, None] * slopes
        return values, checked_gradients(gradients, values, points, self._names)
