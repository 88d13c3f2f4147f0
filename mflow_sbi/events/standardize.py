"""Affine maps to zero mean and unit variance, fitted on the training part only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, MetadataError, ShapeError
from mflow_sbi.events.wording import counted, listed
from mflow_sbi.interfaces import Array

__all__ = ["Standardizer"]

_SMALLEST_RELATIVE_SPREAD = 1e-12


@dataclass(frozen=True, eq=False)
class Standardizer:
    """z = (x - mean) / std, column by column.

    Attributes:
        mean: Means of the columns, (n,).
        std: Standard deviations, (n,), positive.

    Raises:
        ShapeError: mean and std are not two vectors of one length.
        EventDataError: A mean or std is not finite, or a std is not positive.

    >>> s = Standardizer.fit([[1.0, 10.0], [3.0, 30.0]])
    >>> s.transform([[1.0, 30.0]])
    array([[-1.,  1.]])
    """

    mean: Array
    std: Array

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            msg = (
                "Standardizer: expected mean and std of one shape (n,); "
                f"got {self.mean.shape} and {self.std.shape}."
            )
            raise ShapeError(msg)
        if not (
            np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()
        ):
            msg = "Standardizer: expected finite means and positive finite standard deviations."
            raise EventDataError(msg)

    @classmethod
    def fit(
        cls,
        x: ArrayLike,
        weight: ArrayLike | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> "Standardizer":
        """Return mean_k = sum_i w_i x_ik / sum_i w_i and std_k = sqrt of the weighted variance.

        Args:
            x: Training events, (N, n), N >= 2.
            weight: Event weights, (N,); equal if left out.
            names: Names of the columns, for messages.

        Raises:
            ShapeError: x is not (N, n) or the weights are not (N,).
            EventDataError: Non-finite values, fewer than 2 events, or columns that do not vary.
        """
        x = np.asarray(x, dtype=np.float64)
        w = None if weight is None else np.asarray(weight, dtype=np.float64)
        if x.ndim != 2 or (w is not None and w.shape != x.shape[:1]):
            msg = (
                "Standardizer.fit: expected x (N, n) and weights (N,); "
                f"got {x.shape} and {None if w is None else w.shape}."
            )
            raise ShapeError(msg)
        labels = list(names if names is not None else (f"column {k}" for k in range(x.shape[1])))
        if len(labels) != x.shape[1]:
            msg = f"Standardizer.fit: expected {x.shape[1]} names; got {len(labels)}."
            raise ShapeError(msg)
        if len(x) < 2:
            msg = f"Standardizer.fit: expected at least 2 events; got {counted(len(x), 'event')}."
            raise EventDataError(msg)
        bad = np.logical_not(np.isfinite(x).all(axis=0))
        if bad.any() or (w is not None and not (np.isfinite(w).all() and (w > 0).all())):
            what = (
                listed(compress(labels, bad)) if bad.any() else "the weights (expected positive)"
            )
            msg = f"Standardizer.fit: values that are not finite in {what}."
            raise EventDataError(msg)
        mean = np.average(x, axis=0, weights=w)
        std = np.sqrt(np.average(np.square(x - mean), axis=0, weights=w))
        flat = std <= _SMALLEST_RELATIVE_SPREAD * np.abs(x).max(axis=0)
        if flat.any():
            msg = (
                f"Standardizer.fit: {listed(compress(labels, flat))} does not vary over "
                f"{counted(len(x), 'event')}; expected observables that do. Leave it out of the "
                "observables."
            )
            raise EventDataError(msg)
        return cls(mean, std)

    def transform(self, x: ArrayLike) -> Array:
        """Return (x - mean) / std, (..., n)."""
        return (self._checked(x) - self.mean) / self.std

    def inverse(self, z: ArrayLike) -> Array:
        """Return z std + mean, (..., n)."""
        return self._checked(z) * self.std + self.mean

    def _checked(self, x: ArrayLike) -> Array:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != len(self.mean):
            msg = f"Standardizer: expected (..., {len(self.mean)}) values; got shape {x.shape}."
            raise ShapeError(msg)
        return x

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists, exact under JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Standardizer":
        """Return the standardizer written by `to_dict`.

        Raises:
            MetadataError: Other keys than mean and std, or values that are not lists of numbers.
        """
        if set(record) != {"mean", "std"}:
            msg = f"standardizer: expected the keys 'mean' and 'std'; got {listed(record)}."
            raise MetadataError(msg)
        try:
            return cls(record["mean"], record["std"])
        except (TypeError, ValueError, ShapeError, EventDataError) as error:
            msg = f"standardizer: expected two lists of numbers of one length; {error}"
            raise MetadataError(msg) from error
