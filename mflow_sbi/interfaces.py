"""The protocols through which the rooms meet, and the names of array shapes.

Surrogates, training and inference stand on the same floor and never import each other: training
sees a surrogate through its objectives, inference sees it through `EncodedLikelihood`, and both
meet in `recipes`.

Shapes: N events, n observables (`ambient_dim`), d latents (`latent_dim`), p parameters
(`parameter_dim`), M parameter points.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Array",
    "CondensingSurrogate",
    "DifferentiableEventwiseLikelihood",
    "DifferentiableLikelihood",
    "DifferentiablePrior",
    "EncodedLikelihood",
    "Events",
    "EventwiseLikelihood",
    "Latents",
    "Likelihood",
    "LogProbs",
    "ManifoldSurrogate",
    "Measure",
    "Parameters",
    "Prior",
    "Progress",
    "Pull",
    "Quiet",
    "Reporter",
    "SurfacePerTheta",
    "Surrogate",
]

Array: TypeAlias = NDArray[np.float64]
Events: TypeAlias = Tensor  # (N, n)
Latents: TypeAlias = Tensor  # (N, d)
Parameters: TypeAlias = Tensor  # (N, p)
LogProbs: TypeAlias = Tensor  # (N,)
Progress: TypeAlias = Callable[[int, int], None]  # (done, total)
Pull: TypeAlias = Callable[[Array], Array]  # (M, N) -> (M, p)
Measure: TypeAlias = Literal["ambient", "manifold", "none"]


@runtime_checkable
class Surrogate(Protocol):
    """A learned p(x|theta) on standardised observables: `log p(u|theta) - log_volume(u)`."""

    ambient_dim: int
    latent_dim: int
    parameter_dim: int
    measure: Measure

    def encode(self, x: Events) -> Latents:
        """Return all that the theta-dependence of the likelihood needs of x, (N, d)."""
        ...

    def decode(self, u: Latents) -> Events:
        """Return the events with latents u, (N, n)."""
        ...

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p(u|theta), (N,)."""
        ...

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return the exact normalised log density with respect to `measure`, (N,)."""
        ...

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        ...

    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, (N, n)."""
        ...


@runtime_checkable
class ManifoldSurrogate(Surrogate, Protocol):
    """A surrogate whose events lie on a d-dimensional surface in R^n."""

    def project(self, x: Events) -> Events:
        """Return decode(encode(x)), (N, n)."""
        ...

    def project_with_flags(self, x: Events) -> tuple[Events, Tensor]:
        """Return project(x), NaN where there is no point for x, and whether there is one, (N,)."""
        ...

    def reconstruction_error(self, x: Events) -> Tensor:
        """Return |x - project(x)|_2, (N,)."""
        ...

    def sample_counted(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        """Return one event per row of theta, and how many latents had to be drawn again."""
        ...

    def log_volume(self, u: Latents) -> Tensor:
        """Return 1/2 log det J^T J of the decoder at u, (N,)."""
        ...


@runtime_checkable
class SurfacePerTheta(Surrogate, Protocol):
    """A surrogate of events in all dimensions that draws them on a surface of their theta."""

    def project_at(self, x: Events, theta: Parameters) -> Events:
        """Return the points of the surfaces of theta next to x, rows paired, (N, n)."""
        ...


@runtime_checkable
class CondensingSurrogate(Surrogate, Protocol):
    """A surrogate whose theta-dependence needs less of an event than its latents."""

    def condense(self, x: Events) -> Tensor:
        """Return all that the theta-dependence of the likelihood needs of x, (N, k)."""
        ...

    def condensed_log_likelihood(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (..., k), (..., p) -> (...)."""
        ...


@runtime_checkable
class EncodedLikelihood(Protocol):
    """A likelihood that factorises into an encoding without theta and a latent density.

    log p(x|theta) = latent_log_likelihood(encode(x), theta) + constant(x).
    Physical units in; inference encodes the observed events once and asks for the latent density
    of all pairs of M points and N events by broadcasting theta (M, 1, p) against u (N, d).
    """

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        ...

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value seen in training, (p, 2)."""
        ...

    def encode(self, x: Array) -> Latents:
        """Return what the theta-dependence needs of events in physical units, (N, d)."""
        ...

    def latent_log_likelihood(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p(u|theta) up to a constant in theta; leading dimensions broadcast.

        u (..., d), theta (..., p) -> (...): rows paired, (N, d), (N, p) -> (N,); every event at
        every point, (N, d), (M, 1, p) -> (M, N); each event at its own points, (N, d), (M, N, p)
        -> (M, N).  What depends on theta alone is to be computed once per row of theta, and no
        argument repeated where a broadcast does.  theta has the dtype and device of u; torch
        differentiates through it.
        """
        ...


@runtime_checkable
class Likelihood(Protocol):
    """Log-likelihood of one observed set of events as a function of the parameters."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        ...

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        ...

    def __call__(self, theta: Array) -> Array:
        """Return sum_i log p(x_i|theta) up to a constant in theta, (M, p) -> (M,)."""
        ...


@runtime_checkable
class DifferentiableLikelihood(Likelihood, Protocol):
    """A likelihood that knows its slope in the parameters."""

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L as `__call__` does and grad_theta log L, (M, p) -> (M,), (M, p).

        The gradient is finite; zero where log L is -inf.
        """
        ...


@runtime_checkable
class EventwiseLikelihood(Likelihood, Protocol):
    """A likelihood that is a sum over events and shows its terms."""

    def per_event(self, theta: Array) -> Array:
        """Return log p(x_i|theta_m) up to constants of the event, (M, p) -> (M, N).

        -inf where an event has no density; never NaN or +inf.
        """
        ...


@runtime_checkable
class DifferentiableEventwiseLikelihood(EventwiseLikelihood, DifferentiableLikelihood, Protocol):
    """An eventwise likelihood that knows the slopes of its terms."""

    def per_event_with_pull(self, theta: Array) -> tuple[Array, Pull]:
        """Return `per_event(theta)` and the pull of its slopes, (M, p) -> (M, N), Pull.

        pull(g)_m = sum_i g_mi grad_theta log p(x_i|theta_m), (M, N) -> (M, p): the gradient of
        any function of theta and of the terms whose derivative in term (m, i) is g_mi.  Events
        without density (-inf) pull nothing.
        """
        ...


@runtime_checkable
class Prior(Protocol):
    """A normalised density on the parameters that can be sampled."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        ...

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf outside the support."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p)."""
        ...


@runtime_checkable
class DifferentiablePrior(Prior, Protocol):
    """A prior that knows the slope of its log density."""

    def gradient(self, theta: Array) -> Array:
        """Return grad_theta log p(theta), (M, p) -> (M, p); zero outside the support."""
        ...


class Reporter(Protocol):
    """Where a long piece of work tells how far it is and what came out."""

    def task(self, title: str) -> AbstractContextManager[Progress]:
        """Open a task; the block calls the yielded callback with (done, total)."""
        ...

    def say(self, text: str) -> None:
        """Tell one line."""
        ...

    def warn(self, text: str) -> None:
        """Tell one line that asks for attention."""
        ...

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Tell a table."""
        ...


class Quiet:
    """A reporter that tells nothing."""

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:  # noqa: ARG002
        """Yield a callback that does nothing."""
        yield lambda done, total: None

    def say(self, text: str) -> None:
        """Tell nothing."""

    def warn(self, text: str) -> None:
        """Tell nothing."""

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Tell nothing."""
