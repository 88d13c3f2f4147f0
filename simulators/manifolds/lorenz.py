r"""Points on trajectories of the Lorenz system, after they have reached its attractor.

    dx/dt = s (y - x),   dy/dt = x (r - z) - y,   dz/dt = x y - b z,   s = 10, r = 28, b = 8/3

The attractor is a fractal of dimension 2.06 (Kaplan-Yorke) in R^3: a surface of dimension 2 is an
approximation.  Nobody knows its density.  theta is a label, uniform and independent of the point:
what learns p(x|theta) has to find that nothing depends on it.

Trajectories begin at N(0, 1) around (0, 0, r - 1), run for `WARM_UP` before points are taken, and
then give points `SPACING` apart (Runge-Kutta of order 5(4), all trajectories at once).  They are
chaotic: after 30 units of time rounding decides where they are, and only their density repeats
from machine to machine.

References:
    | Deterministic nonperiodic flow (Lorenz, 1963)
    | arXiv:2003.13913, section 4.C: an M-flow on this attractor
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

__all__ = ["LorenzAttractor", "TrajectoryPoints"]

Array = NDArray[np.float64]
WARM_UP, SPACING = 20.0, 0.05
TOLERANCE = 1e-7


@dataclass(frozen=True)
class TrajectoryPoints:
    """Points of trajectories, in random order.

    Attributes:
        x: Observables, (N, 3).
        theta: Label of each point, (N,).
    """

    x: Array
    theta: Array

    def columns(self) -> dict[str, Array]:
        """Return the branches of the file by name: no density, no score."""
        observables = {f"x{k}": np.ascontiguousarray(column) for k, column in enumerate(self.x.T)}
        return observables | {"theta.theta": self.theta}


class LorenzAttractor:
    """The system, and how many trajectories give the points.

    Args:
        trajectories: K.
    """

    name = "lorenz"
    ambient_dim = 3
    rate, drive, damping = 10.0, 28.0, 8.0 / 3.0

    def __init__(self, trajectories: int = 20) -> None:
        self.trajectories = trajectories
        self.settings: dict[str, Any] = {
            "trajectories": trajectories,
            "rate": self.rate,
            "drive": self.drive,
            "damping": self.damping,
            "warm_up": WARM_UP,
            "spacing": SPACING,
            "theta": "a label: the points know nothing of it",
        }

    def velocity(self, x: Array) -> Array:
        """Return dx/dt, (3, K) -> (3, K)."""
        first, second, third = x
        return np.stack(
            [
                self.rate * (second - first),
                first * (self.drive - third) - second,
                first * second - self.damping * third,
            ]
        )

    def draw(self, theta: Array, noise: float, rng: np.random.Generator) -> TrajectoryPoints:
        """Return as many points as labels, moved by N(0, noise^2), (N,) -> N points."""
        per_trajectory = math.ceil(len(theta) / self.trajectories)
        start = rng.standard_normal((3, self.trajectories))
        start[2] += self.drive - 1
        times = WARM_UP + SPACING * np.arange(per_trajectory)
        solved = solve_ivp(
            lambda _, flat: self.velocity(flat.reshape(3, -1)).ravel(),
            (0.0, times[-1]),
            start.ravel(),
            method="RK45",
            t_eval=times,
            rtol=TOLERANCE,
            atol=TOLERANCE,
        )
        points = solved.y.reshape(3, -1).T
        points = points[rng.permutation(len(points))[: len(theta)]]
        return TrajectoryPoints(points + noise * rng.standard_normal(points.shape), theta)
