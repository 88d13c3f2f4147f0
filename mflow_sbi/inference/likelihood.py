"""log L(theta) = sum_i log p(x_i|theta) of one set of observed events, for whole batches of theta.

Likelihoods in closed form, and what a likelihood may tell about itself; the learned one is
`cached.CachedLikelihood`.  All satisfy `interfaces.DifferentiableEventwiseLikelihood`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import ShapeError
from mflow_sbi.inference.checks import (
    checked_gradients,
    checked_terms,
    checked_values,
    require_events,
)
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array, Pull
from mflow_sbi.morphing import (
    MorphingBasis,
    log_likelihood,
    log_likelihood_and_score_of_set,
    log_likelihood_of_set,
)

__all__ = [
    "CountsEvaluations",
    "EvaluationCount",
    "FlatLikelihood",
    "MorphingLikelihood",
    "ObservedData",
    "OwnMeasure",
]


@dataclass(frozen=True)
class EvaluationCount:
    """Parameter points at which a likelihood was evaluated so far.

    Args:
        points: all of them.
        outside_training_range: those with a parameter below the lowest or above the highest value
            seen in training, where the surrogate extrapolates.
    """

    points: int = 0
    outside_training_range: int = 0

    def __add__(self, other: "EvaluationCount") -> "EvaluationCount":
        """Return the evaluations of both."""
        return EvaluationCount(
            self.points + other.points,
            self.outside_training_range + other.outside_training_range,
        )

    def __sub__(self, earlier: "EvaluationCount") -> "EvaluationCount":
        """Return the evaluations made since an earlier count."""
        return EvaluationCount(
            self.points - earlier.points,
            self.outside_training_range - earlier.outside_training_range,
        )


@runtime_checkable
class CountsEvaluations(Protocol):
    """A likelihood that knows its training range and how often it was asked to leave it."""

    @property
    def evaluations(self) -> EvaluationCount:
        """Points evaluated so far, and those outside the training range."""
        ...

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest parameter value seen in training, (p, 2)."""
        ...


@runtime_checkable
class ObservedData(Protocol):
    """A likelihood that can show the observed events it stands for."""

    @property
    def observed(self) -> Mapping[str, Array]:
        """Arrays with one row per observed event."""
        ...


class OwnMeasure:
    """What the terms of one owner are densities of: equal for the same owner only.

    Args:
        owner: a likelihood or surrogate that leaves out constants of the events nobody else knows.

    Example:
        >>> one, other = FlatLikelihood(("c",)), FlatLikelihood(("c",))
        >>> OwnMeasure(one) == OwnMeasure(one), OwnMeasure(one) == OwnMeasure(other)
        (True, False)
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def __eq__(self, other: object) -> bool:
        """Return whether both are of the same owner."""
        return isinstance(other, OwnMeasure) and self._owner is other._owner

    def __hash__(self) -> int:
        """Return a number of the owner."""
        return id(self._owner)

    def __repr__(self) -> str:
        """Return words for messages."""
        return f"that of one {type(self._owner).__name__} alone"


class MorphingLikelihood:
    r"""log L(theta) = sum_i log[w(theta).c_i] - N log[w(theta).C].

    The exact likelihood (or the joint one, for simulators with latent variables) from the
    morphing components that an event file carries.

    Args:
        parameter_names: the p names.
        basis: exponents of the monomials w_k(theta).
        components: density coefficients of each event, (N, K), any common unit.
        cross_section: fiducial cross section coefficients, (K,), pb.
        measure: name of the coordinates in which the components are densities, if known;
            likelihoods of one measure can be mixed.
        parameter_units: unit of each parameter by name, where known.

    Raises:
        ShapeError: components or cross_section do not match the basis.
        EventDataError: no events, or non-finite numbers.
        ParameterRangeError: the cross section is not positive at some theta.
    """

    def __init__(
        self,
        parameter_names: Sequence[str],
        basis: MorphingBasis,
        components: Array,
        cross_section: Array,
        measure: str = "",
        parameter_units: Mapping[str, str] | None = None,
    ) -> None:
        self._names = tuple(parameter_names)
        self._units = dict(parameter_units or {})
        self._measure = measure
        self._basis = basis
        self._components = np.asarray(components, dtype=np.float64)
        self._cross_section = np.asarray(cross_section, dtype=np.float64)
        n_terms = basis.n_components
        if len(self._names) != basis.parameter_dim:
            message = (
                f"parameter_names: expected {basis.parameter_dim} for this basis, "
                f"got {list(self._names)}"
            )
            raise ShapeError(message)
        if self._components.ndim != 2 or self._components.shape[1] != n_terms:
            message = f"components: expected shape (N, {n_terms}), got {self._components.shape}"
            raise ShapeError(message)
        if self._cross_section.shape != (n_terms,):
            message = (
                f"cross_section: expected shape ({n_terms},), got {self._cross_section.shape}"
            )
            raise ShapeError(message)
        require_events("components", self._components)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where known."""
        return self._units

    @property
    def event_measure(self) -> Hashable:
        """The coordinates of the components; without a name, those of this likelihood alone."""
        return f"density in {self._measure}" if self._measure else OwnMeasure(self)

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return len(self._components)

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, {"components": (N, K)}."""
        return {"components": self._components}

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, p) -> (M,)."""
        points = as_points(theta, len(self._names))
        total = log_likelihood_of_set(self._basis, self._components, self._cross_section, points)
        return checked_values(total, points, self._names)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, in closed form, (M, p) -> (M,), (M, p).

        The gradient is zero where log L is -inf.

        Raises:
            ParameterRangeError: the cross section is not positive at some theta.
            LikelihoodError: a value or gradient that is not a number.
        """
        points = as_points(theta, len(self._names))
        values, gradients = log_likelihood_and_score_of_set(
            self._basis, self._components, self._cross_section, points
        )
        checked_values(values, points, self._names)
        return values, checked_gradients(gradients, values, points, self._names)

    def per_event(self, theta: Array) -> Array:
        """Return log p(x_i|theta_m) = log[w.c_i] - log[w.C], (M, p) -> (M, N)."""
        points = as_points(theta, len(self._names))
        terms = log_likelihood(self._basis, self._components, self._cross_section, points)
        return checked_terms(terms, points, self._names)

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and the pull of its slopes, (M, p) -> (M, N), (M, N) -> (M, p).

        pull(g) = sum_k dw_k [sum_i g_i c_ik / (w.c_i) - sum_i g_i C_k / (w.C)].
        """
        points = as_points(theta, len(self._names))

        def pull(g: Array) -> Array:
            w = self._basis.weights(points)
            density = w @ self._components.T
            density[density <= 0] = np.inf
            shares = (g / density) @ self._components
            shares -= (g.sum(axis=1) / (w @ self._cross_section))[:, None] * self._cross_section
            return np.einsum("mkp,mk->mp", self._basis.gradient(points), shares)

        return self.per_event(points), pull


@dataclass(frozen=True)
class FlatLikelihood:
    """log L(theta) = 0: the likelihood of no events, whose posterior is the prior.

    Args:
        parameter_names: the p names.
    """

    parameter_names: tuple[str, ...]

    @property
    def n_events(self) -> int:
        """Number of observed events: none."""
        return 0

    def __call__(self, theta: Array) -> Array:
        """Return zeros, (M, p) -> (M,)."""
        return np.zeros(len(as_points(theta, len(self.parameter_names))))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return zeros, (M, p) -> (M,), (M, p)."""
        points = as_points(theta, len(self.parameter_names))
        return np.zeros(len(points)), np.zeros_like(points)

    def per_event(self, theta: Array) -> Array:
        """Return no terms, (M, p) -> (M, 0)."""
        return np.zeros((len(as_points(theta, len(self.parameter_names))), 0))

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return no terms, and a pull to nowhere, (M, p) -> (M, 0), (M, 0) -> (M, p)."""
        points = as_points(theta, len(self.parameter_names))
        return self.per_event(points), lambda g: np.zeros_like(points)  # noqa: ARG005
