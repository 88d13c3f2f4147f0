"""Independent priors of different kinds on different parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.naming import Columns, as_names, constrained_names_of
from mflow_sbi.inference.points import as_points
from mflow_sbi.inference.prior_fields import RecordedPrior, support_of
from mflow_sbi.interfaces import Array

__all__ = ["ProductPrior"]


class ProductPrior:
    """log p(theta) = sum of the log densities of the parts, each of its own parameters.

    Args:
        parts: priors; no two of them share a parameter.
        parameter_names: all names in the order wanted, that of the likelihood; by default that
            of the parts.

    Raises:
        ConfigurationError: no parts, a parameter of two parts, or an order of other names.

    Example:
        >>> from mflow_sbi.inference.priors import BoxPrior, NormalPrior
        >>> parts = NormalPrior(("c",), (0,), (1,)), BoxPrior(("b",), (0,), (10,))
        >>> prior = ProductPrior(parts, ("b", "c"))
        >>> prior.log_prob(np.array([[5.0, 0.0], [-5.0, 0.0]])).round(4)
        array([-3.2215,    -inf])
    """

    def __init__(
        self, parts: Sequence[RecordedPrior], parameter_names: Sequence[str] | None = None
    ) -> None:
        if not parts:
            message = "product of priors: expected at least one, got none"
            raise ConfigurationError(message)
        self._parts = tuple(parts)
        own = as_names([n for part in parts for n in part.parameter_names], "product of priors")
        names = own if parameter_names is None else as_names(parameter_names, "product of priors")
        if set(names) != set(own):
            message = (
                f"product of priors: expected an order of {list(own)}, got {list(names)}; every "
                "parameter needs one prior"
            )
            raise ConfigurationError(message)
        self._names = names
        self._columns = tuple(Columns(part.parameter_names, names) for part in parts)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._names

    @property
    def parts(self) -> tuple[RecordedPrior, ...]:
        """The factors."""
        return self._parts

    @property
    def constrained_names(self) -> Sequence[str]:
        """Names of the parameters whose constraint is a factor of this prior."""
        return tuple(name for part in self._parts for name in constrained_names_of(part))

    def log_prob(self, theta: Array) -> Array:
        """Return log p(theta), (M, p) -> (M,); -inf where a part vanishes."""
        points = as_points(theta, len(self._names))
        total = np.zeros(len(points))
        for part, columns in zip(self._parts, self._columns, strict=True):
            total += part.log_prob(columns.of(points))
        return total

    def gradient(self, theta: Array) -> Array:
        """Return the gradient of log p, (M, p) -> (M, p); zero outside the support."""
        points = as_points(theta, len(self._names))
        gradient = np.zeros_like(points)
        for part, columns in zip(self._parts, self._columns, strict=True):
            columns.add(part.gradient(columns.of(points)), gradient)
        gradient[np.isneginf(self.log_prob(points))] = 0.0
        return gradient

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n independent draws, (n, p); the parts draw in their order."""
        draws = np.zeros((n, len(self._names)))
        for part, columns in zip(self._parts, self._columns, strict=True):
            columns.add(part.sample(n, rng), draws)
        return draws

    def box(self) -> Array:
        """Return lowest and highest value of each parameter, (p, 2)."""
        return self._gathered([part.box() for part in self._parts])

    def support(self) -> Array:
        """Return where the density is positive, (p, 2)."""
        return self._gathered([support_of(part) for part in self._parts])

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "product", "parts": [...]} with the records of the parts."""
        return {
            "kind": "product",
            "parameter_names": list(self._names),
            "parts": [part.to_dict() for part in self._parts],
        }

    @classmethod
    def from_dict(
        cls, record: Mapping[str, Any], read: Callable[[Mapping[str, Any]], RecordedPrior]
    ) -> "ProductPrior":
        """Return the prior written by `to_dict`, its parts by `read`; the order may be left out.

        Raises:
            ConfigurationError: missing or unknown fields, or parts that `read` refuses.
        """
        if record.get("kind") != "product" or not {"parts"} <= set(record) <= {
            "kind",
            "parts",
            "parameter_names",
        }:
            message = (
                "prior: expected kind 'product' with parts and perhaps parameter_names, got "
                f"{dict(record)}"
            )
            raise ConfigurationError(message)
        parts = record["parts"]
        if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
            message = f"prior parts: expected a list of priors, got {parts!r}"
            raise ConfigurationError(message)
        return cls([read(part) for part in parts], record.get("parameter_names"))

    def __eq__(self, other: object) -> bool:
        """Return whether both are of equal parts in one order."""
        if not isinstance(other, ProductPrior):
            return NotImplemented
        return (self._names, self._parts) == (other._names, other._parts)

    __hash__ = None  # pyright: ignore[reportAssignmentType] (equal parts need not be hashable)

    def _gathered(self, boxes: Sequence[Array]) -> Array:
        rows = np.zeros((2, len(self._names)))
        for box, columns in zip(boxes, self._columns, strict=True):
            columns.add(box.T, rows)
        return rows.T
