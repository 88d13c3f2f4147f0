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

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.linalg import qr
from torch import Tensor, nn

from mflow_sbi.charts.base import Chart
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

PATHS = 4
PATH_POINTS = 12
"""Stations on the way from a known event to latents that Newton did not reach directly."""

ANCHORS = 1000
"""Known events from which such ways begin."""

SIGN_EVENTS = 20_000
CHUNK_EVENTS = 2000

LINEAR_VARIATION = 1e-9
"""Relative change of a gradient over the sample below which its constraint is linear."""


class ImplicitShape(NamedTuple):
    """The integers that rebuild a chart: linear constraints, network, anchors."""

    n_linear: int
    hidden: int = 96
    blocks: int = 2
    n_anchors: int = ANCHORS


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
        self.start = WarmStart(self.latent_dim, self.n_unknowns, shape.hidden, shape.blocks)

    @classmethod
    def on_pivots(
        cls, constraints: nn.Module, x: Events, pivots: Sequence[int], shape: ImplicitShape
    ) -> "ImplicitChart":
        """Return the chart over these pivots, with the warm start of a quadratic regression.

        `n_linear` of the shape is replaced by the number of linear constraints found.

        Args:
            constraints: F, (N, n) -> (N, m).
            x: standardised events on the surface, (N, n).
            pivots: indices of d = n - m observables.
            shape: the other integers.

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
        split = _linear_split(constraints, x, sorted(pivots))
        chart = cls(constraints, shape._replace(n_linear=m - len(split.rows)))
        chart.pivots.copy_(torch.tensor(sorted(pivots)))
        chart.unknowns.copy_(torch.tensor(split.unknowns))
        chart.rows.copy_(torch.tensor(split.rows))
        chart.origin.copy_(split.origin)
        chart.lift.copy_(split.lift)
        known = chart._known(x)
        steps = torch.linspace(0, len(known) - 1, shape.n_anchors).long()
        chart.anchors.copy_(known[steps])
        chart.start.fit_regression(*chart._split(known))
        chart.signs.copy_(chart._constant_signs(x[:SIGN_EVENTS]))
        return chart

    @torch.no_grad()
    def _constant_signs(self, x: Tensor) -> Tensor:
        """Return the signs of those entries of G_w that have one sign at all events, (k, k)."""
        slopes = torch.cat([self._slope_of_unknowns(part) for part in x.split(CHUNK_EVENTS)])
        tiny = 1e-9 * slopes.abs().amax(dim=0)
        positive, negative = slopes.amin(dim=0) > tiny, slopes.amax(dim=0) < -tiny
        return positive.double() - negative.double()

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

    def _newton(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the roots (N, k) and whether Newton arrived at them inside the range, (N,)."""
        low, high = self.start.box()
        reach = self.start.reach()
        w, arrived = w.clone(), torch.zeros(len(u), dtype=torch.bool, device=u.device)
        active = torch.arange(len(u), device=u.device)
        for _ in range(MAX_STEPS):
            if not len(active):
                break
            step, along = self._newton_step(u[active], w[active])
            fine = step.isfinite().all(dim=-1)
            active, step, along = active[fine], step[fine], along[fine]
            before = w[active]
            w[active] = (before - step.clamp(-reach, reach)).clamp(low, high)
            close = step.abs().amax(dim=-1) < STEP_TOLERANCE
            inside = ((before >= low) & (before <= high)).all(dim=-1)
            same_branch = (along * self.signs >= 0).flatten(1).all(dim=-1)
            arrived[active[close & inside & same_branch]] = True
            active = active[~close]
        return w, arrived

    def _follow(self, u: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return roots (N, k) followed from the rank-th nearest known event, and flags (N,)."""
        from_u, _ = self._split(self.anchors)
        nearest = torch.cdist(u, from_u).kthvalue(rank, dim=-1).indices
        begin, w = self._split(self.anchors[nearest])
        arrived = torch.ones(len(u), dtype=torch.bool, device=u.device)
        for t in torch.linspace(0, 1, PATH_POINTS + 1)[1:].tolist():
            w, here = self._newton(torch.lerp(begin, u, t), w)
            arrived &= here
        return w, arrived

    @torch.no_grad()
    def found_directly(self, u: Latents) -> tuple[Events, Tensor]:
        """Return points and flags as `decode_with_flags`, from the warm start alone."""
        u = u.double()
        w, arrived = self._newton(u, self.start(u))
        return self._assemble(u, w), arrived

    @torch.no_grad()
    def _root(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return w (N, k) with G(u, w) = 0 and flags (N,): warm start, then paths if need be."""
        w, arrived = self._newton(u, self.start(u))
        for rank in range(1, 1 + min(PATHS, len(self.anchors))):
            lost = torch.nonzero(~arrived)[:, 0]
            if not len(lost):
                break
            w[lost], arrived[lost] = self._follow(u[lost], rank)
        return w, arrived

    def decode_with_flags(self, u: Latents) -> tuple[Events, Tensor]:
        """Return the points with pivots u (N, n) and whether each lies on the surface (N,).

        Differentiable with respect to u, once, where the flag is set.
        """
        u = u.double()
        w, arrived = self._root(u.detach())
        return self._assemble(u, w - self._newton_step(u, w)[0]), arrived

    def converged(self, u: Latents) -> Tensor:
        """Return whether the surface has a point over u that Newton reaches, (N,) bool."""
        return self._root(u.detach().double())[1]

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
        of_pivots, of_unknowns = self.lift.tensor_split([self.latent_dim], dim=1)
        _, slope = self._equations(x)
        graph = torch.linalg.solve_ex(slope @ of_unknowns, slope @ of_pivots).result
        return x, of_pivots - of_unknowns @ graph

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


class _LinearSplit(NamedTuple):
    """Unknowns that remain, rows of their equations, and x = origin + lift (u, w)."""

    unknowns: list[int]
    rows: list[int]
    origin: Tensor
    lift: Tensor


def _sizes(constraints: nn.Module) -> tuple[int, int]:
    """Return n and m."""
    n, m = constraints.ambient_dim, constraints.n_constraints
    assert isinstance(n, int)
    assert isinstance(m, int)
    return n, m


@torch.no_grad()
def _linear_split(constraints: nn.Module, x: Tensor, pivots: list[int]) -> _LinearSplit:
    """Return the linear constraints solved for observables that are no pivots."""
    value, slope = constraints.with_jacobian(x[:1000])  # pyright: ignore[reportCallIssue]
    size = slope.abs().amax(dim=(0, 2))
    varies = (slope - slope[:1]).abs().amax(dim=(0, 2)) > LINEAR_VARIATION * size
    matrix = slope[0, ~varies]
    constant = (value[:, ~varies] - x[:1000] @ matrix.T).mean(dim=0)
    others = [i for i in range(x.shape[1]) if i not in pivots]
    triangle, order = _pivoted_triangle(matrix[:, others])
    n_linear = len(matrix)
    if n_linear and abs(triangle[-1, n_linear - 1]) < 1e-9 * abs(triangle[0, 0]):
        message = f"the pivots {pivots} do not determine the rest of the linear constraints"
        raise ChartError(message)
    solved = sorted(others[i] for i in order[:n_linear])
    unknowns = [i for i in others if i not in solved]
    free = pivots + unknowns
    origin, lift = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], len(free))
    lift[free] = torch.eye(len(free), dtype=x.dtype, device=x.device)
    origin[solved] = -torch.linalg.solve(matrix[:, solved], constant)
    lift[solved] = -torch.linalg.solve(matrix[:, solved], matrix[:, free])
    return _LinearSplit(unknowns, torch.nonzero(varies)[:, 0].tolist(), origin, lift)


def _pivoted_triangle(matrix: Tensor) -> tuple[Tensor, list[int]]:
    """Return R (m, n) and the order of columns of a QR factorisation with column pivoting."""
    result: Any = qr(matrix.cpu().numpy(), mode="r", pivoting=True)
    triangle, order = result
    return torch.from_numpy(triangle), order.tolist()
