"""What may enter a likelihood and what may leave it: finite events; numbers, or minus infinity."""

from collections.abc import Sequence

import numpy as np

from mflow_sbi.errors import EventDataError, LikelihoodError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = [
    "as_events",
    "checked_gradients",
    "checked_terms",
    "checked_values",
    "require_events",
]


def as_events(name: str, x: Array) -> Array:
    """Return events as (N, n) float64, at least one and all finite.

    Raises:
        ShapeError: another shape.
        EventDataError: no events, or non-finite observables.
    """
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2:
        message = f"{name}: expected shape (N, n), got {rows.shape}"
        raise ShapeError(message)
    require_events(name, rows)
    return rows


def require_events(name: str, rows: Array) -> None:
    """Refuse an empty set of events and non-finite numbers.

    Raises:
        EventDataError: no events, or an event with NaN or inf.
    """
    if len(rows) == 0:
        message = f"{name}: expected at least one observed event, got none"
        raise EventDataError(message)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        message = f"{name}: expected finite numbers, event {int(np.argmax(bad))} has NaN or inf"
        raise EventDataError(message)


def checked_values(
    values: Array, points: Array, names: Sequence[str], what: str = "log likelihood"
) -> Array:
    """Return the values (M,) at points (M, p); -inf is a likelihood, NaN and +inf are not.

    Raises:
        LikelihoodError: NaN or +inf; the message names the first such point.
    """
    good = values < np.inf
    if not good.all():
        first = int(np.argmin(good))
        message = (
            f"{what}: expected a number or -inf, got {values[first]} at "
            f"{_place(names, points[first])} ({int((~good).sum())} of {len(values)} points); "
            "check the surrogate's training there"
        )
        raise LikelihoodError(message)
    return values


def checked_terms(terms: Array, points: Array, names: Sequence[str]) -> Array:
    """Return the terms of N events (M, N) at points (M, p); NaN and +inf are refused.

    Raises:
        LikelihoodError: NaN or +inf; the message names the first such point.
    """
    worst = np.max(terms, axis=1, initial=-np.inf)
    checked_values(worst, points, names, "log likelihood of an event")
    return terms


def checked_gradients(
    gradients: Array, values: Array, points: Array, names: Sequence[str]
) -> Array:
    """Return the gradients (M, p), zero where the values are -inf and finite elsewhere.

    Raises:
        LikelihoodError: NaN or infinite gradient at a finite value; names the first such point.
    """
    gradients = np.where(np.isneginf(values)[:, None], 0.0, gradients)
    good = np.isfinite(gradients).all(axis=1)
    if not good.all():
        first = int(np.argmin(good))
        message = (
            f"gradient of the log likelihood: expected finite numbers, got "
            f"{gradients[first].tolist()} at {_place(names, points[first])} "
            f"({int((~good).sum())} of {len(gradients)} points); check the surrogate's "
            "training there"
        )
        raise LikelihoodError(message)
    return gradients


def _place(names: Sequence[str], point: Array) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in zip(names, point, strict=True))
