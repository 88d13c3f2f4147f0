r"""log L(theta) = sum_i log p(u_i|theta) with u_i = encode(x_i) computed once, and its gradient.

Charts do not depend on theta, so the observed events are encoded once; afterwards only the latent
density is evaluated, for all pairs of M points and N events by one broadcast call per block:
theta (M, 1, p) against u (N, d).  Whatever the density computes of theta alone, it computes M
times and not M N times.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.errors import LikelihoodError, ShapeError
from mflow_sbi.inference.checks import (
    as_events,
    checked_gradients,
    checked_terms,
    checked_values,
)
from mflow_sbi.inference.likelihood import EvaluationCount, OwnMeasure
from mflow_sbi.inference.naming import HasUnits
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array, EncodedLikelihood, Latents, LogProbs, Parameters, Pull

__all__ = ["CHUNK_ROWS", "CachedLikelihood", "EncodedEvents"]

CHUNK_ROWS = 2048
"""Pairs per call: hidden layers of 64 numbers then fill half a megabyte, which a core's cache
holds; from 512 to 8192 pairs the default flow's time per pair is flat, with its minimum here."""


@dataclass(frozen=True, eq=False)
class EncodedEvents:
    """Events beside their latents, and the latent density of all pairs of points and events.

    Args:
        surrogate: the learned likelihood that encoded the events.
        x: events, (N, n), physical units.
        latents: encode(x), (N, d).
        chunk_rows: pairs of a point and an event per call of the latent density.
    """

    surrogate: EncodedLikelihood
    x: Array
    latents: Latents
    chunk_rows: int

    @classmethod
    def encode(cls, surrogate: EncodedLikelihood, x: Array, chunk_rows: int) -> "EncodedEvents":
        """Return the events (N, n) with their latents.

        Raises:
            ShapeError: chunk_rows < 1.
        """
        if chunk_rows < 1:
            message = f"chunk_rows: expected at least 1, got {chunk_rows}"
            raise ShapeError(message)
        with torch.no_grad():
            return cls(surrogate, x, surrogate.encode(x).detach(), chunk_rows)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.x)

    def part(self, events: slice) -> "EncodedEvents":
        """Return some of the events, not encoded again."""
        return replace(self, x=self.x[events], latents=self.latents[events])

    def blocks(self, n_points: int) -> Iterator[tuple[slice, slice]]:
        """Yield slices (of points, of events) that cover all pairs, `chunk_rows` at most each."""
        for events in _even_slices(len(self), self.chunk_rows):
            n_events = events.stop - events.start
            for points in _even_slices(n_points, max(1, self.chunk_rows // n_events)):
                yield points, events

    def as_theta(self, points: Array) -> Parameters:
        """Return parameter points as a tensor of the latents' kind and place."""
        return torch.tensor(points, dtype=self.latents.dtype, device=self.latents.device)

    def log_densities(self, events: slice, theta: Parameters) -> LogProbs:
        """Return log p(u_i|theta) of N' events, theta (M, 1 or N', p) -> (M, N').

        Raises:
            ShapeError: the surrogate does not broadcast.
        """
        u = self.latents[events]
        values = self.surrogate.latent_log_likelihood(u, theta)
        if values.shape != (len(theta), len(u)):
            message = (
                f"latent_log_likelihood: expected u {tuple(u.shape)} and theta "
                f"{tuple(theta.shape)} to broadcast to {(len(theta), len(u))} values, got "
                f"{tuple(values.shape)}; see EncodedLikelihood"
            )
            raise ShapeError(message)
        return values


def _even_slices(n: int, at_most: int) -> Iterator[slice]:
    """Yield as few slices of range(n) as possible, nearly equal, none above `at_most`."""
    parts = -(-n // at_most)
    for k in range(parts):
        yield slice(k * n // parts, (k + 1) * n // parts)


class CachedLikelihood:
    r"""log L(theta) = sum_i latent_log_likelihood(u_i, theta), u_i = encode(x_i) computed once.

    Up to a constant in theta.  M points x N events are evaluated by broadcasting, in blocks of at
    most `chunk_rows` pairs; sums over events are float64.

    Args:
        surrogate: the learned likelihood, physical units in.
        x_observed: observed events, (N, n), physical units (GeV).
        chunk_rows: pairs of a point and an event per call of the latent density; bounds the
            memory.

    Raises:
        ShapeError: x_observed is not (N, n), theta is not (M, p), or the surrogate's density does
            not broadcast.
        EventDataError: no events, or non-finite observables.
        LikelihoodError: the latent density is NaN or +inf at some theta.
    """

    def __init__(
        self, surrogate: EncodedLikelihood, x_observed: Array, chunk_rows: int = CHUNK_ROWS
    ) -> None:
        x = as_events("x_observed", x_observed)
        self._keep(EncodedEvents.encode(surrogate, x, chunk_rows))

    @classmethod
    def from_encoded(cls, events: EncodedEvents) -> "CachedLikelihood":
        """Return the likelihood of events that are checked and encoded already."""
        likelihood = cls.__new__(cls)
        likelihood._keep(events)
        return likelihood

    def _keep(self, events: EncodedEvents) -> None:
        self._events = events
        self._names = tuple(events.surrogate.parameter_names)
        self._ranges = np.array(events.surrogate.parameter_ranges, dtype=np.float64)
        self._low, self._high = np.ascontiguousarray(self._ranges.T)
        self._points_asked = 0
        self._points_outside = 0

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value seen in training, (p, 2)."""
        return self._ranges

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return len(self._events)

    @property
    def event_measure(self) -> Hashable:
        """That of this surrogate alone: its terms leave out a constant of each event."""
        return OwnMeasure(self._events.surrogate)

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where the surrogate knows them."""
        surrogate = self._events.surrogate
        return surrogate.parameter_units if isinstance(surrogate, HasUnits) else {}

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, {"x": (N, n)}."""
        return {"x": self._events.x}

    @property
    def evaluations(self) -> EvaluationCount:
        """Points evaluated so far, and those outside the training range."""
        return EvaluationCount(self._points_asked, self._points_outside)

    def __call__(self, theta: Array) -> Array:
        """Return log L up to a constant in theta, (M, p) -> (M,)."""
        points = self._counted(theta)
        total = np.zeros(len(points))
        with torch.no_grad():
            rows = self._events.as_theta(points[:, None])
            for some, events in self._events.blocks(len(points)):
                summed = _summed(self._events.log_densities(events, rows[some]))
                total[some] += summed.cpu().numpy()
        return checked_values(total, points, self._names)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L as `__call__` does and its gradient in theta, (M, p) -> (M,), (M, p).

        The gradient is zero where log L is -inf.

        Raises:
            LikelihoodError: NaN or +inf value, gradient that is not finite, or a density through
                which torch does not differentiate.
        """
        points = self._counted(theta)
        total, gradients = np.zeros(len(points)), np.zeros_like(points)
        rows = self._events.as_theta(points[:, None])
        for some, events in self._events.blocks(len(points)):
            at = rows[some].detach().requires_grad_()
            with torch.enable_grad():
                values = _summed(self._events.log_densities(events, at))
            total[some] += values.detach().cpu().numpy()
            ones = torch.ones_like(values)
            gradients[some] += _gradient(values, at, ones)[:, 0].double().cpu().numpy()
        checked_values(total, points, self._names)
        return total, checked_gradients(gradients, total, points, self._names)

    def per_event(self, theta: Array) -> Array:
        """Return latent_log_likelihood(u_i, theta_m), (M, p) -> (M, N) float64."""
        points = self._counted(theta)
        terms = np.empty((len(points), len(self._events)))
        with torch.no_grad():
            rows = self._events.as_theta(points[:, None])
            for some, events in self._events.blocks(len(points)):
                values = self._events.log_densities(events, rows[some])
                terms[some, events] = values.double().cpu().numpy()
        return checked_terms(terms, points, self._names)

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event` and the pull of its slopes, (M, p) -> (M, N), (M, N) -> (M, p).

        The pull evaluates the density again, block by block, so that no graph of M x N pairs is
        held.
        """
        points = as_points(theta, len(self._names))

        def pull(g: Array) -> Array:
            slopes = torch.as_tensor(g, dtype=torch.float64, device=self._events.latents.device)
            gradients, rows = np.zeros_like(points), self._events.as_theta(points[:, None])
            for some, events in self._events.blocks(len(points)):
                at = rows[some].detach().requires_grad_()
                with torch.enable_grad():
                    values = self._events.log_densities(events, at)
                pulled = _gradient(values, at, slopes[some, events].to(values.dtype))
                gradients[some] += pulled[:, 0].double().cpu().numpy()
            return checked_gradients(gradients, np.zeros(len(points)), points, self._names)

        return self.per_event(points), pull

    def _counted(self, theta: Array) -> Array:
        """Return theta as (M, p) points, added to the counts."""
        points = as_points(theta, len(self._names))
        outside = ((points < self._low) | (points > self._high)).any(axis=1)
        self._points_asked += len(points)
        self._points_outside += int(np.count_nonzero(outside))
        return points


def _summed(values: LogProbs) -> Tensor:
    """Return the sums over events in float64, (M, N) -> (M,)."""
    return values.sum(dim=1, dtype=torch.float64)


def _gradient(values: Tensor, theta: Parameters, slopes: Tensor) -> Tensor:
    """Return d sum(slopes * values) / d theta; zero where nothing depends on theta."""
    if not values.requires_grad:
        message = (
            "latent_log_likelihood: expected values that torch can differentiate in theta, got "
            "values without a graph; evaluate it without torch.no_grad"
        )
        raise LikelihoodError(message)
    return torch.autograd.grad(values, theta, slopes, materialize_grads=True)[0]
