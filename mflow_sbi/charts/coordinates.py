r"""Functions of the observables that may serve as pivots: angles and gaps that the data suggest.

Sums of squares with unit coefficients are looked for among the observables y (physical units):

    y_k^2 - y_a^2 - y_b^2 = 0    everywhere: (y_a, y_b) is a planar vector of length y_k (or of
                                 constant length); its angle, absolute or relative to another
    y_k^2 - y_a^2 - y_b^2 = q    positive everywhere and much smaller than y_k^2: log q

An angle has no fold where a Cartesian component has one, and a gap turns an edge, on which a thin
layer of events lies (an energy next to the length of its momentum), into a coordinate of its own.

A function h is built in as one more observable: z = (x, h), one more constraint E(x, h) = 0,

    angle:  sin(h) (v . w) - cos(h) (v x w) = 0         gap:  q - exp(h) = 0

so that whatever solves constraints can have it as a pivot.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mflow_sbi.constraints import Constraints
from mflow_sbi.errors import ChartError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events

__all__ = ["AugmentedConstraints", "CoordinateFunctions", "find_coordinate_functions"]

EXACT = 1e-6
"""|q| / y_k^2 below which a planar vector's length is exact (float32 columns reach 1e-7)."""

NARROW = 0.1
"""Spread of q over spread of y_k^2 below which it is a gap worth a coordinate."""

UNIFORM_SPREAD = 1.7
"""Relative angles are candidates below this standard deviation; that of a uniform one is 1.81."""

SEARCH_EVENTS = 5000


class CoordinateFunctions(Float64Buffers):
    """K functions h(x) of standardised observables, standardised, with the equations they obey.

    Float64 throughout.  Built empty from its integers (for loading), or by
    `find_coordinate_functions`.

    Args:
        ambient_dim: n.
        n_angles: A; rows (a, b, c, d) of `angles`: angle from (y_c, y_d) to (y_a, y_b), where
            y_n = 1 and y_{n+1} = 0, so that (n, n + 1) is the first axis.
        n_gaps: G; rows (k, a, b) of `gaps`: log(y_k^2 - y_a^2 - y_b^2).
    """

    angles: Tensor
    gaps: Tensor
    centre: Tensor
    spread: Tensor
    equation_scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, ambient_dim: int, n_angles: int, n_gaps: int) -> None:
        super().__init__()
        self.ambient_dim = ambient_dim
        self.register_buffer("angles", torch.zeros(n_angles, 4, dtype=torch.int64))
        self.register_buffer("gaps", torch.zeros(n_gaps, 3, dtype=torch.int64))
        for name, fill in (("centre", 0.0), ("spread", 1.0), ("equation_scale", 1.0)):
            self.register_buffer(name, torch.full((len(self),), fill, dtype=torch.float64))
        for name, fill in (("mean", 0.0), ("std", 1.0)):
            self.register_buffer(name, torch.full((ambient_dim,), fill, dtype=torch.float64))

    def __len__(self) -> int:
        """Return K."""
        return len(self.angles) + len(self.gaps)

    def subset(self, chosen: Sequence[int]) -> "CoordinateFunctions":
        """Return the functions of these numbers, ascending."""
        index = torch.tensor(list(chosen), dtype=torch.int64, device=self.mean.device)
        n_angles = len(self.angles)
        angles, gaps = index[index < n_angles], index[index >= n_angles] - n_angles
        part = CoordinateFunctions(self.ambient_dim, len(angles), len(gaps)).to(self.mean.device)
        part.angles.copy_(self.angles[angles])
        part.gaps.copy_(self.gaps[gaps])
        for name in ("centre", "spread", "equation_scale"):
            getattr(part, name).copy_(getattr(self, name)[index])
        part.mean.copy_(self.mean)
        part.std.copy_(self.std)
        return part

    def describe(self, names: Sequence[str]) -> list[str]:
        """Return what each function is, in the observables' names."""
        axis = [*names, "", ""]
        lines = []
        for a, b, c, d in self.angles.tolist():
            relative = f" - angle({axis[c]}, {axis[d]})" if axis[c] else ""
            lines.append(f"angle({axis[a]}, {axis[b]}){relative}")
        lines += [
            f"log({axis[k]}^2 - {axis[a]}^2 - {axis[b]}^2)" for k, a, b in self.gaps.tolist()
        ]
        return lines

    def _physical(self, x: Events) -> Tensor:
        """Return y with the constants 1 and 0 appended, (N, n + 2)."""
        y = self.mean + self.std * x.double()
        constants = y.new_tensor([1.0, 0.0]).expand(len(y), 2)
        return torch.cat([y, constants], dim=-1)

    def _vectors(self, y: Tensor) -> tuple[Tensor, ...]:
        """Return (y_a, y_b, y_c, y_d) of each angle, four of (N, A)."""
        return tuple(y[:, column] for column in self.angles.T)

    def _gap(self, y: Tensor) -> Tensor:
        """Return q, (N, G)."""
        k, a, b = (y[:, column] for column in self.gaps.T)
        return k.square() - a.square() - b.square()

    def defined(self, x: Events) -> Tensor:
        """Return whether every gap is open, so that h(x) exists, (N,) bool."""
        return (self._gap(self._physical(x)) > 0).all(dim=-1)

    def forward(self, x: Events) -> Tensor:
        """Return h(x), standardised, (N, n) -> (N, K); NaN where a gap is closed."""
        y = self._physical(x)
        a, b, c, d = self._vectors(y)
        turned = torch.atan2(c * b - d * a, c * a + d * b)
        angle = torch.remainder(turned - self.centre[: len(self.angles)] + torch.pi, 2 * torch.pi)
        gap = self._gap(y)
        log_gap = torch.where(gap > 0, gap, torch.nan).log() - self.centre[len(self.angles) :]
        return torch.cat([angle - torch.pi, log_gap], dim=-1) / self.spread

    def equations(self, x: Events, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return E(x, h), dE/dx and dE_k/dh_k: (N, K), (N, K, n) and (N, K)."""
        y = self._physical(x)
        n_angles = len(self.angles)
        number = self.centre + self.spread * h
        sine, cosine = number[:, :n_angles].sin(), number[:, :n_angles].cos()
        a, b, c, d = self._vectors(y)
        dot, cross = c * a + d * b, c * b - d * a
        opened = number[:, n_angles:].exp()
        value = torch.cat([sine * dot - cosine * cross, self._gap(y) - opened], dim=-1)
        along_h = torch.cat([cosine * dot + sine * cross, -opened], dim=-1) * self.spread
        k, first, second = (y[:, column] for column in self.gaps.T)
        columns = [
            (self.angles, (sine * c + cosine * d, sine * d - cosine * c,
                           sine * a - cosine * b, sine * b + cosine * a)),
            (self.gaps, (2 * k, -2 * first, -2 * second)),
        ]  # fmt: skip
        slope = y.new_zeros(len(y), len(self), y.shape[1])
        start = 0
        for owners, pieces in columns:
            rows = torch.arange(start, start + len(owners), device=y.device)
            for owner, piece in zip(owners.T, pieces, strict=True):
                slope[:, rows, owner] += piece
            start += len(owners)
        scale = self.equation_scale
        along_x = slope[:, :, : self.ambient_dim] * self.std
        return value / scale, along_x / scale[:, None], along_h / scale

    @torch.no_grad()
    def fit(self, x: Events) -> None:
        """Set centres (angles are cut opposite to them) and spreads from events (N, n)."""
        self.centre.zero_()
        self.spread.fill_(1.0)
        self.equation_scale.fill_(1.0)
        n_angles = len(self.angles)
        if not len(self):
            return
        h = self(x)
        direction = torch.atan2(h[:, :n_angles].sin().mean(0), h[:, :n_angles].cos().mean(0))
        self.centre[:n_angles] = direction
        self.centre[n_angles:] = h[:, n_angles:].mean(dim=0)
        h = self(x)
        self.spread.copy_(h.std(dim=0).clamp_min(1e-6))
        slope = self.equations(x, self(x))[1]
        size = torch.linalg.vector_norm(slope, dim=-1).mean(dim=0)
        self.equation_scale.copy_(size.clamp_min(1e-300))

    def same_direction(self, x: Events, h: Tensor) -> Tensor:
        """Return whether vectors point along their angles and not opposite to them, (N,) bool.

        E(x, h) = 0 has both solutions.
        """
        n_angles = len(self.angles)
        angle = (self.centre + self.spread * h)[:, :n_angles]
        a, b, c, d = self._vectors(self._physical(x))
        along = angle.cos() * (c * a + d * b) + angle.sin() * (c * b - d * a)
        return (along > 0).all(dim=-1)


class AugmentedConstraints(nn.Module):
    """F(x) = 0 and E(x, h) = 0 for events with functions as more observables, z = (x, h).

    Args:
        base: F on n observables.
        functions: h, K of them.
    """

    def __init__(self, base: Constraints, functions: CoordinateFunctions) -> None:
        super().__init__()
        self.base, self.functions = base, functions
        self.ambient_dim = base.ambient_dim + len(functions)
        self.n_constraints = base.n_constraints + len(functions)

    @property
    def periods(self) -> Tensor:
        """Periods of the observables and functions, standardised, 0: none, (n + K,)."""
        functions = self.functions
        periods = functions.spread.new_zeros(self.ambient_dim)
        first, n_angles = self.base.ambient_dim, len(functions.angles)
        periods[first : first + n_angles] = 2 * torch.pi / functions.spread[:n_angles]
        return periods

    def reduced_to(self, pivots: Sequence[int]) -> tuple["AugmentedConstraints", list[int]]:
        """Return the constraints without functions that are no pivots, and the columns kept."""
        n = self.base.ambient_dim
        kept = sorted(p for p in pivots if p >= n)
        part = AugmentedConstraints(self.base, self.functions.subset([p - n for p in kept]))
        return part, [*range(n), *kept]

    def augment(self, x: Events) -> Tensor:
        """Return z = (x, h(x)), (N, n) -> (N, n + K).

        Raises:
            ChartError: events beyond a gap, with their number.
        """
        defined = self.functions.defined(x)
        if not bool(defined.all()):
            message = (
                f"{int((~defined).sum())} of {len(x)} events lie beyond an edge that all training "
                "events respect (an energy below the length of its momentum?): expected events "
                "like the training events; leave those out"
            )
            raise ChartError(message)
        return torch.cat([x.double(), self.functions(x)], dim=-1)

    def same_branch(self, z: Tensor) -> Tensor:
        """Return whether roots of (F, E) are points with these functions, (N,) bool."""
        n = self.base.ambient_dim
        return self.functions.same_direction(z[:, :n], z[:, n:])

    def forward(self, z: Tensor) -> Tensor:
        """Return (F, E), (N, n + K) -> (N, m + K)."""
        return self.with_jacobian(z)[0]

    def with_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return (F, E) and its Jacobian, (N, m + K) and (N, m + K, n + K)."""
        n, m = self.base.ambient_dim, self.base.n_constraints
        x, h = z[:, :n], z[:, n:]
        value, slope = self.base.with_jacobian(x)
        more, along_x, along_h = self.functions.equations(x, h)
        jacobian = slope.new_zeros(len(z), self.n_constraints, self.ambient_dim)
        jacobian[:, :m, :n] = slope
        jacobian[:, m:, :n] = along_x
        jacobian[:, m:, n:] = torch.diag_embed(along_h)
        return torch.cat([value, more], dim=-1), jacobian


@torch.no_grad()
def find_coordinate_functions(constraints: Constraints, x: Events) -> CoordinateFunctions:
    """Return the angles and gaps that events suggest, to be chosen from.

    Args:
        constraints: with the means and standard deviations of the observables.
        x: standardised events on the surface, (N, n).
    """
    y = constraints.mean + constraints.std * x[:SEARCH_EVENTS].double()
    lengths, gaps = _sums_of_squares(y)
    n = y.shape[1]
    axes = [(n, n + 1)]
    vectors = sorted({(a, b) for _, a, b in lengths} | set(_circles(y)))
    pairs = [(v, axis) for v in vectors for axis in axes]
    pairs += [(w, v) for v, w in combinations(vectors, 2)]
    functions = CoordinateFunctions(n, len(pairs), len(gaps)).to(y.device)
    rows = [(*v, *w) for v, w in pairs]
    functions.angles.copy_(torch.tensor(rows, dtype=torch.int64).reshape(-1, 4))
    functions.gaps.copy_(torch.tensor(gaps, dtype=torch.int64).reshape(-1, 3))
    functions.mean.copy_(constraints.mean)
    functions.std.copy_(constraints.std)
    functions.fit(x[:SEARCH_EVENTS])
    directed = functions.spread < UNIFORM_SPREAD
    absolute = torch.arange(len(functions), device=y.device) < len(vectors)
    is_gap = torch.arange(len(functions), device=y.device) >= len(pairs)
    return functions.subset(torch.nonzero(directed | absolute | is_gap)[:, 0].tolist())


def _circles(y: Tensor) -> list[tuple[int, int]]:
    """Return pairs (a, b) with constant y_a^2 + y_b^2."""
    first, second = torch.triu_indices(y.shape[1], y.shape[1], offset=1, device=y.device)
    total = y[:, first].square() + y[:, second].square()
    constant = total.amax(dim=0) - total.amin(dim=0) < EXACT * total.mean(dim=0)
    return [(int(first[i]), int(second[i])) for i in torch.nonzero(constant)[:, 0]]


def _sums_of_squares(y: Tensor) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return (k, a, b) of planar vectors y_k = |(y_a, y_b)|, and of each y_k's gap."""
    square = y.square()
    lengths, gaps = [], []
    first, second = torch.triu_indices(y.shape[1], y.shape[1], offset=1, device=y.device)
    for k in torch.nonzero((y > 0).all(dim=0))[:, 0].tolist():
        rest = square[:, k, None] - square[:, first] - square[:, second]
        usable = (first != k) & (second != k)
        exact = usable & ((rest.abs() / square[:, k, None]).amax(dim=0) < EXACT)
        narrow = rest.std(dim=0) / square[:, k].std()
        is_gap = usable & ~exact & (rest > 0).all(dim=0) & (narrow < NARROW)
        lengths += [(k, int(first[i]), int(second[i])) for i in torch.nonzero(exact)[:, 0]]
        if bool(is_gap.any()):
            i = int(torch.where(is_gap, narrow, torch.inf).argmin())
            gaps.append((k, int(first[i]), int(second[i])))
    return lengths, gaps
