"""Points on a surface as an event file: a flat TTree `events` and its JSON record.

Branches, all float64: the observables `x0 x1 ...`, `theta.theta`, `score.theta`, and
`log_density`, the exact log p(x|theta) with respect to the surface's volume.  With noise the
observables are off the surface; score and density stay those of the point before the noise.
The Lorenz attractor has neither.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from simulators import __version__
from simulators.file_format import FORMAT, FORMAT_VERSION, RECORD
from simulators.manifolds.lorenz import LorenzAttractor, TrajectoryPoints
from simulators.manifolds.surfaces import Surface

__all__ = ["TREE", "SurfacePoints", "draw_points", "metadata", "write_points"]

Array = NDArray[np.float64]
TREE = "events"


@dataclass(frozen=True)
class SurfacePoints:
    """Points drawn from a surface's density.

    Attributes:
        x: Observables, (N, n).
        theta: Parameter of each point, (N,).
        log_density: log p(x|theta) of the point before noise, (N,).
        score: Its derivative in theta, (N,).
    """

    x: Array
    theta: Array
    log_density: Array
    score: Array

    def columns(self) -> dict[str, Array]:
        """Return the branches of the file by name."""
        observables = {f"x{k}": np.ascontiguousarray(column) for k, column in enumerate(self.x.T)}
        truth = {"theta.theta": self.theta, "score.theta": self.score}
        return observables | truth | {"log_density": self.log_density}


def draw_points(
    surface: Surface, theta: Array, noise: float, rng: np.random.Generator
) -> SurfacePoints:
    """Return one point per theta, moved off the surface by N(0, noise^2) in every observable."""
    on_surface = surface.draw(theta, rng)
    return SurfacePoints(
        x=on_surface + noise * rng.standard_normal(on_surface.shape),
        theta=theta,
        log_density=surface.log_density(on_surface, theta),
        score=surface.score(on_surface, theta),
    )


def metadata(
    surface: Surface | LorenzAttractor,
    points: SurfacePoints | TrajectoryPoints,
    noise: float,
    *,
    seed: int,
    command: str,
    theta_sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of the file: which surface, which numbers, how theta was drawn."""
    n_events = len(points.theta)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "process": f"manifold_{surface.name.replace('-', '_')}",
        "tree": TREE,
        "layout": "flat",
        "parameters": [
            {
                "name": "theta",
                "low": float(points.theta.min()),
                "high": float(points.theta.max()),
            }
        ],
        "observables": [{"name": f"x{k}"} for k in range(surface.ambient_dim)],
        "simulator": {
            "name": surface.name,
            "version": __version__,
            "settings": {**surface.settings, "noise": noise},
        },
        "command": command,
        "seed": seed,
        "theta_sampling": dict(theta_sampling),
        "n_events": n_events,
        "sum_of_weights": float(n_events),
        "sum_of_weights_before_selection": float(n_events),
    }


def write_points(
    path: Path, points: SurfacePoints | TrajectoryPoints, record: Mapping[str, Any]
) -> None:
    """Write the points and their record to `path`; equal points give an equal UUID."""
    text = json.dumps(record)
    identity = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
    with uproot.recreate(path, uuid_function=lambda: identity) as file:
        columns = points.columns()
        tree = file.mktree(TREE, {name: column.dtype for name, column in columns.items()})
        tree.extend(columns)
        file[RECORD] = text
