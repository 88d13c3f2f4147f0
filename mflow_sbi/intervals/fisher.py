r"""Fisher information: how precisely any analysis of the events can measure the parameters.

    I(theta) = n E[t t^T] + grad mu grad mu^T / mu,     t = grad_theta log p(x|theta),

n expected events of shape information each, plus that of their number mu (1612.05261).  No
unbiased estimator of theta has a smaller covariance than I^-1 (Cramer and Rao); the eigenvectors
say which directions are measured best.  It comes from scores, exact or learned, or from the
Hessian of a likelihood, whose expectation it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.inference.rates import Rate
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, EncodedLikelihood

__all__ = [
    "FisherInformation",
    "hessian_information",
    "learned_curvatures",
    "learned_scores",
    "rate_information",
    "score_information",
]

_BLOCK = 2**22  # numbers in one temporary array


@dataclass(frozen=True, eq=False)
class FisherInformation:
    """A symmetric matrix of information about named parameters.

    Args:
        parameter_names: the p names.
        matrix: (p, p).
        replicas: the matrix of bootstrapped event sets, for errors, (B, p, p); none if exact.

    Raises:
        ShapeError: a matrix that is not (p, p).

    >>> information = FisherInformation(("a", "b"), np.diag([4.0, 1.0]))
    >>> (information + information).std
    array([0.35355339, 0.70710678])
    """

    parameter_names: tuple[str, ...]
    matrix: Array
    replicas: Array | None = None

    def __post_init__(self) -> None:
        p = len(self.parameter_names)
        if self.matrix.shape != (p, p):
            message = (
                f"information on {p} parameters: expected ({p}, {p}), got {self.matrix.shape}"
            )
            raise ShapeError(message)

    def __add__(self, other: "FisherInformation") -> "FisherInformation":
        """Return the information of both, from independent events."""
        if self.parameter_names != other.parameter_names:
            message = (
                f"sum of information: expected the same parameters, got {self.parameter_names} "
                f"and {other.parameter_names}"
            )
            raise IntervalError(message)
        replicas = None
        if self.replicas is not None or other.replicas is not None:
            mine, theirs = (
                x.matrix[None] if x.replicas is None else x.replicas for x in (self, other)
            )
            if min(len(mine), len(theirs)) > 1:
                least = min(len(mine), len(theirs))
                mine, theirs = mine[:least], theirs[:least]
            replicas = mine + theirs
        return FisherInformation(self.parameter_names, self.matrix + other.matrix, replicas)

    def scaled(self, factor: float) -> "FisherInformation":
        """Return the information of `factor` times as many events."""
        replicas = None if self.replicas is None else factor * self.replicas
        return FisherInformation(self.parameter_names, factor * self.matrix, replicas)

    @property
    def error(self) -> Array:
        """Standard error of each entry by bootstrap, (p, p); 0 if exact."""
        if self.replicas is None:
            return np.zeros_like(self.matrix)
        return self.replicas.std(axis=0, ddof=1)

    @property
    def eigenvalues(self) -> Array:
        """In decreasing order, (p,)."""
        return np.asarray(np.linalg.eigvalsh(self.matrix)[::-1], np.float64)

    @property
    def eigenvectors(self) -> Array:
        """Directions of the eigenvalues in rows, (p, p); the largest entry is positive."""
        rows = np.linalg.eigh(self.matrix)[1].T[::-1]
        largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
        return rows * np.sign(largest)

    @property
    def eigenvalue_error(self) -> Array:
        """Standard errors of the eigenvalues by bootstrap, (p,); 0 if exact."""
        if self.replicas is None:
            return np.zeros(len(self.matrix))
        return np.linalg.eigvalsh(self.replicas)[:, ::-1].std(axis=0, ddof=1)

    @property
    def covariance(self) -> Array:
        """I^-1, below which no unbiased estimator's covariance is, (p, p).

        Raises:
            IntervalError: some direction carries no information.
        """
        if self.eigenvalues[-1] <= 1e-12 * max(self.eigenvalues[0], 1e-300):
            direction = self.directions()[-1]
            message = (
                f"covariance: expected information on every direction, got none on {direction}"
            )
            raise IntervalError(message)
        return np.asarray(np.linalg.inv(self.matrix), np.float64)

    @property
    def std(self) -> Array:
        """Smallest errors, the others unknown: sqrt of the diagonal of I^-1, (p,)."""
        return np.sqrt(np.diag(self.covariance))

    def without(self, names: Sequence[str]) -> "FisherInformation":
        """Return the information on the other parameters, these ones known exactly."""
        return self._reduced(self._others(names), None)

    def profiled(self, names: Sequence[str]) -> "FisherInformation":
        """Return the information on the other parameters, these ones unknown.

        I_oo - I_on I_nn^-1 I_no: the inverse of the others' block of I^-1.
        """
        others = self._others(names)
        return self._reduced(others, [k for k in range(len(self.matrix)) if k not in others])

    def directions(self) -> list[str]:
        """Return the eigenvectors in words, best measured first."""
        return [
            " ".join(f"{x:+.3f} {name}" for x, name in zip(row, self.parameter_names, strict=True))
            for row in self.eigenvectors
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "parameter_names": list(self.parameter_names),
            "matrix": self.matrix.tolist(),
            "error": self.error.tolist(),
            "eigenvalues": self.eigenvalues.tolist(),
            "eigenvalue_error": self.eigenvalue_error.tolist(),
            "eigenvectors": self.eigenvectors.tolist(),
        }

    def _others(self, names: Sequence[str]) -> list[int]:
        unknown = [name for name in names if name not in self.parameter_names]
        others = [k for k, name in enumerate(self.parameter_names) if name not in names]
        if unknown or not others:
            message = (
                f"expected some, not all, of the parameters {list(self.parameter_names)}, got "
                f"{list(names)}"
            )
            raise IntervalError(message)
        return others

    def _reduced(self, keep: list[int], profile: list[int] | None) -> "FisherInformation":
        def reduce(matrix: Array) -> Array:
            kept = matrix[..., keep, :][..., keep]
            if not profile:
                return kept
            across = matrix[..., keep, :][..., profile]
            inner = matrix[..., profile, :][..., profile]
            return kept - across @ np.linalg.solve(inner, np.swapaxes(across, -1, -2))

        names = tuple(self.parameter_names[k] for k in keep)
        replicas = None if self.replicas is None else reduce(self.replicas)
        return FisherInformation(names, reduce(self.matrix), replicas)


def score_information(
    parameter_names: Sequence[str],
    scores: Array,
    rng: np.random.Generator,
    *,
    weights: Array | None = None,
    n_bootstrap: int = 100,
) -> FisherInformation:
    r"""Return the information of one event, sum_i a_i t_i t_i^T / sum_i a_i, with its error.

    Args:
        parameter_names: the p names.
        scores: t_i = grad_theta log p(x_i|theta) of events at theta, exact (`EventPool.scores`,
            `morphing.score`) or learned (`learned_scores`), (N, p).
        rng: draws the bootstrap's events.
        weights: a_i >= 0 of the events at theta, (N,); 1 by default.
        n_bootstrap: bootstrapped event sets, with Poisson(1) copies of each event.

    Raises:
        ShapeError: scores or weights of another shape.
        IntervalError: no events, numbers that are not finite, weights that are negative.
    """
    names, t = tuple(parameter_names), np.asarray(scores, dtype=np.float64)
    a = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
    if t.ndim != 2 or t.shape[1] != len(names) or a.shape != (len(t),):
        message = (
            f"expected scores (N, {len(names)}) and weights (N,), got {t.shape} and {a.shape}"
        )
        raise ShapeError(message)
    if not len(t) or not np.isfinite(t).all() or not (np.isfinite(a) & (a >= 0)).all():
        message = (
            f"expected finite scores and weights >= 0 of events, got others ({len(t)} events)"
        )
        raise IntervalError(message)
    outer = (a[:, None, None] * t[:, :, None] * t[:, None, :]).reshape(len(t), -1)
    sums = np.concatenate([outer, a[:, None]], axis=1)
    replicas, step = np.empty((n_bootstrap, sums.shape[1])), max(1, _BLOCK // len(t))
    for start in range(0, n_bootstrap, step):
        copies = rng.poisson(1.0, (min(step, n_bootstrap - start), len(t)))
        replicas[start : start + len(copies)] = copies @ sums
    shape = (-1, len(names), len(names))
    matrix = (outer.sum(axis=0) / a.sum()).reshape(shape)[0]
    several = (replicas[:, :-1] / replicas[:, -1:]).reshape(shape)
    return FisherInformation(names, matrix, several if n_bootstrap > 1 else None)


def hessian_information(
    likelihood: DifferentiableLikelihood, theta: ArrayLike, steps: ArrayLike | None = None
) -> FisherInformation:
    r"""Return the observed information -d^2 log L / d theta d theta^T of all events.

    Central differences of the gradient, with one step of Richardson's extrapolation.

    Args:
        likelihood: log L of observed or Asimov data.
        theta: (p,).
        steps: of the differences, (p,); 1e-3 by default.

    Raises:
        ShapeError: theta or steps of another shape.
        IntervalError: the likelihood vanishes at theta or beside it.
    """
    names, point = tuple(likelihood.parameter_names), np.asarray(theta, dtype=np.float64)
    h = np.broadcast_to(np.asarray(1e-3 if steps is None else steps, np.float64), (len(names),))
    if point.shape != (len(names),):
        message = f"theta: expected shape ({len(names)},), got {point.shape}"
        raise ShapeError(message)
    shifts = np.diag(h)
    around = point + np.concatenate([shifts, -shifts, 0.5 * shifts, -0.5 * shifts])
    values, slopes = likelihood.value_and_gradient(around)
    if not np.isfinite(values).all():
        message = f"expected a positive likelihood around {point.tolist()}, got none beside it"
        raise IntervalError(message)
    above, below, half_above, half_below = slopes.reshape(4, len(names), len(names))
    wide, near = (above - below) / (2 * h[:, None]), (half_above - half_below) / h[:, None]
    curvature = (4 * near - wide) / 3
    return FisherInformation(names, -0.5 * (curvature + curvature.T))


def rate_information(rate: Rate, theta: ArrayLike) -> FisherInformation:
    r"""Return the information of a Poisson number of events, grad mu grad mu^T / mu.

    Args:
        rate: mu(theta), for instance `RateModel`.
        theta: (p,).

    Raises:
        IntervalError: the rate is not positive at theta.
    """
    mu, slope = rate.value_and_gradient(np.atleast_2d(np.asarray(theta, dtype=np.float64)))
    if not mu[0] > 0:
        message = f"rate: expected a positive one, got {mu[0]:g} at {np.asarray(theta).tolist()}"
        raise IntervalError(message)
    return FisherInformation(tuple(rate.parameter_names), np.outer(slope[0], slope[0]) / mu[0])


def learned_scores(
    surrogate: EncodedLikelihood, x: Array, theta: ArrayLike, chunk_rows: int = 4096
) -> Array:
    """Return grad_theta of the learned log p(x_i|theta) of every event, (N, p).

    Args:
        surrogate: the learned likelihood, physical units in.
        x: simulated events at theta, or with weights that make them so, (N, n).
        theta: (p,).
        chunk_rows: events per call.
    """
    with torch.no_grad():
        latents = surrogate.encode(x)
    point = torch.tensor(np.asarray(theta), dtype=latents.dtype, device=latents.device)
    scores = []
    for start in range(0, len(latents), chunk_rows):
        u = latents[start : start + chunk_rows]
        rows = point.expand(len(u), -1).clone().requires_grad_()
        with torch.enable_grad():
            total = surrogate.latent_log_likelihood(u, rows).sum()
        scores.append(torch.autograd.grad(total, rows)[0].double().cpu().numpy())
    return np.concatenate(scores)


def learned_curvatures(
    surrogate: EncodedLikelihood, x: Array, theta: ArrayLike, steps: ArrayLike
) -> Array:
    """Return the second derivatives of the learned log p(x_i|theta) of every event, (N, p, p).

    Central differences of the scores.

    Args:
        surrogate: the learned likelihood, physical units in.
        x: events, (N, n).
        theta: (p,).
        steps: of the differences, (p,), large enough for single precision.
    """
    point, h = np.asarray(theta, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    shifts = np.diag(np.broadcast_to(h, point.shape))
    rows = [
        (learned_scores(surrogate, x, point + shift) - learned_scores(surrogate, x, point - shift))
        / (2 * shift.sum())
        for shift in shifts
    ]
    curvatures = np.stack(rows, axis=1)
    return 0.5 * (curvatures + curvatures.swapaxes(1, 2))
