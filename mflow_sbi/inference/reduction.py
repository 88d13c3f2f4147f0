"""Likelihoods of fewer parameters, or of the same ones by other names.

`fix_parameters` and `rename_parameters` keep what the likelihood can do: an eventwise one stays
eventwise, so that it may be a component of a mixture.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import overload

import numpy as np

from mflow_sbi.errors import ConfigurationError, ParameterRangeError
from mflow_sbi.inference.composite import Composite, ranges_of
from mflow_sbi.inference.likelihood import ObservedData
from mflow_sbi.inference.mixture import HasWeights, measure_of
from mflow_sbi.inference.naming import Columns, as_names
from mflow_sbi.interfaces import (
    Array,
    DifferentiableEventwiseLikelihood,
    DifferentiableLikelihood,
    Pull,
)

__all__ = [
    "FixedEventwiseParameters",
    "FixedParameters",
    "fix_parameters",
    "rename_parameters",
]


class FixedParameters(Composite):
    """log L with some parameters held at values and the others under new names.

    Made by `fix_parameters` and `rename_parameters`.

    Args:
        likelihood: of p parameters.
        fixed: values of some of them, by name.
        renamed: new names of some of the others, by old name.

    Raises:
        ConfigurationError: unknown names, nothing left free, a value that is not finite, or two
            parameters of one name.
        ParameterRangeError: a value outside the range of training.
    """

    def __init__(
        self,
        likelihood: DifferentiableLikelihood,
        fixed: Mapping[str, float],
        renamed: Mapping[str, str],
    ) -> None:
        inner = tuple(likelihood.parameter_names)
        _require_known((*fixed, *renamed), inner)
        _require_usable(likelihood, fixed)
        free = [name for name in inner if name not in fixed]
        if not free:
            message = (
                f"fixed parameters: expected at least one of {list(inner)} to stay free, got all "
                "of them; event_densities.density_at gives the density at one point"
            )
            raise ConfigurationError(message)
        names = as_names([renamed.get(name, name) for name in free], "renamed parameters")
        super().__init__(free, (likelihood,))
        self._names = names
        self._units = {renamed.get(name, name): unit for name, unit in self._units.items()}
        self._constrained = tuple(renamed.get(name, name) for name in self._constrained)
        self._likelihood = likelihood
        self._fixed = dict(fixed)
        self._columns = Columns(free, inner)
        self._row = np.array([fixed.get(name, 0.0) for name in inner])

    @property
    def fixed(self) -> Mapping[str, float]:
        """The values held, by name."""
        return self._fixed

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return self._likelihood.n_events

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, if the likelihood shows them."""
        return self._likelihood.observed if isinstance(self._likelihood, ObservedData) else {}

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, q) -> (M,)."""
        return self._likelihood(self._whole(theta))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient in the free parameters, (M, q) -> (M,), (M, q)."""
        values, gradients = self._likelihood.value_and_gradient(self._whole(theta))
        return values, self._columns.of(gradients)

    def _whole(self, theta: Array) -> Array:
        """Return the free parameters (M, q) among the fixed ones (M, p)."""
        points = self._counted(theta)
        whole = np.tile(self._row, (len(points), 1))
        self._columns.add(points, whole)
        return whole


class FixedEventwiseParameters(FixedParameters):
    """An eventwise likelihood with some parameters fixed or renamed: still eventwise."""

    def __init__(
        self,
        likelihood: DifferentiableEventwiseLikelihood,
        fixed: Mapping[str, float],
        renamed: Mapping[str, str],
    ) -> None:
        super().__init__(likelihood, fixed, renamed)
        self._eventwise = likelihood

    @property
    def event_measure(self) -> Hashable:
        """The measure of the likelihood."""
        return measure_of(self._eventwise)

    @property
    def weights(self) -> Array | None:
        """Weight of each event, (N,); None where all are one."""
        return self._eventwise.weights if isinstance(self._eventwise, HasWeights) else None

    def per_event(self, theta: Array) -> Array:
        """Return log p(x_i|theta_m), (M, q) -> (M, N)."""
        return self._eventwise.per_event(self._whole(theta))

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and the pull of its slopes, (M, q) -> (M, N), (M, N) -> (M, q)."""
        terms, pull = self._eventwise.per_event_with_pull(self._whole(theta))
        return terms, lambda g: self._columns.of(pull(g))


@overload
def fix_parameters(
    likelihood: DifferentiableEventwiseLikelihood, values: Mapping[str, float]
) -> FixedEventwiseParameters: ...
@overload
def fix_parameters(
    likelihood: DifferentiableLikelihood, values: Mapping[str, float]
) -> FixedParameters: ...
def fix_parameters(
    likelihood: DifferentiableLikelihood, values: Mapping[str, float]
) -> FixedParameters:
    """Return the likelihood of the parameters that are not held at `values`.

    Raises:
        ConfigurationError: unknown names, nothing left free, or a value that is not finite.
        ParameterRangeError: a value outside the range of training.

    Example:
        >>> from mflow_sbi.inference.likelihood import FlatLikelihood
        >>> fix_parameters(FlatLikelihood(("CWL2", "CPWL2")), {"CPWL2": 0.0}).parameter_names
        ('CWL2',)
    """
    return _reduced(likelihood, values, {})


@overload
def rename_parameters(
    likelihood: DifferentiableEventwiseLikelihood, new_names: Mapping[str, str]
) -> FixedEventwiseParameters: ...
@overload
def rename_parameters(
    likelihood: DifferentiableLikelihood, new_names: Mapping[str, str]
) -> FixedParameters: ...
def rename_parameters(
    likelihood: DifferentiableLikelihood, new_names: Mapping[str, str]
) -> FixedParameters:
    """Return the same likelihood with new names (by old name), so as to share or to separate.

    Raises:
        ConfigurationError: unknown names, or two parameters of one name.
    """
    return _reduced(likelihood, {}, new_names)


def _reduced(
    likelihood: DifferentiableLikelihood, fixed: Mapping[str, float], renamed: Mapping[str, str]
) -> FixedParameters:
    if isinstance(likelihood, DifferentiableEventwiseLikelihood):
        return FixedEventwiseParameters(likelihood, fixed, renamed)
    return FixedParameters(likelihood, fixed, renamed)


def _require_known(names: Iterable[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"unknown parameters {unknown}; expected some of {list(known)}"
        raise ConfigurationError(message)


def _require_usable(likelihood: object, fixed: Mapping[str, float]) -> None:
    """Refuse values that are no numbers or outside the range of training."""
    names = tuple(fixed)
    for (name, value), (low, high) in zip(
        fixed.items(), ranges_of(names, (likelihood,)), strict=True
    ):
        if not np.isfinite(value):
            message = f"fixed parameter {name}: expected a finite value, got {value}"
            raise ConfigurationError(message)
        if not low <= value <= high:
            message = (
                f"fixed parameter {name} = {value:g}: expected a value in the range of training, "
                f"[{low:g}, {high:g}]"
            )
            raise ParameterRangeError(message)
