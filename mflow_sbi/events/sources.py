"""Files, and the parameters at which a file that does not say so was generated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from mflow_sbi.errors import MetadataError
from mflow_sbi.events.paths import Paths, require_distinct, resolve_paths

__all__ = ["EventSource", "PlacedFile", "Sources", "Theta", "as_point", "resolve_sources"]

Theta: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class EventSource:
    """Files whose events were all generated at one parameter point.

    Attributes:
        path: A file, or a pattern.
        theta: The point, by the names of the parameters; None where the files say it themselves.

    >>> EventSource("eft_*.root", theta={"CWL2": 0.5, "CPWL2": 0.0}).path
    'eft_*.root'
    """

    path: str | PathLike[str]
    theta: Theta | None = field(default=None)


Sources: TypeAlias = Paths | EventSource | Sequence[str | PathLike[str] | EventSource]
PlacedFile: TypeAlias = tuple[Path, tuple[tuple[str, float], ...] | None]


def as_point(theta: Theta | None) -> tuple[tuple[str, float], ...] | None:
    """Return a parameter point as (name, value) pairs.

    Raises:
        MetadataError: No names, or values that are not finite numbers.

    >>> as_point({"mu": 1})
    (('mu', 1.0),)
    """
    if theta is None:
        return None
    example = "theta={'CWL2': 0.5, 'CPWL2': 0.0}"
    if not isinstance(theta, Mapping) or not theta:
        msg = f"theta={theta!r}: expected a value for each parameter by name, e.g. {example}."
        raise MetadataError(msg)
    for name, value in theta.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(name, str) and number and math.isfinite(value)):
            msg = f"theta: {name!r}: {value!r}; expected one finite number a name, e.g. {example}."
            raise MetadataError(msg)
    return tuple((name, float(value)) for name, value in theta.items())


def resolve_sources(path: Sources, theta: Theta | None = None) -> list[PlacedFile]:
    """Return the files meant, each with the point of its events, if one is given.

    Points name their parameters in the order of the first one.

    Raises:
        EventFileError: As for `resolve_paths`.
        MetadataError: Points of different parameters, or a point for files that have one.
    """
    everywhere = as_point(theta)
    items = [path] if isinstance(path, str | PathLike | EventSource) else list(path)
    if not any(isinstance(item, EventSource) for item in items):
        return [(file, everywhere) for file in resolve_paths(path)]  # pyright: ignore[reportArgumentType]
    placed: list[PlacedFile] = []
    for item in items:
        source = item if isinstance(item, EventSource) else EventSource(item)
        point = as_point(source.theta)
        if point is not None and everywhere is not None:
            msg = f"{fspath(source.path)}: given theta twice, {point} and {everywhere}; give one."
            raise MetadataError(msg)
        point = everywhere if point is None else point
        placed.extend((file, point) for file in resolve_paths(source.path))
    require_distinct([file for file, _ in placed])
    return [(file, _in_order(file, point, placed[0][1])) for file, point in placed]


def _in_order(
    file: Path,
    point: tuple[tuple[str, float], ...] | None,
    first: tuple[tuple[str, float], ...] | None,
) -> tuple[tuple[str, float], ...] | None:
    names = None if first is None else [name for name, _ in first]
    if point is None or names is None:
        return point
    if sorted(names) != sorted(name for name, _ in point):
        msg = f"{file}: theta of {[name for name, _ in point]}, others of {names}; expected equal."
        raise MetadataError(msg)
    return tuple((name, dict(point)[name]) for name in names)
