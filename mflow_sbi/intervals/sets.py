"""The likelihoods of S data sets at once: what maxima and profiles are computed on.

One observation is the case S = 1; toy experiments are S = 1,000 and more, evaluated together.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Likelihood

__all__ = [
    "DifferentiableSets",
    "LikelihoodSets",
    "SeparateSets",
    "as_sets",
    "with_slopes",
]


@runtime_checkable
class LikelihoodSets(Protocol):
    """log L_s(theta) of S data sets; `inference.CachedEventSets` is one."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        ...

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        ...

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        ...

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        ...


@runtime_checkable
class DifferentiableSets(LikelihoodSets, Protocol):
    """Sets that know their slopes."""

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, S, p) -> (M, S), (M, S, p); zero where -inf."""
        ...


class SeparateSets:
    """Sets that are S likelihoods, evaluated one after the other.

    Args:
        likelihoods: one for each data set, of the same parameters.

    Raises:
        IntervalError: no likelihoods, or of different parameters.
    """

    def __init__(self, likelihoods: Sequence[Likelihood]) -> None:
        names = {tuple(likelihood.parameter_names) for likelihood in likelihoods}
        if len(names) != 1:
            message = (
                "data sets: expected at least one likelihood, all of the same parameters, got "
                f"{len(likelihoods)} of parameters {sorted(names)}"
            )
            raise IntervalError(message)
        self.likelihoods = tuple(likelihoods)
        self.parameter_names: Sequence[str] = names.pop()

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self.likelihoods)

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        return np.stack([likelihood(theta) for likelihood in self.likelihoods], axis=1)

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        values = [likelihood(theta[:, s]) for s, likelihood in enumerate(self.likelihoods)]
        return np.stack(values, axis=1)


class _DifferentiableSeparateSets(SeparateSets):
    """The same of likelihoods that know their slopes."""

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        pairs = []
        for s, likelihood in enumerate(self.likelihoods):
            assert isinstance(likelihood, DifferentiableLikelihood)
            pairs.append(likelihood.value_and_gradient(theta[:, s]))
        values, slopes = zip(*pairs, strict=True)
        return np.stack(values, axis=1), np.stack(slopes, axis=1)


class _FiniteDifferences:
    """Slopes by central differences, for sets that do not know them."""

    def __init__(self, sets: LikelihoodSets, steps: Array) -> None:
        self._sets, self._steps = sets, steps
        self.parameter_names, self.n_sets = sets.parameter_names, sets.n_sets

    def __call__(self, theta: Array) -> Array:
        return self._sets(theta)

    def at_own_points(self, theta: Array) -> Array:
        return self._sets.at_own_points(theta)

    def slopes_at_own_points(self, theta: Array) -> tuple[Array, Array]:
        n, shifts = len(theta), np.diag(self._steps)[:, None, None]
        around = np.concatenate([theta[None], theta + shifts, theta - shifts])
        values = self._sets.at_own_points(around.reshape(-1, *theta.shape[1:]))
        values = values.reshape(-1, n, self.n_sets)
        above, below = values[1 : len(shifts) + 1], values[len(shifts) + 1 :]
        finite = np.isfinite(above) & np.isfinite(below)
        rise = np.subtract(above, below, out=np.zeros_like(above), where=finite)
        return values[0], np.moveaxis(rise / (2 * self._steps[:, None, None]), 0, -1)


def as_sets(likelihoods: LikelihoodSets | Likelihood | Sequence[Likelihood]) -> LikelihoodSets:
    """Return sets as they are, or one likelihood or several as sets.

    Raises:
        ShapeError: something else.
        IntervalError: no likelihoods, or of different parameters.
    """
    if isinstance(likelihoods, LikelihoodSets):
        return likelihoods
    several = [likelihoods] if isinstance(likelihoods, Likelihood) else list(likelihoods)
    if not all(isinstance(one, Likelihood) for one in several):
        message = f"expected a likelihood, several, or LikelihoodSets, got {likelihoods!r}"
        raise ShapeError(message)
    if several and all(isinstance(one, DifferentiableLikelihood) for one in several):
        return _DifferentiableSeparateSets(several)
    return SeparateSets(several)


def with_slopes(sets: LikelihoodSets, steps: Array) -> DifferentiableSets:
    """Return the sets, with slopes by central differences if they know none.

    Args:
        sets: any.
        steps: of the differences, (p,).
    """
    return sets if isinstance(sets, DifferentiableSets) else _FiniteDifferences(sets, steps)
