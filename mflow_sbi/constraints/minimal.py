r"""A minimal set of sparse constraints: as many as the codimension, independent on the data.

First circuits of the linear constraints, then circuits of all of them, smallest first; then
combinations of least L1 norm.  Each must add to the span of the gradients and stand verification
on events not used before: |F| explained by the rounding of the observables, through its gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mflow_sbi.constraints.circuits import Span, conormal_within, find_circuits
from mflow_sbi.constraints.dictionary import Features
from mflow_sbi.constraints.nullspace import NullSpace
from mflow_sbi.constraints.sparse import (
    Polynomial,
    circuit_polynomial,
    nullspace_polynomials,
    prune,
)
from mflow_sbi.interfaces import Array

__all__ = ["Candidates"]

_MIN_GAIN = 0.02
_N_BASES = 150
_MAX_FAILURES = 150
_MAX_PRUNED = 300


@dataclass
class Candidates:
    """The search for a minimal set.

    Args:
        features: what polynomials are made of.
        fit: events to fit with, (N, n).
        weight: of them, (N,).
        fresh: events to verify with, (M, n).
        points: where gradients are compared, (P, n).
        precision: relative precision of the observables.
        threshold: on residuals, in units of the precision.
        seed: of the bases tried.
    """

    features: Features
    fit: Array
    weight: Array
    fresh: Array
    points: Array
    precision: float
    threshold: float
    seed: int
    chosen: list[Polynomial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._span = Span(len(self.points), self.features.ambient_dim)
        self._scale = np.asarray(self.features.spread)
        self._n_failures = 0

    def collect(self, normals: Array, target: int, degree: int) -> None:
        """Add polynomials of circuits until there are `target` constraints.

        Args:
            normals: orthonormal gradients at the points, (P, k, n).
            target: number of constraints wanted in all.
            degree: largest degree tried.
        """
        generator = np.random.default_rng(self.seed)
        self._n_failures = 0
        for circuit in find_circuits(normals, _N_BASES, generator):
            if len(self.chosen) >= target or self._n_failures >= _MAX_FAILURES:
                return
            whole = len(circuit) == self.features.ambient_dim
            if not whole and self._span.gain(conormal_within(normals, circuit)) < _MIN_GAIN:
                continue
            polynomial = circuit_polynomial(
                self.features,
                self.fit,
                circuit,
                degree,
                self.precision,
                self.threshold,
                self.weight,
            )
            self._n_failures += not (polynomial and self._accept(polynomial))

    def collect_combinations(self, space: NullSpace, target: int) -> None:
        """Add combinations of vanishing polynomials until there are `target` constraints."""
        null = space.below(self.threshold) / space.scale
        gradients = np.einsum(
            "kt,pti->kpi",
            null,
            self.features.gradients(self.points, space.monomials),
            optimize=True,
        )
        self._n_failures = 0
        while len(self.chosen) < target and len(null):
            gains = [self._span.gain(gradient * self._scale) for gradient in gradients]
            best = int(np.argmax(gains))
            if gains[best] < _MIN_GAIN or not self._accept_first(
                nullspace_polynomials(space, self.threshold, best)
            ):
                return

    def _accept_first(self, candidates: Iterator[Polynomial]) -> bool:
        for polynomial in candidates:
            if len(polynomial.monomials) <= _MAX_PRUNED:
                pruned = prune(
                    self.features, self.fit, polynomial.monomials, self.precision, self.weight
                )
                if self._accept(pruned):
                    return True
            if self._accept(polynomial):
                return True
        return False

    def _accept(self, polynomial: Polynomial) -> bool:
        """Add the polynomial if it stands verification and is independent of the chosen ones."""
        residual = polynomial.residual(self.features, self.fresh, self.precision)
        if np.quantile(residual, 0.99) > 2 * self.threshold:
            return False
        gradient = polynomial.gradients(self.features, self.points) * self._scale
        if self._span.gain(gradient) < _MIN_GAIN:
            return False
        self._span.add(gradient)
        self.chosen.append(polynomial)
        return True
