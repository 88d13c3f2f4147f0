"""Parameters that several parts of one analysis share by name.

The parts keep their own columns; `Columns` finds them in the table of all parameters and adds
slopes back to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Array

__all__ = [
    "CarriesConstraints",
    "Columns",
    "HasUnits",
    "as_names",
    "constrained_names_of",
    "distinct",
    "merged_units",
    "union_of_names",
]


@runtime_checkable
class HasUnits(Protocol):
    """Anything that knows the units of its parameters."""

    @property
    def parameter_units(self) -> Mapping[str, str]:
        """Unit of each parameter by name, "1" for pure numbers; unknown ones are left out."""
        ...


@runtime_checkable
class CarriesConstraints(Protocol):
    """Anything that holds constraint terms of some of its parameters."""

    @property
    def constrained_names(self) -> Sequence[str]:
        """Names of the parameters whose constraint is inside."""
        ...


def constrained_names_of(part: object) -> tuple[str, ...]:
    """Return the names of the parameters whose constraint stands in a part."""
    return tuple(part.constrained_names) if isinstance(part, CarriesConstraints) else ()


def as_names(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Return parameter names as a tuple, which may be empty.

    Raises:
        ConfigurationError: one string instead of a list, something that is no name, or a name
            used twice.
    """
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        message = f"{what}: expected a list of names, got {names!r}"
        raise ConfigurationError(message)
    distinct(names, what)
    return tuple(names)


def distinct(names: Sequence[str], what: str) -> None:
    """Refuse a name that is used twice.

    Raises:
        ConfigurationError: the message lists such names.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        message = f"{what}: expected every name once, got {twice} more than once; rename one"
        raise ConfigurationError(message)


def union_of_names(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return all names in the order of their first appearance.

    >>> union_of_names([("CWL2", "CPWL2"), ("luminosity",), ("CPWL2", "CBL2")])
    ('CWL2', 'CPWL2', 'luminosity', 'CBL2')
    """
    return tuple(dict.fromkeys(name for names in parts for name in names))


def merged_units(parts: Iterable[object]) -> dict[str, str]:
    """Return the units that parts know, by name.

    Raises:
        ConfigurationError: two parts give one name different units.
    """
    units: dict[str, str] = {}
    for part in parts:
        for name, unit in (part.parameter_units if isinstance(part, HasUnits) else {}).items():
            if units.setdefault(name, unit) != unit:
                message = (
                    f"parameter {name}: expected one unit, got {units[name]!r} and {unit!r}; "
                    "parameters shared by name must mean the same"
                )
                raise ConfigurationError(message)
    return units


class Columns:
    """Where the q parameters of a part stand among all p.

    Args:
        own: names of the part.
        all_names: names of the table; holds every own name.

    Raises:
        ConfigurationError: a name that is not in the table.

    >>> columns = Columns(("b", "a"), ("a", "x", "b"))
    >>> columns.of(np.array([[1.0, 2.0, 3.0]]))
    array([[3., 1.]])
    """

    def __init__(self, own: Sequence[str], all_names: Sequence[str]) -> None:
        missing = [name for name in own if name not in all_names]
        if missing:
            message = f"unknown parameters {missing}; expected some of {list(all_names)}"
            raise ConfigurationError(message)
        places = [list(all_names).index(name) for name in own]
        self._places: NDArray[np.intp] = np.array(places, dtype=np.intp)

    def of(self, theta: Array) -> Array:
        """Return the part's parameters, (M, p) -> (M, q)."""
        return theta[:, self._places]

    def add(self, slopes: Array, to: Array) -> None:
        """Add slopes in the part's parameters (M, q) to those in all of them (M, p), in place."""
        to[:, self._places] += slopes
