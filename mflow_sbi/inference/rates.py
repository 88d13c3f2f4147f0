r"""Expected numbers of events as functions of named parameters, with slopes.

    mu(theta) = L * 1000 fb/pb * sigma(theta) * efficiency * factors

L in fb^-1, sigma in pb.  Everything here is a `Rate`: a number for every parameter point, and its
gradient in closed form.  A nuisance parameter nu of a rate is one more factor of it; the
constraint of nu is a `constraint_terms.GaussianConstraint`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.naming import Columns, as_names, merged_units
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array

__all__ = [
    "FB_PER_PB",
    "FixedYield",
    "FreeYield",
    "LinearFactor",
    "LogNormalFactor",
    "ProductRate",
    "Rate",
    "RateModel",
    "RemainingFraction",
]

FB_PER_PB = 1000.0


@runtime_checkable
class Rate(Protocol):
    """A number of events, a cross section, or a factor of one, at every parameter point."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters, perhaps none."""
        ...

    def __call__(self, theta: Array) -> Array:
        """Return mu(theta), (M, p) -> (M,)."""
        ...

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return mu(theta) and its gradient, (M, p) -> (M,), (M, p)."""
        ...


@dataclass(frozen=True)
class FixedYield:
    """mu, the same everywhere.

    Args:
        value: expected number of events, or a factor, >= 0.

    Raises:
        ConfigurationError: a negative or non-finite number.
    """

    value: float
    parameter_names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.value < np.inf:
            message = f"yield: expected a finite number >= 0, got {self.value}"
            raise ConfigurationError(message)

    def __call__(self, theta: Array) -> Array:
        """Return mu, (M, 0) -> (M,)."""
        return np.full(len(as_points(theta, 0)), float(self.value))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return mu and no slopes, (M, 0) -> (M,), (M, 0)."""
        return self(theta), np.zeros((len(theta), 0))


class _OneParameter(ABC):
    """A rate of one parameter, which is a pure number."""

    name: str

    @abstractmethod
    def _value_and_slope(self, nu: Array) -> tuple[Array, Array]:
        """Return the rate and its slope, (M,) -> (M,), (M,)."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """The one name."""
        return (self.name,)

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """The one unit."""
        return {self.name: "1"}

    def __call__(self, theta: Array) -> Array:
        """Return the rate, (M, 1) -> (M,)."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return the rate and its slope, (M, 1) -> (M,), (M, 1)."""
        value, slope = self._value_and_slope(as_points(theta, 1)[:, 0])
        return value, slope[:, None]


@dataclass(frozen=True)
class FreeYield(_OneParameter):
    """mu = theta: an expected number of events, a signal strength or a fraction as a parameter.

    Likelihoods vanish where it is negative.

    Args:
        name: of the parameter.
    """

    name: str

    def _value_and_slope(self, nu: Array) -> tuple[Array, Array]:
        return nu.copy(), np.ones_like(nu)


@dataclass(frozen=True)
class LogNormalFactor(_OneParameter):
    r"""kappa^nu: a rate known within a factor kappa, nu in standard deviations of its logarithm.

    Args:
        name: of the nuisance nu.
        kappa: 1.05 for 5%; positive, not one.

    Raises:
        ConfigurationError: an impossible kappa.

    Example:
        >>> LogNormalFactor("luminosity", 1.02)(np.array([[0.0], [1.0]]))
        array([1.  , 1.02])
    """

    name: str
    kappa: float

    def __post_init__(self) -> None:
        if not 0 < self.kappa < np.inf or self.kappa == 1:
            message = (
                f"kappa of {self.name}: expected a positive number other than one, got "
                f"{self.kappa}; 1.05 stands for 5%"
            )
            raise ConfigurationError(message)

    def _value_and_slope(self, nu: Array) -> tuple[Array, Array]:
        value = self.kappa**nu
        return value, np.log(self.kappa) * value


@dataclass(frozen=True)
class LinearFactor(_OneParameter):
    """1 + delta nu: a rate known within a share delta; likelihoods vanish where it is negative.

    Args:
        name: of the nuisance nu.
        delta: 0.05 for 5%; finite, not zero.

    Raises:
        ConfigurationError: an impossible delta.
    """

    name: str
    delta: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.delta) or self.delta == 0:
            message = f"delta of {self.name}: expected a number other than zero, got {self.delta}"
            raise ConfigurationError(message)

    def _value_and_slope(self, nu: Array) -> tuple[Array, Array]:
        return 1 + self.delta * nu, np.full_like(nu, self.delta)


@dataclass(frozen=True)
class RemainingFraction:
    """1 - f_1 - ... - f_q: what other components leave of all events.

    Args:
        parameter_names: of the fractions f.

    Example:
        >>> RemainingFraction(("background",))(np.array([[0.1]]))
        array([0.9])
    """

    parameter_names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameter_names", as_names(self.parameter_names, "fractions"))

    def __call__(self, theta: Array) -> Array:
        """Return 1 - sum f, (M, q) -> (M,)."""
        return 1 - as_points(theta, len(self.parameter_names)).sum(axis=1)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return 1 - sum f and its slopes, (M, q) -> (M,), (M, q)."""
        return self(theta), -np.ones_like(as_points(theta, len(self.parameter_names)))


class ProductRate:
    r"""prod_k mu_k(theta), every factor of its own parameters.

    Args:
        factors: at least one; no two of them share a parameter.

    Raises:
        ConfigurationError: no factors, or a parameter of two factors; units that disagree.

    Example:
        >>> rate = ProductRate((FixedYield(100.0), LogNormalFactor("luminosity", 1.02)))
        >>> rate.parameter_names, rate(np.array([[1.0]]))
        (('luminosity',), array([102.]))
    """

    def __init__(self, factors: Sequence[Rate]) -> None:
        if not factors:
            message = "product of rates: expected at least one factor, got none"
            raise ConfigurationError(message)
        self._factors = tuple(factors)
        names = tuple(name for factor in factors for name in factor.parameter_names)
        self._names = as_names(names, "factors of a rate")
        self._units = merged_units(factors)
        self._columns = tuple(Columns(factor.parameter_names, names) for factor in factors)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the parameters of all factors, in order."""
        return self._names

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, where known."""
        return self._units

    def __call__(self, theta: Array) -> Array:
        """Return the product, (M, p) -> (M,)."""
        points = as_points(theta, len(self._names))
        pairs = zip(self._factors, self._columns, strict=True)
        return np.prod([factor(columns.of(points)) for factor, columns in pairs], axis=0)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return the product and its gradient, (M, p) -> (M,), (M, p)."""
        points = as_points(theta, len(self._names))
        pairs = zip(self._factors, self._columns, strict=True)
        parts = [factor.value_and_gradient(columns.of(points)) for factor, columns in pairs]
        values = np.array([value for value, _ in parts])
        gradient = np.zeros_like(points)
        for k, ((_, slopes), columns) in enumerate(zip(parts, self._columns, strict=True)):
            others = np.delete(values, k, axis=0).prod(axis=0)
            columns.add(others[:, None] * slopes, gradient)
        return values.prod(axis=0), gradient


class RateModel(ProductRate):
    r"""mu(theta) = L * 1000 fb/pb * sigma(theta) * efficiency * factors.

    Args:
        cross_section: sigma(theta), pb: a `CrossSection`, or an `UncertainCrossSection`, whose
            Monte Carlo error is a nuisance.
        luminosity: integrated luminosity L, fb^-1.
        efficiency: share of the events of the cross section that are selected and recorded, times
            branching ratios, in (0, 1]; the same at every theta.
        factors: more rates of this one's size: `LogNormalFactor`, `LinearFactor`, `FreeYield` as
            signal strength, `FixedYield` as K factor.

    Raises:
        ConfigurationError: a luminosity that is not positive, an efficiency outside (0, 1], or a
            parameter of two factors.
        ParameterRangeError: when called where the cross section is not positive.
    """

    def __init__(
        self,
        cross_section: Rate,
        luminosity: float,
        efficiency: float = 1.0,
        factors: Sequence[Rate] = (),
    ) -> None:
        if not 0 < luminosity < np.inf:
            message = f"luminosity: expected a positive number of fb^-1, got {luminosity}"
            raise ConfigurationError(message)
        if not 0 < efficiency <= 1:
            message = f"efficiency: expected a share in (0, 1], got {efficiency}"
            raise ConfigurationError(message)
        self._parts = (cross_section, efficiency, tuple(factors))
        scale = FixedYield(luminosity * FB_PER_PB * efficiency)
        super().__init__((scale, cross_section, *factors))

    def at_luminosity(self, luminosity: float) -> "RateModel":
        """Return the same rate at another integrated luminosity, fb^-1."""
        cross_section, efficiency, factors = self._parts
        return RateModel(cross_section, luminosity, efficiency, factors)
