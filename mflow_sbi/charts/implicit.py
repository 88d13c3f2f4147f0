r"""The chart of a surface given by constraints: F(x) = 0, solved for all but d observables.

    x = x0 + L (u, w),   G(u, w) = F_nonlinear(x0 + L (u, w)) = 0

u (d) are pivots: observables by themselves.  Linear constraints are solved once, by L (n, d + k);
the k unknowns w that remain are found by Newton steps at fixed u from a learned warm start.  By
the implicit function theorem, in the surface's own volume (exact, no network in it):

    dw/du = -G_w^-1 G_u,   J = dx/du = L (1, dw/du),   log volume = 1/2 log det J^T J

Rows of J that belong to pivots are unit vectors: this is 1/2 log det(1 + C^T C) with C = dv/du,
the slopes of the graph of all other observables v over u.

The network only tells which root to look for: it has no influence on volumes, and none on points
as long as Newton arrives.  Where it does not, there is a flag, never a point off the surface.

References:
    Mathematics: S. G. Krantz and H. R. Parks, The Implicit Function Theorem (2002).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.coordinates import AugmentedConstraints
from mflow_sbi.charts.edges import Edges
from mflow_sbi.charts.linear_split import linear_split
from mflow_sbi.charts.warm_start import WarmStart
from mflow_sbi.constraints import ConstraintFunction, project
from mflow_sbi.errors import ChartError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events, Latents

__all__ = ["ConstraintFunction", "ImplicitChart", "ImplicitShape"]

MAX_STEPS = 14
"""Newton steps from the warm start; from a good one four are enough."""

STEP_TOLERANCE = 1e-7
"""Last step, in standard deviations: the root is then known to its square, about rounding."""

MAX_STEPS_OF_DRAWS = 30
"""Newton steps for latents that are drawn at will: cheaper for many than paths."""

PATHS = 8
PATH_POINTS = 6
"""Stations on the way from a known event to latents that Newton did not reach directly."""

ANCHORS = 1000
"""Known events from which such ways begin."""

SIGN_EVENTS = 20_000
CHUNK_EVENTS = 2000


Acceptance: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Which roots w (N, k) over u (N, d), with slopes G_w (N, k, k), are accepted, (N,) bool."""


class ImplicitShape(NamedTuple):
    """The integers that rebuild a chart: linear constraints, network, anchors, edges, angles."""

    n_linear: int
    hidden: int = 96
    blocks: int = 2
    n_anchors: int = ANCHORS
    n_edges: int = 0
    n_angles: int = 0


class ImplicitChart(Float64Buffers, Chart):
    """The common zero set of constraints, as a graph over d of its observables.

    Args:
        constraints: a module with the interface of `ConstraintFunction`.
        shape: the other integers; buffers come by `on_pivots` or `load_state_dict`.
    """

    pivots: Tensor
    unknowns: Tensor
    rows: Tensor
    origin: Tensor
    lift: Tensor
    anchors: Tensor
    signs: Tensor
    orientation: Tensor

    def __init__(self, constraints: nn.Module, shape: ImplicitShape) -> None:
        super().__init__()
        n, m = _sizes(constraints)
        self.constraints = constraints
        self.shape = shape
        self.ambient_dim, self.latent_dim = n, n - m
        self.n_unknowns = m - shape.n_linear
        size = self.latent_dim + self.n_unknowns
        self.register_buffer("pivots", torch.arange(self.latent_dim))
        self.register_buffer("unknowns", torch.arange(self.latent_dim, size))
        self.register_buffer("rows", torch.arange(self.n_unknowns))
        self.register_buffer("origin", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("lift", torch.eye(n, size, dtype=torch.float64))
        self.register_buffer("anchors", torch.zeros(shape.n_anchors, size, dtype=torch.float64))
        signs = torch.zeros(self.n_unknowns, self.n_unknowns, dtype=torch.float64)
        self.register_buffer("signs", signs)
        self.register_buffer("orientation", torch.zeros((), dtype=torch.float64))
        self.edges = Edges(shape.n_edges)
        self.start = WarmStart(
            self.latent_dim, self.n_unknowns, shape.hidden, shape.blocks, shape.n_angles
        )

    @classmethod
    def on_pivots(
        cls,
        constraints: nn.Module,
        x: Events,
        pivots: Sequence[int],
        shape: ImplicitShape,
        edges: Edges | None = None,
    ) -> "ImplicitChart":
        """Return the chart over these pivots, with the warm start of a quadratic regression.

        `n_linear`, `n_edges` and `n_angles` of the shape are replaced by what is found.

        Args:
            constraints: F, (N, n) -> (N, m).
            x: standardised events on the surface, (N, n).
            pivots: indices of d = n - m observables.
            shape: the other integers.
            edges: inequalities that every point has to obey; none if left out.

        Raises:
            ChartError: the number of pivots is not n - m, or they do not determine the rest of
                the linear constraints.
        """
        n, m = _sizes(constraints)
        if len(set(pivots)) != n - m:
            message = (
                f"{m} constraints on {n} observables leave {n - m} pivots, got {len(set(pivots))}"
            )
            raise ChartError(message)
        x = x.double()
        edges = edges or Edges(0)
        split = linear_split(constraints, x, sorted(pivots))
        periods = _periods(constraints)[sorted(pivots)]
        chart = cls(
            constraints,
            shape._replace(
                n_linear=m - len(split.rows),
                n_edges=len(edges),
                n_angles=int((periods > 0).sum()),
            ),
        ).to(x.device)
        chart.edges.load_state_dict(edges.state_dict())
        chart.start.set_periods(periods)
        chart.pivots.copy_(torch.tensor(sorted(pivots)))
        chart.unknowns.copy_(torch.tensor(split.unknowns))
        chart.rows.copy_(torch.tensor(split.rows))
        chart.origin.copy_(split.origin)
        chart.lift.copy_(split.lift)
        known = chart._known(x)
        steps = torch.linspace(0, len(known) - 1, shape.n_anchors).long()
        chart.anchors.copy_(known[steps])
        chart.start.fit_regression(*chart._split(known))
        chart._fit_branch(x[:SIGN_EVENTS])
        return chart

    @torch.no_grad()
    def _fit_branch(self, x: Tensor) -> None:
        """Keep the signs of entries of G_w and of det G_w that are the same at all events."""
        slopes = torch.cat([self._slope_of_unknowns(part) for part in x.split(CHUNK_EVENTS)])
        tiny = 1e-9 * slopes.abs().amax(dim=0)
        positive, negative = slopes.amin(dim=0) > tiny, slopes.amax(dim=0) < -tiny
        self.signs.copy_(positive.double() - negative.double())
        signs = torch.linalg.slogdet(slopes).sign
        same = bool((signs == signs[0]).all())
        self.orientation.copy_(signs[0] if same else torch.zeros_like(signs[0]))

    def _in_range(self, u: Tensor, w: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        """Return whether roots lie in the range of the events, (N,) bool."""
        low, high = self.start.box()
        inside = ((w >= low) & (w <= high)).all(dim=-1)
        if isinstance(self.constraints, AugmentedConstraints):
            return inside & self.constraints.same_branch(self._assemble(u, w))
        return inside

    def _where_events_lie(self, u: Tensor, w: Tensor, along: Tensor) -> Tensor:
        """Return whether roots are like events: in range, same signs, inside edges, (N,) bool."""
        same_signs = (along * self.signs >= 0).flatten(1).all(dim=-1)
        same_side = torch.linalg.slogdet(along).sign * self.orientation >= 0
        inside = self.edges(self._assemble(u, w))
        return self._in_range(u, w, along) & same_signs & same_side & inside

    def _slope_of_unknowns(self, x: Events) -> Tensor:
        """Return G_w at points of the surface, (N, n) -> (N, k, k)."""
        return self._equations(x)[1] @ self.lift[:, self.latent_dim :]

    def fit_warm_start(self, x: Events, *, epochs: int, seed: int) -> list[float]:
        """Train the network of the warm start on events (N, n); return its loss per epoch."""
        return self.start.fit_network(*self._split(self._known(x.double())), epochs, seed)

    def _known(self, x: Tensor) -> Tensor:
        """Return (u, w) read off events, (N, n) -> (N, d + k)."""
        return x[:, torch.cat([self.pivots, self.unknowns])]

    def _split(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return u (N, d) and w (N, k)."""
        u, w = known.tensor_split([self.latent_dim], dim=-1)
        return u, w

    def _assemble(self, u: Tensor, w: Tensor) -> Events:
        """Return x0 + L (u, w), which obeys the linear constraints, (N, n)."""
        return self.origin + torch.cat([u, w], dim=-1) @ self.lift.T

    def _equations(self, x: Events) -> tuple[Tensor, Tensor]:
        """Return G (N, k) and dG/dx (N, k, n)."""
        value, slope = self.constraints.with_jacobian(x)  # pyright: ignore[reportCallIssue]
        return value[:, self.rows], slope[:, self.rows]

    def _newton_step(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return G_w^-1 G (N, k) and G_w (N, k, k), constant.

        The first derivative of w - step with respect to u, at the root, is that of the root.
        """
        value, slope = self._equations(self._assemble(u, w))
        along = slope.detach() @ self.lift[:, self.latent_dim :]
        return torch.linalg.solve_ex(along, value[..., None]).result[..., 0], along

    def _newton(
        self, u: Tensor, w: Tensor, accepted: Acceptance, steps: int = MAX_STEPS
    ) -> tuple[Tensor, Tensor]:
        """Return the roots (N, k) and whether Newton arrived at ones that are accepted, (N,)."""
        low, high = self.start.box()
        reach = self.start.reach()
        w, arrived = w.clone(), torch.zeros(len(u), dtype=torch.bool, device=u.device)
        active = torch.arange(len(u), device=u.device)
        for _ in range(steps):
            if not len(active):
                break
            step, along = self._newton_step(u[active], w[active])
            fine = step.isfinite().all(dim=-1)
            active, step, along = active[fine], step[fine], along[fine]
            close = step.abs().amax(dim=-1) < STEP_TOLERANCE
            there = active[close]
            arrived[there] = accepted(u[there], w[there], along[close])
            w[active] = (w[active] - step.clamp(-reach, reach)).clamp(low, high)
            active = active[~close]
        return w, arrived

    def _follow(self, u: Tensor, rank: int, accepted: Acceptance) -> tuple[Tensor, Tensor]:
        """Return roots (N, k) followed from the rank-th nearest known event, and flags (N,)."""
        from_u, _ = self._split(self.anchors)
        nearest = torch.cdist(u, from_u).kthvalue(rank, dim=-1).indices
        begin, w = self._split(self.anchors[nearest])
        for t in torch.linspace(0, 1, PATH_POINTS + 1)[1:-1].tolist():
            w, _ = self._newton(torch.lerp(begin, u, t), w, self._in_range)
        return self._newton(u, w, accepted)

    @torch.no_grad()
    def found_directly(self, u: Latents) -> tuple[Events, Tensor]:
        """Return points and flags as `decode_with_flags`, from the warm start alone."""
        u = u.double()
        w, arrived = self._newton(u, self.start(u), self._where_events_lie)
        return self._assemble(u, w), arrived

    @torch.no_grad()
    def _root(self, u: Tensor, accepted: Acceptance) -> tuple[Tensor, Tensor]:
        """Return w (N, k) with G(u, w) = 0 and flags (N,): warm start, then paths if need be."""
        w, arrived = self._newton(u, self.start(u), accepted)
        for rank in range(1, 1 + min(PATHS, len(self.anchors))):
            lost = torch.nonzero(~arrived)[:, 0]
            if not len(lost):
                break
            w[lost], arrived[lost] = self._follow(u[lost], rank, accepted)
        return w, arrived

    @torch.no_grad()
    def decode_drawn(self, u: Latents) -> tuple[Events, Tensor]:
        """Return points and flags as `decode_with_flags`, for latents that are drawn at will.

        The warm start's root counts: where it lies beyond an edge or is not reached there is no
        flag, and no other branch is looked for, although some latents have their event on one.
        """
        u = u.double()
        w, arrived = self._newton(u, self.start(u), self._where_events_lie, MAX_STEPS_OF_DRAWS)
        return self._assemble(u, w), arrived

    def decode_with_flags(self, u: Latents) -> tuple[Events, Tensor]:
        """Return the points with pivots u (N, n) and whether each lies where events do (N,).

        That is on the surface and, among its branches, inside the edges of the training events.
        Differentiable with respect to u, once, where the flag is set.
        """
        u = u.double()
        w, arrived = self._root(u.detach(), self._where_events_lie)
        return self._assemble(u, w - self._newton_step(u, w)[0]), arrived

    @torch.no_grad()
    def converged(self, u: Latents) -> Tensor:
        """Return whether Newton reaches a point of the surface over u, (N,) bool.

        Also where `decode_with_flags` has no flag because the point lies beyond an edge that all
        training events respect.
        """
        return self._root(u.double(), self._in_range)[1]

    def decode(self, u: Latents) -> Events:
        """Return the points with pivots u, (N, d) -> (N, n).

        Raises:
            ChartError: latents without a point of the surface over them, see `converged`.
        """
        x, arrived = self.decode_with_flags(u)
        if not bool(arrived.all()):
            message = (
                f"no point of the surface found over {int((~arrived).sum())} of {len(u)} latents; "
                "use decode_with_flags and draw those again"
            )
            raise ChartError(message)
        return x

    def decode_with_jacobian(self, u: Latents) -> tuple[Events, Tensor]:
        """Return decode(u) and J = L (1, -G_w^-1 G_u), (N, d) -> ((N, n), (N, n, d)) float64.

        Raises:
            ChartError: as `decode`.
        """
        x = self.decode(u)
        return x, self.jacobian_at(x)

    def jacobian_at(self, x: Events) -> Tensor:
        """Return J = L (1, -G_w^-1 G_u) at points of the surface, (N, n) -> (N, n, d)."""
        of_pivots, of_unknowns = self.lift.tensor_split([self.latent_dim], dim=1)
        _, slope = self._equations(x)
        graph = torch.linalg.solve_ex(slope @ of_unknowns, slope @ of_pivots).result
        return of_pivots - of_unknowns @ graph

    def nearest(self, x: Events) -> tuple[Events, Tensor]:
        """Return the surface points next to events (N, n), and flags (N,); see `project`."""
        return project(self.constraints, x, MAX_STEPS)  # pyright: ignore[reportArgumentType]

    def encode(self, x: Events) -> Latents:
        """Return the pivots of the surface point next to x, (N, n) -> (N, d).

        Raises:
            ChartError: events from which no point of the surface is reached, see `nearest`.
        """
        u, arrived = self.encode_with_flags(x)
        if not bool(arrived.all()):
            message = (
                f"no point of the surface found next to {int((~arrived).sum())} of {len(x)} "
                "events: expected events near the discovered constraints; select events with "
                "`nearest`, or take the invertible chart"
            )
            raise ChartError(message)
        return u

    def encode_with_flags(self, x: Events) -> tuple[Latents, Tensor]:
        """Return the pivots of the surface points next to x (N, d), and flags as `nearest`."""
        points, arrived = self.nearest(x)
        return points[:, self.pivots].to(self.start.dtype), arrived


def _periods(constraints: nn.Module) -> Tensor:
    """Return the period of each observable, standardised, 0: none, (n,)."""
    periods = getattr(constraints, "periods", None)
    return torch.zeros(_sizes(constraints)[0]) if periods is None else periods


def _sizes(constraints: nn.Module) -> tuple[int, int]:
    """Return n and m."""
    n, m = constraints.ambient_dim, constraints.n_constraints
    assert isinstance(n, int)
    assert isinstance(m, int)
    return n, m
