r"""The cross section of an event file as a function of the parameters, with its error.

    sigma(theta) = sum_k w_k(theta) C_k,    w_k(theta) = prod_j theta_j^{e_kj},

in pb, before any selection but the simulator's own cuts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mflow_sbi.errors import ConfigurationError, MissingReference, ShapeError
from mflow_sbi.events import EventMetadata
from mflow_sbi.inference.naming import as_names
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section

__all__ = ["CrossSection", "UncertainCrossSection"]


class CrossSection:
    r"""sigma(theta) = sum_k w_k(theta) C_k in pb, with its Monte Carlo error.

    err(theta)^2 = sum_k w_k(theta)^2 err_k^2: files carry the errors of the C_k without their
    correlations, which are taken as zero.

    Args:
        parameter_names: the p names.
        basis: exponents of the monomials w_k(theta).
        coefficients: C_k, (K,), pb.
        errors: Monte Carlo errors of C_k, (K,), pb; none by default.
        parameter_units: unit of each parameter by name, where known.

    Raises:
        ShapeError: names, coefficients or errors that do not fit the basis.
        ConfigurationError: coefficients or errors that are not finite, or a negative error.
        ParameterRangeError: when called at a theta where sigma is not positive.

    Example:
        >>> basis = MorphingBasis([[0], [1], [2]])
        >>> sigma = CrossSection(("c",), basis, np.array([1.0, 0.5, 0.25]), np.full(3, 0.01))
        >>> sigma(np.array([[0.0], [2.0]]))
        array([1., 3.])
        >>> sigma.error(np.array([[0.0], [2.0]])).round(4)
        array([0.01  , 0.0458])
    """

    def __init__(
        self,
        parameter_names: Sequence[str],
        basis: MorphingBasis,
        coefficients: Array,
        errors: Array | None = None,
        parameter_units: Mapping[str, str] | None = None,
    ) -> None:
        self._names = as_names(parameter_names, "cross section")
        self._units = dict(parameter_units or {})
        self._basis = basis
        self._c = np.asarray(coefficients, dtype=np.float64)
        given = np.zeros_like(self._c) if errors is None else errors
        self._variances = np.square(np.asarray(given, dtype=np.float64))
        shapes = {(basis.n_components,), self._c.shape, self._variances.shape}
        if len(self._names) != basis.parameter_dim or len(shapes) > 1:
            message = (
                f"cross section: expected {basis.parameter_dim} names and {basis.n_components} "
                f"coefficients and errors, got {list(self._names)}, {self._c.shape} and "
                f"{self._variances.shape}"
            )
            raise ShapeError(message)
        if not np.isfinite([self._c, self._variances]).all() or np.min(given) < 0:
            message = (
                f"cross section: expected finite coefficients and errors >= 0, got "
                f"{self._c.tolist()} and {np.asarray(given).tolist()}"
            )
            raise ConfigurationError(message)

    @classmethod
    def from_metadata(cls, metadata: EventMetadata) -> "CrossSection":
        """Return the cross section of an event file's process, with errors, names and units.

        Raises:
            MissingReference: the file carries no morphing polynomial.
        """
        morphing = metadata.morphing
        if morphing is None:
            message = (
                f"the file of process {metadata.process!r} carries no morphing polynomial, "
                "expected one for the cross section; use a file that has it, or shape only"
            )
            raise MissingReference(message)
        return cls(
            metadata.parameter_names,
            MorphingBasis(np.array(morphing.exponents)),
            np.array(morphing.cross_section),
            np.array(morphing.cross_section_error),
            {parameter.name: parameter.unit for parameter in metadata.parameters},
        )

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where known."""
        return self._units

    def __call__(self, theta: Array) -> Array:
        """Return sigma(theta), pb, (M, p) -> (M,)."""
        return total_cross_section(self._basis, self._c, as_points(theta, len(self._names)))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return sigma(theta) and its gradient, pb, (M, p) -> (M,), (M, p)."""
        return self(theta), np.einsum("mkp,k->mp", self._basis.gradient(theta), self._c)

    def error(self, theta: Array) -> Array:
        """Return the Monte Carlo error of sigma(theta), pb, (M, p) -> (M,)."""
        weights = self._basis.weights(as_points(theta, len(self._names)))
        return np.sqrt(np.square(weights) @ self._variances)

    def error_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return err(theta) = [sum_k w_k^2 err_k^2]^1/2 and its gradient, (M,), (M, p)."""
        weights = self._basis.weights(as_points(theta, len(self._names)))
        errors = np.sqrt(np.square(weights) @ self._variances)
        slopes = np.einsum(
            "mkp,mk->mp", self._basis.gradient(theta), weights * self._variances, optimize=True
        )
        return errors, slopes / np.where(errors > 0, errors, 1.0)[:, None]


class UncertainCrossSection:
    r"""sigma(theta) exp[nu err(theta) / sigma(theta)]: the Monte Carlo error as a nuisance.

    nu is in standard deviations of the cross section and wants a unit normal constraint; to first
    order this is sigma + nu err.

    Args:
        cross_section: sigma(theta) and err(theta), pb.
        name: of the nuisance parameter nu.

    Raises:
        ConfigurationError: the name is a parameter of the cross section already.
    """

    def __init__(self, cross_section: CrossSection, name: str) -> None:
        self._sigma = cross_section
        self._names = as_names((*cross_section.parameter_names, name), "cross section")

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the parameters of the cross section, then of the nuisance."""
        return self._names

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where known."""
        return {**self._sigma.parameter_units, self._names[-1]: "1"}

    def __call__(self, theta: Array) -> Array:
        """Return sigma exp(nu err / sigma), pb, (M, p + 1) -> (M,)."""
        points = as_points(theta, len(self._names))
        sigma, error = self._sigma(points[:, :-1]), self._sigma.error(points[:, :-1])
        return sigma * np.exp(points[:, -1] * error / sigma)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return sigma exp(nu err / sigma) and its gradient, pb, (M,), (M, p + 1)."""
        points = as_points(theta, len(self._names))
        nu = points[:, -1]
        sigma, d_sigma = self._sigma.value_and_gradient(points[:, :-1])
        error, d_error = self._sigma.error_and_gradient(points[:, :-1])
        share = error / sigma
        values = sigma * np.exp(nu * share)
        d_share = (d_error - share[:, None] * d_sigma) / sigma[:, None]
        slopes = d_sigma / sigma[:, None] + nu[:, None] * d_share
        return values, values[:, None] * np.column_stack([slopes, share])
