r"""Which observables can carry the others: pivots chosen by data, v(u) with F(u, v) = 0.

Over the whole sample a set of pivots is judged by

    tilt       = log|det F_v| - 1/2 log det F F^T    (0: the surface runs along u; -inf: a fold)
    folds      = share of events at which det F_v has the rarer of its two signs
    simplicity = mean log density of the data in these coordinates, see `simplicity`

and, because a fold may hide between two events and a root outside the data, by two trials of the
chart itself with a quadratic regression as warm start, at held-out events:

    found   = share of events that Newton gives back
    reached = share of latents moved by 0.05 standard deviations that have a point over them

One swap of a pivot k with another observable j multiplies det F_v by C_jk, C = -F_v^-1 F_u, so
all swaps are known at once: the search starts at a rank-revealing QR of the pooled tangent
frames, climbs away from folds by the tilt of the most tilted events, and from there to simpler
coordinates.  Those alone would choose narrow observables (a resonance's mass) that leave a sign
or a direction of others undetermined; folds and trials see that.

References:
    Gu and Eisenstat (1996), Efficient algorithms for computing a strong rank-revealing QR
    factorization, SIAM J. Sci. Comput. 17, 848.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mflow_sbi.charts.coordinates import AugmentedConstraints
from mflow_sbi.charts.edges import Edges
from mflow_sbi.charts.implicit import ImplicitChart, ImplicitShape
from mflow_sbi.charts.simplicity import Simplicity
from mflow_sbi.errors import ChartError
from mflow_sbi.interfaces import Events

__all__ = ["PivotChoice", "PivotScore", "build_implicit_chart", "choose_pivots"]

SEARCH_EVENTS = 1500
REGRESSION_EVENTS = 3000
TRIAL_EVENTS = 500
FRAMES = 500
JITTER = 0.05
WORST_SHARES = (1.0, 0.3, 0.03, 0.005)
"""Shares of events, the most tilted ones, whose mean tilt the searches raise."""

FOLD_PENALTY = 100.0
SAFE_SHARE = 0.995
"""Sets that find and reach this share are taken as equally safe; the simplest of them wins."""

SHORTFALL_PENALTY = 20.0
"""Nats that a set may be simpler by to make up for losing all trials: one for each 5 %."""

NEIGHBOURS = 8
ROUNDS = 3
SMALLEST_TILT = -40.0


@dataclass(frozen=True)
class PivotScore:
    """One set of pivots in numbers.

    Args:
        pivots: indices of observables, ascending.
        tilt: mean tilt of the 1 % most tilted events, at most 0.
        folds: share of events beyond a fold.
        found: share of held-out events that Newton gives back.
        reached: share of moved latents with a point of the surface over them.
        simplicity: mean log density of the data in these coordinates, up to a constant.
    """

    pivots: tuple[int, ...]
    tilt: float
    folds: float
    found: float
    reached: float
    simplicity: float

    @property
    def safe(self) -> bool:
        """Whether trials lose next to nothing."""
        return min(self.found, self.reached) >= SAFE_SHARE

    @property
    def key(self) -> float:
        """What is compared: simplicity, less a penalty for what the trials lose."""
        if not self.found:
            return -torch.inf
        shortfall = SAFE_SHARE - min(self.found, self.reached, SAFE_SHARE)
        return self.simplicity - SHORTFALL_PENALTY * shortfall


@dataclass(frozen=True)
class PivotChoice:
    """The sets tried, best first."""

    scores: tuple[PivotScore, ...]

    @property
    def best(self) -> PivotScore:
        """The set to be used."""
        return self.scores[0]

    def describe(self, names: Sequence[str], rows: int = 5) -> str:
        """Return a table of the best sets in the observables' names."""
        lines = ["found    reached  folds    tilt  simplicity  pivots"]
        for score in self.scores[:rows]:
            chosen = ", ".join(names[i] for i in score.pivots)
            lines.append(
                f"{score.found:.4f}   {score.reached:.4f}   {score.folds:.4f} "
                f"{score.tilt:6.1f}  {score.simplicity:10.2f}  {chosen}"
            )
        return "\n".join(lines)


def choose_pivots(
    constraints: nn.Module, x: Events, *, seed: int, edges: Edges | None = None
) -> PivotChoice:
    """Return sets of d = n - m pivots, best first.

    Args:
        constraints: F with `with_jacobian`, (N, n) -> (N, m), (N, m, n).
        x: standardised events on the surface, (N, n).
        seed: of the choice of events and of the moves of the trials.
        edges: inequalities that points have to obey.

    Raises:
        ChartError: no set of pivots determines the other observables at all events.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    x = x.double()[order[: REGRESSION_EVENTS + TRIAL_EVENTS]]
    with torch.no_grad():
        search = _Search(constraints, x)
        trials = _Trials(search, x, edges or Edges(0), seed)
        for share in WORST_SHARES:
            pivots = search.climb(search.first(share), share)
            trials.add(pivots)
            trials.add(search.climb_to_simplicity(pivots))
        for _ in range(ROUNDS):
            before = trials.best
            for pivots in search.neighbours(before.pivots):
                trials.add(pivots)
            if before is trials.best:
                break
    ranked = sorted(trials.scores.values(), key=lambda score: score.key, reverse=True)
    if not ranked[0].found:
        message = (
            "no set of pivots determines the other observables; expected events on one surface "
            "of the constraints, away from its singular points"
        )
        raise ChartError(message)
    return PivotChoice(tuple(ranked))


def build_implicit_chart(
    constraints: nn.Module,
    x: Events,
    shape: ImplicitShape | None = None,
    *,
    epochs: int = 10,
    seed: int,
    edges: Edges | None = None,
) -> tuple[ImplicitChart, PivotChoice]:
    """Return the chart on the best pivots with a trained warm start, and the sets tried.

    Where the constraints are augmented by functions, those that are no pivots are left out.

    Args:
        constraints: F with `with_jacobian`.
        x: standardised events on the surface, (N, n).
        shape: width and depth of the network (the other integers are found).
        epochs: passes over the events for the warm start.
        seed: of every random choice.
        edges: inequalities that points have to obey.

    Raises:
        ChartError: as `choose_pivots`.
    """
    choice = choose_pivots(constraints, x, seed=seed, edges=edges)
    shape = shape or ImplicitShape(n_linear=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chart, columns = _chart_on(constraints, x, choice.best.pivots, shape, edges)
    chart.fit_warm_start(x[:, columns], epochs=epochs, seed=seed)
    return chart, choice


class _Search:
    """Gradients of the constraints at some events, and what swaps of pivots do to their tilt."""

    def __init__(self, constraints: nn.Module, x: Tensor) -> None:
        self.constraints = constraints
        self.simplicity = Simplicity(x)
        some = x[:SEARCH_EVENTS]
        self.slope = constraints.with_jacobian(some)[1]  # pyright: ignore[reportCallIssue]
        n_constraints = self.slope.shape[1]
        self.area = 0.5 * torch.logdet(self.slope @ self.slope.mT)
        self.frames = torch.linalg.svd(self.slope[:FRAMES]).Vh[:, n_constraints:].mT

    def first(self, share: float) -> tuple[int, ...]:
        """Return pivots one after the other: rank-revealing QR of all local frames at once.

        The next pivot is the row of the tangent frames T (n, d) that is longest, at the `share`
        of events where it is shortest and in the mean of logarithms, once the span of the rows
        chosen before is projected out.
        """
        rows = self.frames.clone()
        chosen: list[int] = []
        for _ in range(rows.shape[2]):
            length = torch.linalg.vector_norm(rows, dim=-1).clamp_min(1e-12)
            score = _lowest(length.log(), share)
            score[chosen] = -torch.inf
            chosen.append(int(score.argmax()))
            unit = rows[:, chosen[-1]] / length[:, chosen[-1], None]
            rows = rows - (rows @ unit[..., None]) * unit[:, None]
        return tuple(sorted(chosen))

    def _others(self, pivots: Sequence[int]) -> list[int]:
        return [i for i in range(self.slope.shape[2]) if i not in pivots]

    def tilts(self, pivots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the tilt and the sign of det F_v at the events, two of (N,)."""
        sign, size = torch.linalg.slogdet(self.slope[:, :, self._others(pivots)])
        return (size - self.area).clamp_min(SMALLEST_TILT), sign

    def _swaps(self, pivots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return tilts and signs after the swap of each other observable and pivot, (N, m, d)."""
        tilt, sign = self.tilts(pivots)
        others = self._others(pivots)
        graph = torch.linalg.solve_ex(self.slope[:, :, others], self.slope[:, :, list(pivots)])
        table = graph.result.nan_to_num(0.0)
        tilt_after = (tilt[:, None, None] + table.abs().log()).clamp_min(SMALLEST_TILT)
        return tilt_after, sign[:, None, None] * table.sign()

    def _simplicity_after(self, pivots: Sequence[int]) -> Tensor:
        """Return the penalised simplicity after each swap, (m, d)."""
        tilt, sign = self._swaps(pivots)
        sets = torch.tensor([self._swapped(pivots, k) for k in range(tilt[0].numel())])
        cost = self.simplicity.cost(sets.to(tilt.device)).reshape(tilt.shape[1:])
        return tilt.mean(dim=0) - FOLD_PENALTY * _folds(sign) - cost

    def simple(self, pivots: Sequence[int]) -> float:
        """Return the simplicity of a set, penalised for folds."""
        tilt, sign = self.tilts(pivots)
        cost = self.simplicity.cost(torch.tensor(list(pivots), device=tilt.device))
        return float(tilt.mean() - FOLD_PENALTY * _folds(sign) - cost)

    def climb(self, pivots: tuple[int, ...], share: float) -> tuple[int, ...]:
        """Return the set whose most tilted events no single swap turns up."""
        best = float(_objective(*self.tilts(pivots), share))
        return self._climb(pivots, best, lambda p: _objective(*self._swaps(p), share))

    def climb_to_simplicity(self, pivots: tuple[int, ...]) -> tuple[int, ...]:
        """Return the set that no single swap makes simpler."""
        return self._climb(pivots, self.simple(pivots), self._simplicity_after)

    def _climb(
        self,
        pivots: tuple[int, ...],
        best: float,
        table_of: Callable[[tuple[int, ...]], Tensor],
    ) -> tuple[int, ...]:
        for _ in range(100):
            table = table_of(pivots)
            if not bool(table.max() > best + 1e-6):
                break
            best = float(table.max())
            pivots = self._swapped(pivots, int(table.argmax()))
        return pivots

    def _swapped(self, pivots: Sequence[int], flat: int) -> tuple[int, ...]:
        row, column = divmod(flat, len(pivots))
        kept = [p for i, p in enumerate(pivots) if i != column]
        return tuple(sorted([*kept, self._others(pivots)[row]]))

    def neighbours(self, pivots: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the sets one swap away, simplest first."""
        table = self._simplicity_after(pivots).flatten()
        for flat in table.argsort(descending=True)[:NEIGHBOURS].tolist():
            yield self._swapped(pivots, flat)


def _objective(tilt: Tensor, sign: Tensor, share: float) -> Tensor:
    """Return the mean tilt of the most tilted events minus a penalty on folds, over axis 0."""
    return _lowest(tilt, share) - FOLD_PENALTY * _folds(sign)


def _lowest(values: Tensor, share: float) -> Tensor:
    """Return the mean of the lowest share, over axis 0."""
    count = max(1, round(share * len(values)))
    return values.topk(count, dim=0, largest=False).values.mean(dim=0)


def _folds(sign: Tensor) -> Tensor:
    """Return the share of the rarer sign, over axis 0."""
    return 0.5 - 0.5 * sign.mean(dim=0).abs()


class _Trials:
    """Sets of pivots tried out on held-out events, each once."""

    def __init__(self, search: _Search, x: Tensor, edges: Edges, seed: int) -> None:
        self.search, self.edges, self.seed = search, edges, seed
        self.known, self.held_out = x[:-TRIAL_EVENTS], x[-TRIAL_EVENTS:]
        self.scores: dict[tuple[int, ...], PivotScore] = {}

    @property
    def best(self) -> PivotScore:
        """The best set so far."""
        return max(self.scores.values(), key=lambda score: score.key)

    def add(self, pivots: tuple[int, ...]) -> None:
        """Try a set out unless it has been."""
        if pivots in self.scores:
            return
        tilt, sign = self.search.tilts(pivots)
        found, reached = self._shares(pivots)
        self.scores[pivots] = PivotScore(
            pivots,
            tilt=float(_lowest(tilt, 0.01)),
            folds=float(_folds(sign)),
            found=found,
            reached=reached,
            simplicity=self.search.simple(pivots),
        )

    def _shares(self, pivots: tuple[int, ...]) -> tuple[float, float]:
        """Return the shares found and reached by a chart with a quadratic warm start."""
        try:
            chart, columns = _chart_on(
                self.search.constraints, self.known, pivots, _BARE, self.edges
            )
        except ChartError:
            return 0.0, 0.0
        generator = torch.Generator().manual_seed(self.seed)
        u = self.held_out[:, list(pivots)]
        noise = torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device)
        back, arrived = chart.double().found_directly(u)
        same = (back - self.held_out[:, columns]).abs().amax(dim=-1) < 1e-4
        reached = chart.found_directly(u + JITTER * noise)[1]
        return float((arrived & same).double().mean()), float(reached.double().mean())


_BARE = ImplicitShape(n_linear=0, hidden=1, blocks=0)


def _chart_on(
    constraints: nn.Module,
    x: Events,
    pivots: Sequence[int],
    shape: ImplicitShape,
    edges: Edges | None,
) -> tuple[ImplicitChart, list[int]]:
    """Return the chart over pivots, without functions that are none, and the columns of x kept."""
    columns = list(range(x.shape[1]))
    if isinstance(constraints, AugmentedConstraints):
        constraints, columns = constraints.reduced_to(pivots)
    kept = [columns.index(p) for p in sorted(pivots)]
    return ImplicitChart.on_pivots(constraints, x[:, columns], kept, shape, edges), columns
