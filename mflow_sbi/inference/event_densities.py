"""Densities of the observed events as components of a mixture: fixed ones, and normalised ones."""

from collections.abc import Callable, Hashable

import numpy as np

from mflow_sbi.errors import LikelihoodError, ShapeError
from mflow_sbi.inference.checks import checked_terms
from mflow_sbi.inference.mixture import measure_of
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.reduction import FixedEventwiseParameters
from mflow_sbi.interfaces import Array, DifferentiableEventwiseLikelihood, Pull

__all__ = ["FixedDensity", "density_at", "normalised"]

_CONSTANT_WITHIN = 1e-3  # nats per event; networks are float32


class FixedDensity:
    """log p(x_i), the same at every parameter point: a background without parameters.

    Args:
        terms: log p(x_i) of the observed events, (N,), -inf allowed.
        event_measure: the measure of that density, as the signal's `event_measure`.

    Raises:
        ShapeError: terms are not (N,).
        LikelihoodError: NaN or +inf.
    """

    parameter_names = ()

    def __init__(self, terms: Array, event_measure: Hashable) -> None:
        self._terms = np.asarray(terms, dtype=np.float64)
        self._measure = event_measure
        if self._terms.ndim != 1:
            message = f"log density of events: expected shape (N,), got {self._terms.shape}"
            raise ShapeError(message)
        checked_terms(self._terms[None], np.zeros((1, 0)), ())

    @property
    def event_measure(self) -> Hashable:
        """The measure of the density."""
        return self._measure

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return len(self._terms)

    def __call__(self, theta: Array) -> Array:
        """Return sum_i log p(x_i), (M, 0) -> (M,)."""
        return np.full(len(as_points(theta, 0)), self._terms.sum())

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return sum_i log p(x_i) and no slopes, (M, 0) -> (M,), (M, 0)."""
        return self(theta), np.zeros((len(theta), 0))

    def per_event(self, theta: Array) -> Array:
        """Return log p(x_i), (M, 0) -> (M, N)."""
        return np.broadcast_to(self._terms, (len(as_points(theta, 0)), self.n_events))

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and a pull to nowhere, (M, 0) -> (M, N), (M, N) -> (M, 0)."""
        return self.per_event(theta), lambda g: np.zeros((len(g), 0))


def density_at(likelihood: DifferentiableEventwiseLikelihood, theta: Array) -> FixedDensity:
    """Return log p(x_i|theta) of the observed events at one theta, (p,), as a fixed density.

    Raises:
        ShapeError: theta is not (p,).
    """
    terms = likelihood.per_event(np.asarray(theta, dtype=np.float64)[None])
    return FixedDensity(terms[0], measure_of(likelihood))


class _ShiftedTerms(FixedEventwiseParameters):
    """log p(x_i|theta) + constant_i."""

    def __init__(
        self, likelihood: DifferentiableEventwiseLikelihood, shifts: Array, measure: Hashable
    ) -> None:
        super().__init__(likelihood, {}, {})
        self._shifts = shifts
        self._measure = measure

    @property
    def event_measure(self) -> Hashable:
        """The measure of the normalised density."""
        return self._measure

    def __call__(self, theta: Array) -> Array:
        """Return sum_i log p(x_i|theta), (M, p) -> (M,)."""
        return super().__call__(theta) + self._shifts.sum()

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return sum_i log p(x_i|theta) and its gradient, (M, p) -> (M,), (M, p)."""
        values, gradients = super().value_and_gradient(theta)
        return values + self._shifts.sum(), gradients

    def per_event(self, theta: Array) -> Array:
        """Return log p(x_i|theta_m), (M, p) -> (M, N)."""
        return super().per_event(theta) + self._shifts

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and the pull of its slopes, (M, p) -> (M, N), (M, N) -> (M, p)."""
        terms, pull = super().per_event_with_pull(theta)
        return terms + self._shifts, pull


def normalised(
    likelihood: DifferentiableEventwiseLikelihood,
    log_prob: Callable[[Array], Array],
    theta: Array,
    measure: Hashable,
) -> DifferentiableEventwiseLikelihood:
    """Return the likelihood with terms log p(x_i|theta), the constants of the events added.

    Terms of a learned likelihood leave out what does not depend on theta (volumes, encodings);
    its normalised log density at a few points says what that was.  So densities of two surrogates
    can be mixed, if they are of one measure: ambient densities in the same observables and units
    are, densities on the surfaces of two different charts are not.

    Args:
        likelihood: terms up to constants of the events.
        log_prob: normalised log density of the same events at one point, (p,) -> (N,).
        theta: at least two points where both are compared, (M, p).
        measure: a name for the measure and the units of log_prob; equal for densities that may be
            added, and nowhere else.

    Raises:
        LikelihoodError: log_prob and the terms differ by more than constants of the events
            (0.001 nats per event).
        ShapeError: fewer than two points.
    """
    points = as_points(theta, len(likelihood.parameter_names))
    if len(points) < 2:
        message = f"theta: expected at least two points to compare at, got {len(points)}"
        raise ShapeError(message)
    shifts = np.stack([log_prob(point) for point in points]) - likelihood.per_event(points)
    spread = float(np.ptp(shifts, axis=0).max(initial=0.0))
    if not spread < _CONSTANT_WITHIN:
        message = (
            "normalised density: expected log_prob and the likelihood's terms to differ by a "
            f"constant of each event, got differences that vary by {spread:.3g} between points; "
            "they are not of the same surrogate, or not of the same events"
        )
        raise LikelihoodError(message)
    return _ShiftedTerms(likelihood, shifts.mean(axis=0), measure)
