r"""An implicit chart in coordinates that suit the data: h(z) = u, z = (x, functions of x).

The surface is that of `ImplicitChart`.  Its pivots are taken from the observables and from
functions that the data suggest (angles of planar vectors, logarithms of thin gaps, see
`coordinates`), such that the data are simple in them (see `simplicity`).  Observables that are
positive at all events enter by their logarithm.  So narrow resonances, edges and circles are
coordinates, and not curved thin layers, for the density that is learned in them:

    encode(x) = h(P(x)),   decode(u): F(x) = 0 and h(x) = u by Newton,   J = dx/du

Nothing of this is learned but where Newton begins.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.coordinates import (
    AugmentedConstraints,
    CoordinateFunctions,
    find_coordinate_functions,
)
from mflow_sbi.charts.edges import find_edges
from mflow_sbi.charts.implicit import ImplicitChart, ImplicitShape
from mflow_sbi.charts.pivots import PivotChoice, build_implicit_chart
from mflow_sbi.charts.volume import exact_log_volume, gram_matrix
from mflow_sbi.constraints import Constraints, project
from mflow_sbi.errors import ChartError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events, Latents

__all__ = ["AdaptedChart", "build_adapted_chart"]

PROJECTION_STEPS = 14


SAME_POINT = 1e-3
"""Distance in standard deviations below which decode(encode(x)) is x and no other root."""


class AdaptedChart(Float64Buffers, Chart):
    """The common zero set of constraints, in coordinates chosen by data.

    Args:
        inner: chart of events with functions as more observables, z = (x, h).
    """

    logarithmic: Tensor

    def __init__(self, inner: ImplicitChart) -> None:
        super().__init__()
        self.inner = inner
        self.ambient_dim = self.augmented.base.ambient_dim
        self.latent_dim = inner.latent_dim
        self.register_buffer("logarithmic", torch.zeros(self.latent_dim, dtype=torch.bool))

    @classmethod
    def empty(cls, shape: Mapping[str, int]) -> "AdaptedChart":
        """Return a chart to be filled by `load_state_dict`, from its `shape`."""

        def part(prefix: str) -> dict[str, int]:
            return {k.removeprefix(prefix): v for k, v in shape.items() if k.startswith(prefix)}

        base = Constraints.empty(**part("constraints."))
        functions = CoordinateFunctions(base.ambient_dim, **part("functions."))
        constraints = AugmentedConstraints(base, functions)
        return cls(ImplicitChart(constraints, ImplicitShape(**part("implicit."))))

    @property
    def augmented(self) -> AugmentedConstraints:
        """The constraints, with those that define the functions among the pivots."""
        constraints = self.inner.constraints
        assert isinstance(constraints, AugmentedConstraints)
        return constraints

    @property
    def shape(self) -> dict[str, int]:
        """The integers that rebuild the chart."""
        functions = self.augmented.functions
        return {
            **{f"constraints.{k}": v for k, v in self.augmented.base.shape.items()},
            "functions.n_angles": len(functions.angles),
            "functions.n_gaps": len(functions.gaps),
            **{f"implicit.{k}": v for k, v in self.inner.shape._asdict().items()},
        }

    def describe(self, names: Sequence[str]) -> list[str]:
        """Return what each latent is, in the names of the n observables."""
        labels = [*names, *self.augmented.functions.describe(names)]
        return [
            f"log({labels[pivot]})" if logarithmic else labels[pivot]
            for pivot, logarithmic in zip(
                self.inner.pivots.tolist(), self.logarithmic.tolist(), strict=True
            )
        ]

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Return mean and std of the pivots in physical units, two of (d,)."""
        functions = self.augmented.functions
        padding = functions.mean.new_zeros(len(functions))
        mean = torch.cat([functions.mean, padding])[self.inner.pivots]
        std = torch.cat([functions.std, padding + 1])[self.inner.pivots]
        return mean, std

    def _from_pivots(self, pivots: Tensor) -> Latents:
        """Return u from pivots of z, (N, d)."""
        mean, std = self._scales()
        physical = mean + std * pivots
        return torch.where(self.logarithmic, physical.clamp_min(1e-300).log(), pivots)

    def _to_pivots(self, u: Latents) -> Tensor:
        """Return pivots of z, (N, d)."""
        mean, std = self._scales()
        return torch.where(self.logarithmic, (u.double().exp() - mean) / std, u.double())

    def _slope_of_pivots(self, pivots: Tensor) -> Tensor:
        """Return d pivots / du, (N, d)."""
        mean, std = self._scales()
        return torch.where(self.logarithmic, pivots + mean / std, 1.0)

    def nearest(self, x: Events) -> tuple[Events, Tensor]:
        """Return the surface points next to events (N, n), and flags (N,).

        No flag: no point is reached, or it lies where the coordinates are not defined.
        """
        points, arrived = project(self.augmented.base, x, PROJECTION_STEPS)
        return points, arrived & self._defined(points)

    def _defined(self, x: Events) -> Tensor:
        """Return whether gaps are open and logarithms exist at x, (N,) bool."""
        mean, std = self._scales()
        n = self.ambient_dim
        plain = self.inner.pivots.clamp_max(n - 1)
        positive = mean + std * x[:, plain] > 0
        observable = self.logarithmic & (self.inner.pivots < n)
        return self.augmented.functions.defined(x) & (positive | ~observable).all(dim=-1)

    def encode_with_flags(self, x: Events) -> tuple[Latents, Tensor]:
        """Return the latents of the surface points next to x (N, d), and flags as `nearest`."""
        points, arrived = self.nearest(x)
        return self._as_latents(points).nan_to_num(0.0), arrived

    def read(self, points: Events) -> Latents:
        """Return the latents of points that lie on the surface, float64, (N, n) -> (N, d)."""
        z = torch.cat([points, self.augmented.functions(points)], dim=-1)
        return self._from_pivots(z[:, self.inner.pivots])

    def _as_latents(self, points: Events) -> Latents:
        return self.read(points).to(self.inner.start.dtype)

    def encode(self, x: Events) -> Latents:
        """Return the latents of the surface points next to x, (N, n) -> (N, d).

        Raises:
            ChartError: events from which no point of the surface is reached, or only one beyond
                an edge that all training events respect.
        """
        return self._as_latents(self._nearest_or_refuse(x))

    def _nearest_or_refuse(self, x: Events) -> Events:
        points, arrived = self.nearest(x)
        if not bool(arrived.all()):
            message = (
                f"no point of the surface found next to {int((~arrived).sum())} of {len(x)} "
                "events: expected events near the discovered constraints, inside the edges of the "
                "training events; select events with `nearest`, or take the invertible chart"
            )
            raise ChartError(message)
        return points

    def project(self, x: Events) -> Events:
        """Return the surface points next to x, which are decode(encode(x)), (N, n) -> (N, n).

        Raises:
            ChartError: as `encode`.
        """
        return self._nearest_or_refuse(x)

    def project_with_flags(self, x: Events) -> tuple[Events, Tensor]:
        """Return `nearest`: the projection needs no coordinates."""
        return self.nearest(x)

    def encode_with_volume(self, x: Events) -> tuple[Latents, Tensor]:
        """Return encode(x) and the log volume there, without solving for the point again.

        Raises:
            ChartError: as `encode`.
        """
        points = self._nearest_or_refuse(x)
        z = self.augmented.augment(points)
        return self._as_latents(points), exact_log_volume(self._gram_at, z)

    def _gram_at(self, z: Tensor) -> Tensor:
        """Return J^T J at points with their functions, (N, n + K) -> (N, d, d)."""
        return gram_matrix(self._jacobian_at(z))

    def _jacobian_at(self, z: Tensor) -> Tensor:
        """Return dx/du at points with their functions, (N, n + K) -> (N, n, d)."""
        along = self.inner.jacobian_at(z)[:, : self.ambient_dim]
        return along * self._slope_of_pivots(z[:, self.inner.pivots])[:, None]

    def decode_with_flags(self, u: Latents) -> tuple[Events, Tensor]:
        """Return the points with latents u (N, n) and whether each lies where events do (N,).

        Differentiable with respect to u, once, where the flag is set.
        """
        z, arrived = self.inner.decode_with_flags(self._to_pivots(u))
        return z[:, : self.ambient_dim], arrived

    def decode_drawn(self, u: Latents) -> tuple[Events, Tensor]:
        """Return points and flags as `decode_with_flags`, for latents that are drawn at will."""
        z, arrived = self.inner.decode_drawn(self._to_pivots(u))
        return z[:, : self.ambient_dim], arrived

    def converged(self, u: Latents) -> Tensor:
        """Return whether Newton reaches a point over u, inside the events' edges or not, (N,)."""
        return self.inner.converged(self._to_pivots(u))

    def decode(self, u: Latents) -> Events:
        """Return the points with latents u, (N, d) -> (N, n).

        Raises:
            ChartError: latents without a point of the surface over them, see `decode_with_flags`.
        """
        return self.inner.decode(self._to_pivots(u))[:, : self.ambient_dim]

    @torch.no_grad()
    def share_given_back(self, x: Events) -> float:
        """Return the share of events (N, n) with decode(encode(x)) = x."""
        u, arrived = self.encode_with_flags(x)
        back, found = self.decode_with_flags(u)
        same = (back - x).abs().amax(dim=-1) < SAME_POINT
        return float((arrived & found & same).double().mean())

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = dx/du, (N, d) -> ((N, n), (N, n, d)) float64.

        Raises:
            ChartError: as `decode`.
        """
        z = self.inner.decode(self._to_pivots(u))
        return z[:, : self.ambient_dim], self._jacobian_at(z)


def build_adapted_chart(
    constraints: Constraints,
    x: Events,
    shape: ImplicitShape | None = None,
    *,
    epochs: int = 10,
    seed: int,
) -> tuple[AdaptedChart, PivotChoice]:
    """Return the chart of discovered constraints in the simplest coordinates, and the sets tried.

    Args:
        constraints: of the surface.
        x: standardised events on it, (N, n).
        shape: width and depth of the network that tells Newton where to begin.
        epochs: its passes over the events.
        seed: of every random choice.

    Raises:
        ChartError: no set of coordinates determines the events.
    """
    x = x.double()
    augmented = AugmentedConstraints(constraints, find_coordinate_functions(constraints, x))
    z = augmented.augment(x)
    edges = find_edges(x, constraints.mean, constraints.std)
    inner, choice = build_implicit_chart(
        augmented, z, shape, epochs=epochs, seed=seed, edges=edges
    )
    chart = AdaptedChart(inner)
    positive = ((constraints.mean + constraints.std * x) > 0).all(dim=0)
    is_function = positive.new_zeros(inner.ambient_dim - x.shape[1])
    chart.logarithmic.copy_(torch.cat([positive, is_function])[inner.pivots])
    return chart, choice
