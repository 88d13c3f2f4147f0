"""What priors promise beyond `interfaces.Prior`, and how their fields are checked."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Array, DifferentiablePrior

__all__ = [
    "HasSupport",
    "RecordedPrior",
    "as_floats",
    "as_limits",
    "as_parameter_names",
    "as_positive_floats",
    "fields_of",
    "limits_to_list",
    "support_of",
]


@runtime_checkable
class RecordedPrior(DifferentiablePrior, Protocol):
    """A prior that can be written down and knows a box holding (nearly) all of its mass."""

    def box(self) -> Array:
        """Return lowest and highest value of each parameter, (p, 2)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as plain JSON-ready values."""
        ...


@runtime_checkable
class HasSupport(Protocol):
    """A prior that knows where it is positive."""

    def support(self) -> Array:
        """Return the open box on which the density is positive, (p, 2); -+inf without an end."""
        ...


def support_of(prior: RecordedPrior) -> Array:
    """Return where a prior is positive, (p, 2): its support, or its box if it knows none."""
    return prior.support() if isinstance(prior, HasSupport) else prior.box()


def as_parameter_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parameter names as a tuple of distinct strings, at least one.

    Raises:
        ConfigurationError: anything else.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        message = f"prior parameter_names: expected a list of at least one name, got {names!r}"
        raise ConfigurationError(message)
    if len(set(names)) != len(names):
        message = f"prior parameter_names: expected distinct names, got {list(names)}"
        raise ConfigurationError(message)
    return tuple(names)


def as_floats(name: str, values: Sequence[float], expected: int) -> tuple[float, ...]:
    """Return finite floats, one per parameter, or say which field is wrong.

    Raises:
        ConfigurationError: not so many numbers, or one that is not finite.
    """
    floats = _as_numbers(name, values, expected)
    if not np.all(np.isfinite(floats)):
        message = f"prior {name}: expected finite numbers, got {floats}"
        raise ConfigurationError(message)
    return floats


def as_positive_floats(name: str, values: Sequence[float], expected: int) -> tuple[float, ...]:
    """Return positive finite floats, one per parameter, or say which field is wrong.

    Raises:
        ConfigurationError: not so many numbers, or one that is not positive and finite.
    """
    floats = as_floats(name, values, expected)
    if min(floats) <= 0:
        message = f"prior {name}: expected positive numbers, got {floats}"
        raise ConfigurationError(message)
    return floats


def as_limits(
    low: Sequence[float | None], high: Sequence[float | None], names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return lower and upper limits of each parameter; None and -+inf stand for no limit.

    Raises:
        ConfigurationError: not so many numbers, NaN, or an empty interval.
    """
    ends = [
        _as_numbers(what, [end if value is None else value for value in values], len(names))
        for what, values, end in (("low", low, -np.inf), ("high", high, np.inf))
    ]
    for name, below, above in zip(names, *ends, strict=True):
        if not below < above:
            message = f"prior limits of {name}: expected low < high, got [{below}, {above}]"
            raise ConfigurationError(message)
    return ends[0], ends[1]


def limits_to_list(limits: Sequence[float]) -> list[float | None]:
    """Return limits as JSON values, None for no limit."""
    return [limit if np.isfinite(limit) else None for limit in limits]


def fields_of(record: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return exactly the named fields of a record of the given kind.

    Raises:
        ConfigurationError: another kind, missing or unknown fields.
    """
    expected = {"kind", *names}
    if record.get("kind") != kind or set(record) != expected:
        message = f"prior: expected kind {kind!r} with {sorted(expected)}, got {dict(record)}"
        raise ConfigurationError(message)
    return {name: record[name] for name in names}


def _as_numbers(name: str, values: Sequence[float], expected: int) -> tuple[float, ...]:
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        message = f"prior {name}: expected {expected} numbers, got {values!r}"
        raise ConfigurationError(message) from error
    if len(floats) != expected:
        message = (
            f"prior {name}: expected one number per parameter ({expected}), got {len(floats)}"
        )
        raise ConfigurationError(message)
    return floats
