r"""Circuits of a surface: minimal sets of observables that depend on each other.

A constraint between few observables is a circuit of the tangent spaces: a minimal set of
observables whose differentials are linearly dependent.  Every basis of observables (d free ones)
gives one for each dependent observable; many bases, chosen by pivoted QR with random preferences,
give all the small ones.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import qr

from mflow_sbi.constraints.dictionary import Indices
from mflow_sbi.interfaces import Array

__all__ = ["Span", "conormal_within", "find_circuits", "pivots"]

_SUPPORT_LEVELS = (3e-2, 1e-3, 1e-4)


def pivots(matrix: Array) -> Indices:
    """Return the columns of a matrix (k, n) in the order of a pivoted QR, (n,)."""
    return np.asarray(qr(matrix, mode="r", pivoting=True)[-1], dtype=np.int64)


def find_circuits(
    conormals: Array, n_bases: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """Return sets of dependent observables, smallest first.

    Args:
        conormals: orthonormal gradients of the constraints at P points, (P, m, n).
        n_bases: number of bases tried.
        generator: of the random preferences among the observables.
    """
    n_points, m, n = conormals.shape
    found: set[tuple[int, ...]] = set()
    for k in range(n_bases):
        preference = np.exp(generator.uniform(0, 7, n))
        normal = conormals[k % n_points]
        # the m dependent observables are pivots of the conormals: normal[:, dependent] invertible
        dependent = pivots(normal * preference)[:m]
        free = np.setdiff1d(np.arange(n), dependent)
        chosen = [k % n_points, (k + 1) % n_points, (k + 2) % n_points]
        solved = np.abs(
            np.linalg.solve(conormals[chosen][:, :, dependent], conormals[chosen][:, :, free])
        ).max(axis=0)
        for level in _SUPPORT_LEVELS:
            for row, observable in zip(solved, dependent, strict=True):
                support = free[row > level * max(row.max(), 1.0)]
                found.add(tuple(sorted((int(observable), *map(int, support)))))
    return sorted(found, key=lambda circuit: (len(circuit), circuit))


def conormal_within(conormals: Array, circuit: Sequence[int]) -> Array:
    """Return the conormal closest to living on the circuit's observables alone, (P, n).

    Args:
        conormals: orthonormal gradients of the constraints at P points, (P, m, n).
        circuit: indices of observables.
    """
    outside = np.setdiff1d(np.arange(conormals.shape[2]), circuit)
    left, _, _ = np.linalg.svd(conormals[:, :, outside])
    return np.einsum("pk,pki->pi", left[:, :, -1], conormals)


class Span:
    """The space spanned by the gradients chosen so far, at each of P points."""

    def __init__(self, n_points: int, ambient_dim: int) -> None:
        self._basis = np.zeros((n_points, 0, ambient_dim))

    def gain(self, gradient: Array) -> float:
        """Return the part of a unit gradient outside the span, median over points."""
        return float(np.median(np.linalg.norm(self._outside(gradient), axis=-1)))

    def add(self, gradient: Array) -> None:
        """Add a gradient, (P, n)."""
        rest = self._outside(gradient)
        rest = rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-300)
        self._basis = np.concatenate([self._basis, rest[:, None]], axis=1)

    def _outside(self, gradient: Array) -> Array:
        size = np.linalg.norm(gradient, axis=1, keepdims=True)
        rest = gradient / np.maximum(size, 1e-300)
        for _ in range(2):  # twice is enough (Gram-Schmidt)
            along = np.einsum("pki,pi->pk", self._basis, rest)
            rest = rest - np.einsum("pk,pki->pi", along, self._basis)
        return rest
