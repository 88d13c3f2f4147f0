"""The monomials of polynomial morphing, and what they make of parameter points."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["MorphingBasis"]


@dataclass(frozen=True, eq=False)
class MorphingBasis:
    """The monomials w_k(theta) = prod_j theta_j^{e_kj}.

    Attributes:
        exponents: Powers e_kj, (K, p) integers >= 0, every row once.

    Raises:
        ShapeError: The exponents are not K different rows of p integers >= 0.

    >>> basis = MorphingBasis([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]])
    >>> basis.weights([[2.0, 3.0]])
    array([[1., 2., 3., 4., 6., 9.]])
    """

    exponents: NDArray[np.int64]

    def __post_init__(self) -> None:
        given = np.asarray(self.exponents)
        whole = given.ndim == 2 and given.size > 0 and np.array_equal(given, np.round(given))
        if not whole or given.min() < 0 or len(np.unique(given, axis=0)) < len(given):
            msg = (
                "MorphingBasis: expected exponents (K, p), K different rows of integers >= 0; "
                f"got {given.tolist()}."
            )
            raise ShapeError(msg)
        object.__setattr__(self, "exponents", given.astype(np.int64))

    @classmethod
    def of_degree(
        cls,
        n_parameters: int,
        max_degree: int,
        per_parameter_max: int | Sequence[int] | None = None,
    ) -> "MorphingBasis":
        """Return all monomials of p parameters up to a total degree, lower degrees first.

        An amplitude with one insertion of an operator gives densities of degree 2, one with two
        insertions (production and decay) densities of degree 4.

        Args:
            n_parameters: p.
            max_degree: Largest sum_j e_kj.
            per_parameter_max: Largest e_kj, one for all or one for each parameter.

        Raises:
            ShapeError: p < 1, or degrees that are not whole numbers >= 0, p of them.

        >>> MorphingBasis.of_degree(2, 2).exponents.tolist()
        [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]
        >>> MorphingBasis.of_degree(2, 4, per_parameter_max=(1, 2)).n_components
        6
        """
        top = max_degree if per_parameter_max is None else per_parameter_max
        tops = [top] * n_parameters if isinstance(top, int) else list(top)
        if n_parameters < 1 or len(tops) != n_parameters or min(max_degree, *tops) < 0:
            msg = (
                "MorphingBasis.of_degree: expected p >= 1 parameters and degrees >= 0, one or p "
                f"per parameter; got p={n_parameters}, degree {max_degree}, of each {tops}."
            )
            raise ShapeError(msg)
        rows = product(*(range(min(t, max_degree) + 1) for t in tops))
        within = [row for row in rows if sum(row) <= max_degree]
        return cls(np.array(sorted(within, key=lambda e: (sum(e), [-power for power in e]))))

    def monomial_names(self, parameter_names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return how the monomials are written, K names.

        >>> MorphingBasis.of_degree(2, 2).monomial_names(["a", "b"])
        ('1', 'a', 'b', 'a^2', 'a b', 'b^2')
        """
        names = parameter_names or [f"theta_{j}" for j in range(self.parameter_dim)]
        return tuple(
            " ".join(n if e == 1 else f"{n}^{e}" for n, e in zip(names, row, strict=True) if e)
            or "1"
            for row in self.exponents
        )

    @property
    def n_components(self) -> int:
        """K, the number of monomials."""
        return self.exponents.shape[0]

    @property
    def parameter_dim(self) -> int:
        """p, the number of parameters."""
        return self.exponents.shape[1]

    def weights(self, theta: ArrayLike) -> Array:
        """Return w_k(theta), (M, p) -> (M, K)."""
        points = self.points(theta)
        return np.prod(points[:, None, :] ** self.exponents, axis=2)

    def gradient(self, theta: ArrayLike) -> Array:
        """Return dw_k / dtheta_j, (M, p) -> (M, K, p)."""
        points = self.points(theta)
        powers = points[:, None, :] ** self.exponents
        lowered = self.exponents * points[:, None, :] ** np.maximum(self.exponents - 1, 0)
        gradient = np.empty((len(points), *self.exponents.shape))
        for j in range(self.parameter_dim):
            others = np.delete(powers, j, axis=2)
            gradient[:, :, j] = lowered[:, :, j] * np.prod(others, axis=2)
        return gradient

    def points(self, theta: ArrayLike) -> Array:
        """Return theta as finite numbers of shape (M, p).

        Raises:
            ShapeError: Another shape.
            ParameterRangeError: NaN or infinite parameters.
        """
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.parameter_dim:
            msg = f"theta: expected shape (M, {self.parameter_dim}); got {points.shape}."
            raise ShapeError(msg)
        if not np.isfinite(points).all():
            msg = "theta: expected finite parameters; got NaN or infinite ones."
            raise ParameterRangeError(msg)
        return points

    def columns(self, name: str, values: ArrayLike, ndim: int) -> Array:
        """Return values as finite numbers whose last axis, of `ndim`, is that of the monomials.

        Raises:
            ShapeError: Another shape; the message says `name`.
            EventDataError: NaN or infinite numbers.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != ndim or array.shape[-1] != self.n_components:
            shape = f"({'N, ' * (ndim - 1)}{self.n_components}{',' * (ndim == 1)})"
            msg = f"{name}: expected shape {shape}; got {array.shape}."
            raise ShapeError(msg)
        if not np.isfinite(array).all():
            msg = f"{name}: expected finite numbers; got NaN or infinite ones."
            raise EventDataError(msg)
        return array
