"""The surfaces of `toy_surfaces.py`: densities, patches, architectures, and the bars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from toy_metrics import KnownDensity

from mflow_sbi.charts.specified import (
    Circle,
    PolynomialSurface,
    RingTorus,
    SpecifiedChart,
    Sphere,
)
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array
from simulators.manifolds import surfaces

__all__ = ["BARS", "TOYS", "Toy"]

KAPPA = ("--concentration", "60")


GRAPH = {"layers": 1, "hidden": 64, "blocks": 4, "coupling": "affine"}
"""One coupling after a linear map: a learned graph, all that a surface without folds needs."""


@dataclass(frozen=True)
class Toy:
    """A surface, its density, where events are kept, and the flow's architecture on it.

    Args:
        words: of the simulator's command line.
        known: the density.
        surface: the surface in closed form.
        chart: options of the invertible chart.
        noise: of the events, in every observable.
        degree: of the dictionary of constraints.
        side: the smallest x0, and the smallest hypot(x0, x1), of the events that are kept.
        kinds: what is measured on it.
        events: of the training, as a share of the size's.
        manifold: what else its manifold phase takes.
    """

    words: tuple[str, ...]
    known: KnownDensity
    surface: SpecifiedChart
    chart: Mapping[str, Any]
    noise: float = 0.0
    degree: int = 2
    side: tuple[float, float] = (-np.inf, 0.0)
    kinds: tuple[str, ...] = ("invertible", "implicit")
    events: float = 0.2
    manifold: Mapping[str, Any] = field(default_factory=dict)

    def keep(self, sample: EventSample) -> EventSample:
        """Return the events on the patch."""
        low, radius = self.side
        x = sample.x
        kept = (x[:, 0] > low) & (np.hypot(x[:, 0], x[:, 1]) > radius)
        return sample.take(np.flatnonzero(kept))

    def distance(self, x: Array) -> Array:
        """Return the distance of points to the surface, (N, n) -> (N,)."""
        events = torch.from_numpy(x)
        point = self.surface.decode(self.surface.encode(events))
        return torch.linalg.vector_norm(events - point, dim=-1).numpy()


def polynomial_toy() -> Toy:
    """Return the published polynomial surface."""
    known = surfaces.PolynomialSurface()
    surface = PolynomialSurface.from_numbers(known.coefficients, known.rotation)
    kinds = ("invertible", "implicit", "af")
    return Toy(("polynomial",), known, surface, GRAPH, kinds=kinds, events=1.0)


TOYS: Mapping[str, Toy] = {
    "polynomial": polynomial_toy(),
    "circle": Toy(
        ("circle",),
        surfaces.Sphere(1, 1.0),
        Circle(),
        {"layers": 6, "hidden": 64, "blocks": 2, "coupling": "affine"},
        noise=0.01,
        events=0.5,
        manifold={"epochs": 8},
    ),
    "arc": Toy(("circle", *KAPPA), surfaces.Sphere(1, 60.0), Circle(), GRAPH, side=(0.0, 0.0)),
    "sphere": Toy(("sphere", *KAPPA), surfaces.Sphere(2, 60.0), Sphere(2), GRAPH, side=(0.0, 0.0)),
    "torus": Toy(
        ("ring-torus", *KAPPA),
        surfaces.RingTorus(60.0),
        RingTorus(),
        GRAPH,
        degree=4,
        side=(0.0, surfaces.RingTorus.major),
    ),
}

BARS: Mapping[str, tuple[str, float]] = {
    "dist_invertible_polynomial": ("<=", 0.005),
    "re_invertible_polynomial": ("<=", 0.008),
    "mmd2_invertible_polynomial": ("<=", 0.02),
    "auc_invertible_polynomial": (">=", 0.985),
    "denoising_invertible_polynomial": ("<=", 0.15),
    "idempotence_invertible_polynomial": ("<=", 1e-4),
    "failed_invertible_polynomial": ("<=", 0),
    "refused_implicit_polynomial": (">=", 1),
    "automatic_implicit_polynomial": ("<=", 0),
    "dist_af_polynomial": ("<=", 0.009),
    "auc_af_polynomial": (">=", 0.98),
    "dist_invertible_circle": ("<=", 0.009),
    "kl_invertible_circle": ("<=", 0.05),
    "failed_invertible_circle": ("<=", 0),
    "refused_implicit_circle": (">=", 1),
    "automatic_implicit_circle": ("<=", 0),
    **{
        f"{metric}_{chart}_{patch}": bar
        for patch in ("arc", "sphere", "torus")
        for chart, limits in {
            "invertible": {"dist": 0.009, "kl": 0.05, "failed": 0},
            "implicit": {"dist": 1e-6, "re": 1e-6, "kl": 0.05, "idempotence": 1e-6, "failed": 0},
        }.items()
        for metric, limit in limits.items()
        for bar in [("<=", limit)]
    },
}
"""Systems published on the polynomial surface and the circle set the bars there; the patches take
those of the circle, and the implicit chart those of an exact surface."""
