"""log L(theta) = sum_i log p(x_i|theta) of one set of observed events, for whole batches of theta.

Charts do not depend on theta, so the observed events are encoded once; only the latent density is
evaluated afterwards.  All classes satisfy `interfaces.Likelihood`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array, EncodedLikelihood
from mflow_sbi.morphing import MorphingBasis, log_likelihood_of_set

__all__ = [
    "CachedLikelihood",
    "CountsEvaluations",
    "EvaluationCount",
    "FlatLikelihood",
    "MorphingLikelihood",
    "ObservedData",
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


class CachedLikelihood:
    r"""log L(theta) = sum_i latent_log_likelihood(u_i, theta), u_i = encode(x_i) computed once.

    Up to a constant in theta.  M points x N events are paired row by row and evaluated in batches
    of at most `chunk_rows` rows; sums over events are float64.

    Args:
        surrogate: the learned likelihood, physical units in.
        x_observed: observed events, (N, n), physical units (GeV).
        chunk_rows: rows per call of the latent density; bounds the memory.

    Raises:
        ShapeError: x_observed is not (N, n) or theta is not (M, p).
        EventDataError: no events, or non-finite observables.
        LikelihoodError: the latent density is NaN or +inf at some theta.
    """

    def __init__(
        self, surrogate: EncodedLikelihood, x_observed: Array, chunk_rows: int = 2048
    ) -> None:
        x = np.asarray(x_observed, dtype=np.float64)
        if x.ndim != 2:
            message = f"x_observed: expected shape (N, n), got {x.shape}"
            raise ShapeError(message)
        _check_events("x_observed", x)
        if chunk_rows < 1:
            message = f"chunk_rows: expected at least 1, got {chunk_rows}"
            raise ShapeError(message)
        self._surrogate = surrogate
        self._x = x
        self._chunk_rows = chunk_rows
        self._count = EvaluationCount()
        with torch.no_grad():
            self._latents = surrogate.encode(x).detach()

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._surrogate.parameter_names

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest parameter value seen in training, (p, 2)."""
        return np.asarray(self._surrogate.parameter_ranges, dtype=np.float64)

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return len(self._x)

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, {"x": (N, n)}."""
        return {"x": self._x}

    @property
    def evaluations(self) -> EvaluationCount:
        """Points evaluated so far, and those outside the training range."""
        return self._count

    @torch.no_grad()
    def __call__(self, theta: Array) -> Array:
        """Return log L up to a constant in theta, (M, p) -> (M,)."""
        points = as_points(theta, len(self.parameter_names))
        self._count_points(points)
        total = np.zeros(len(points))
        rows = torch.as_tensor(points, dtype=self._latents.dtype, device=self._latents.device)
        for u in self._latents.split(self._chunk_rows):
            step = max(1, self._chunk_rows // len(u))
            for start in range(0, len(points), step):
                block = rows[start : start + step]
                values = self._surrogate.latent_log_likelihood(
                    u.repeat(len(block), 1), block.repeat_interleave(len(u), dim=0)
                )
                summed = values.double().reshape(len(block), len(u)).sum(dim=1)
                total[start : start + step] += summed.cpu().numpy()
        return _checked(total, points, self.parameter_names)

    def _count_points(self, points: Array) -> None:
        """Add these points to the counts."""
        low, high = self.parameter_ranges.T
        outside = int(np.any((points < low) | (points > high), axis=1).sum())
        self._count = EvaluationCount(
            self._count.points + len(points), self._count.outside_training_range + outside
        )


class MorphingLikelihood:
    r"""log L(theta) = sum_i log[w(theta).c_i] - N log[w(theta).C].

    The exact likelihood (or the joint one, for simulators with latent variables) from the
    morphing components that an event file carries.

    Args:
        parameter_names: the p names.
        basis: exponents of the monomials w_k(theta).
        components: density coefficients of each event, (N, K), any common unit.
        cross_section: fiducial cross section coefficients, (K,), pb.

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
    ) -> None:
        self._names = tuple(parameter_names)
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
        _check_events("components", self._components)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

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
        return _checked(total, points, self._names)


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


def _check_events(name: str, rows: Array) -> None:
    """Refuse an empty set of events and non-finite numbers."""
    if len(rows) == 0:
        message = f"{name}: expected at least one observed event, got none"
        raise EventDataError(message)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        message = f"{name}: expected finite numbers, event {int(np.argmax(bad))} has NaN or inf"
        raise EventDataError(message)


def _checked(values: Array, points: Array, names: Sequence[str]) -> Array:
    """Return the values; -inf is a likelihood, NaN and +inf are not."""
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        first = int(np.argmax(bad))
        where = ", ".join(
            f"{name} = {value:g}" for name, value in zip(names, points[first], strict=True)
        )
        message = (
            f"log likelihood: expected a number or -inf, got {values[first]} at {where} "
            f"({int(bad.sum())} of {len(values)} points); check the surrogate's training there"
        )
        raise LikelihoodError(message)
    return values
