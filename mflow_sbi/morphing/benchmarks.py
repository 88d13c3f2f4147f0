r"""Components from weights at benchmark points: w_b(x) = sum_k W_bk c_k(x), W_bk = w_k(theta_b).

Simulators that reweight (MadGraph's `<rwgt>`, NanoAOD's `LHEReweightingWeight`) give every event
its weight at B points theta_b.  Where weights are polynomials in theta, K of them at points in
general position hold the weight at every theta (arXiv:1805.00013, section III; 1907.10621):

    c(x) = W^+ w(x),    W^+ the inverse of W, or where B > K the least-squares one.

Each parameter is measured in units of its largest benchmark, so that the condition number of W
does not depend on units; c_k is off by up to that number times the relative errors of the weights.
Where B > K the residuals w - W c show whether weights are such polynomials.

Shapes: B benchmarks, N events, K monomials, p parameters.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing.basis import MorphingBasis

__all__ = [
    "HIGH_CONDITION",
    "LARGEST_CONDITION",
    "LARGEST_MISFIT",
    "BenchmarkFit",
    "MorphingBenchmarks",
]

LARGEST_CONDITION = 1e8
"""Weights are stored with seven digits at best: beyond, components are rounding errors."""
HIGH_CONDITION = 1e4
"""From here on, weights of seven digits leave three in the components."""
LARGEST_MISFIT = 1e-3
"""Relative root mean square of residuals: NanoAOD rounds weights to 3e-5; a missing monomial that
matters leaves percents."""
_NULL = 1e-6  # share of a monomial in a direction that the benchmarks do not determine


@dataclass(frozen=True, eq=False)
class BenchmarkFit:
    """Components of events, and how well they give the weights back.

    Args:
        components: c_k(x_i) in units of the weights, (N, K).
        condition: of W.
        misfit: sqrt(sum_i r_ib^2 / sum_i w_ib^2), residuals r, at the worst benchmark; None where
            B = K and residuals vanish whatever the weights are.
    """

    components: Array
    condition: float
    misfit: float | None

    def __str__(self) -> str:
        """Return one sentence."""
        checked = (
            "as many benchmarks as monomials: nothing checks that weights are polynomials"
            if self.misfit is None
            else f"weights are such polynomials to {self.misfit:.1e}"
        )
        warned = ""
        if self.condition > HIGH_CONDITION:
            warned = f", which loses {np.log10(self.condition):.0f} digits of the weights"
        return f"morphing: condition number {self.condition:.3g}{warned}; {checked}"


@dataclass(frozen=True, eq=False)
class MorphingBenchmarks:
    """B parameter points at which every event has a weight.

    Args:
        basis: the monomials.
        theta: the points, (B, p), B >= K.

    Raises:
        ShapeError: fewer points than monomials, or of another number of parameters.
        ParameterRangeError: points that do not determine all monomials, or only with a condition
            number above `LARGEST_CONDITION`.

    >>> points = np.array([[-1.0], [0.0], [1.0]])
    >>> parabola = MorphingBenchmarks(MorphingBasis.of_degree(1, 2), points)
    >>> parabola.fit([[3.0, 1.0, 5.0]]).components.round(12).tolist()
    [[1.0, 1.0, 3.0]]
    """

    basis: MorphingBasis
    theta: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", self.basis.points(self.theta))
        names, n = self.basis.monomial_names(), len(self.theta)
        if n < len(names):
            msg = (
                f"benchmarks: {n} points cannot determine {len(names)} monomials "
                f"({', '.join(names)}); expected at least {len(names)}. Take weights at more "
                "points, or a lower degree."
            )
            raise ShapeError(msg)
        if self.undetermined:
            msg = (
                f"benchmarks: the {n} points do not determine the monomials "
                f"{', '.join(self.undetermined)}: some combination of these vanishes at all of "
                "them. Move points off that curve (suggest_benchmarks finds good ones), or leave "
                "monomials out."
            )
            raise ParameterRangeError(msg)
        if self.condition > LARGEST_CONDITION:
            msg = (
                f"benchmarks: condition number {self.condition:.2g} of the {n} points, expected "
                f"at most {LARGEST_CONDITION:.0e}: components would be rounding errors of the "
                "weights. Spread the points (suggest_benchmarks finds good ones)."
            )
            raise ParameterRangeError(msg)

    @cached_property
    def _scale(self) -> Array:
        """max_b |theta_bj|^e_kj, (K,), ones where a parameter is zero at all points."""
        reach = np.abs(self.theta).max(axis=0, initial=0.0)
        return self.basis.weights(np.where(reach > 0, reach, 1.0)[None])[0]

    @cached_property
    def _directions(self) -> tuple[Array, Array, Array]:
        """U (B, K), s (K,), V^T (K, K) of W in units of its columns."""
        matrix = self.basis.weights(self.theta) / self._scale
        return np.linalg.svd(matrix, full_matrices=False)

    @property
    def condition(self) -> float:
        """Largest over smallest singular value of W, each parameter in units of its reach."""
        _, sizes, _ = self._directions
        return float(sizes[0] / sizes[-1]) if sizes[-1] > 0 else float("inf")

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Names of the monomials with a part in what vanishes at all points."""
        _, sizes, rows = self._directions
        null = rows[sizes <= sizes[0] * np.finfo(np.float64).eps * len(self.theta)]
        parts = np.square(null).sum(axis=0)
        return tuple(
            name
            for name, part in zip(self.basis.monomial_names(), parts, strict=True)
            if part > _NULL
        )

    @cached_property
    def inverse(self) -> Array:
        """W^+, (K, B): components = weights @ W^+T."""
        left, sizes, rows = self._directions
        return (rows.T / sizes) @ left.T / self._scale[:, None]

    def morphing_weights(self, theta: ArrayLike) -> Array:
        """Return v_b(theta) with w(x|theta) = sum_b v_b(theta) w_b(x), (M, p) -> (M, B).

        sum_b v_b = 1 where the basis holds the constant; large ones of both signs are large
        errors (the squared sum is what `suggest_benchmarks` makes small).
        """
        return self.basis.weights(theta) @ self.inverse

    def fit(self, weights: ArrayLike, largest_misfit: float = LARGEST_MISFIT) -> BenchmarkFit:
        """Return the components of events from their weights at the benchmarks.

        Args:
            weights: w_b(x_i), of either sign, (N, B).
            largest_misfit: above it weights are refused as no polynomials.

        Raises:
            ShapeError: not as many weights as benchmarks.
            EventDataError: weights that are not finite, or no polynomials of this basis.
        """
        given = self._checked(weights)
        components = given @ self.inverse.T
        if len(self.theta) == self.basis.n_components:
            return BenchmarkFit(components, self.condition, None)
        left = components @ self.basis.weights(self.theta).T - given
        size = np.square(given).sum(axis=0)
        shares = np.sqrt(np.square(left).sum(axis=0) / np.where(size > 0, size, 1.0))
        misfit = float(shares.max(initial=0.0))
        if not misfit <= largest_misfit:
            names, worst = self.basis.monomial_names(), self.theta[int(shares.argmax())]
            msg = (
                f"benchmarks: the weights are no sums of {', '.join(names)}: at {worst.tolist()} "
                f"residuals are {misfit:.2g} of the weights, expected at most "
                f"{largest_misfit:.2g}. Check the order of weights and points, or take a higher "
                "degree (two insertions of an operator: 4)."
            )
            raise EventDataError(msg)
        return BenchmarkFit(components, self.condition, misfit)

    def _checked(self, weights: ArrayLike) -> Array:
        given = np.asarray(weights, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != len(self.theta):
            msg = (
                f"benchmarks: expected weights (N, {len(self.theta)}), one for each point; got "
                f"{given.shape}."
            )
            raise ShapeError(msg)
        bad = ~np.isfinite(given).all(axis=1)
        if bad.any():
            msg = (
                f"benchmarks: {int(bad.sum()):,} of {len(given):,} events have weights that are "
                f"not finite, the first is event {int(bad.argmax())}; expected numbers. Leave "
                "those events out."
            )
            raise EventDataError(msg)
        return given
