r"""Which observables can carry the others: pivots chosen by data, v(u) with F(u, v) = 0.

Over the whole sample a set of pivots is judged by

    tilt   = log|det F_v| - 1/2 log det F F^T       (0: the surface runs along u; -inf: a fold)
    folds  = share of events at which det F_v has the rarer of its two signs

and, because a fold may hide between two events and a root outside the data, by two trials of the
chart itself with a quadratic regression as warm start, at held-out events:

    found   = share of events that Newton gives back
    reached = share of latents moved by 0.05 standard deviations that have a point over them

One swap of a pivot k with another observable j multiplies det F_v by C_jk, C = -F_v^-1 F_u, so
all swaps are known at once: the search starts at a rank-revealing QR of the pooled tangent frames
and climbs.  Tilt alone would choose narrow observables (a resonance's mass) that leave a sign or
a direction of others undetermined; folds and trials see that.

References:
    Gu and Eisenstat (1996), Efficient algorithms for computing a strong rank-revealing QR
    factorization, SIAM J. Sci. Comput. 17, 848.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mflow_sbi.charts.implicit import ImplicitChart, ImplicitShape
from mflow_sbi.errors import ChartError
from mflow_sbi.interfaces import Events

__all__ = ["PivotChoice", "PivotScore", "build_implicit_chart", "choose_pivots"]

SEARCH_EVENTS = 2000
REGRESSION_EVENTS = 5000
TRIAL_EVENTS = 1000
FRAMES = 500
JITTER = 0.05
WORST_SHARES = (0.3, 0.03, 0.005)
"""Shares of events, the most tilted ones, whose mean tilt the searches raise."""

FOLD_PENALTY = 100.0
SAFE_SHARE = 0.995
"""Sets that find and reach this share are taken as equal; the least tilted of them wins."""

NEIGHBOURS = 16
ROUNDS = 4
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
    """

    pivots: tuple[int, ...]
    tilt: float
    folds: float
    found: float
    reached: float

    @property
    def key(self) -> tuple[float, float]:
        """What is compared: the worst case up to `SAFE_SHARE`, then the tilt."""
        return min(self.found, self.reached, SAFE_SHARE), self.tilt


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
        lines = ["found    reached  folds    tilt  pivots"]
        for score in self.scores[:rows]:
            chosen = " ".join(names[i] for i in score.pivots)
            lines.append(
                f"{score.found:.4f}   {score.reached:.4f}   {score.folds:.4f} "
                f"{score.tilt:6.1f}  {chosen}"
            )
        return "\n".join(lines)


def choose_pivots(constraints: nn.Module, x: Events, *, seed: int) -> PivotChoice:
    """Return sets of d = n - m pivots, best first.

    Args:
        constraints: F with `with_jacobian`, (N, n) -> (N, m), (N, m, n).
        x: standardised events on the surface, (N, n).
        seed: of the choice of events and of the moves of the trials.

    Raises:
        ChartError: no set of pivots determines the other observables at all events.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    x = x.double()[order[: REGRESSION_EVENTS + TRIAL_EVENTS]]
    with torch.no_grad():
        search = _Search(constraints, x[:SEARCH_EVENTS])
        scores: dict[tuple[int, ...], PivotScore] = {}
        for share in WORST_SHARES:
            pivots = search.climb(search.first(share), share)
            scores[pivots] = _try_out(search, pivots, x, seed)
        for _ in range(ROUNDS):
            before = max(scores.values(), key=lambda score: score.key)
            if min(before.found, before.reached) >= SAFE_SHARE:
                break
            for pivots in search.neighbours(before.pivots):
                if pivots not in scores:
                    scores[pivots] = _try_out(search, pivots, x, seed)
            if before is max(scores.values(), key=lambda score: score.key):
                break
    ranked = sorted(scores.values(), key=lambda score: score.key, reverse=True)
    if ranked[0].found == 0:
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
) -> tuple[ImplicitChart, PivotChoice]:
    """Return the chart on the best pivots with a trained warm start, and the sets tried.

    Args:
        constraints: F with `with_jacobian`.
        x: standardised events on the surface, (N, n).
        shape: width and depth of the network (`n_linear` is found).
        epochs: passes over the events for the warm start.
        seed: of every random choice.

    Raises:
        ChartError: as `choose_pivots`.
    """
    choice = choose_pivots(constraints, x, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chart = ImplicitChart.on_pivots(
            constraints, x, choice.best.pivots, shape or ImplicitShape(n_linear=0)
        )
    chart.fit_warm_start(x, epochs=epochs, seed=seed)
    return chart, choice


class _Search:
    """Gradients of the constraints at some events, and what swaps of pivots do to their tilt."""

    def __init__(self, constraints: nn.Module, x: Tensor) -> None:
        self.constraints = constraints
        self.slope = constraints.with_jacobian(x)[1]  # pyright: ignore[reportCallIssue]
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

    def swaps(self, pivots: Sequence[int], share: float) -> Tensor:
        """Return the objective after the swap of each other observable and pivot, (m, d)."""
        others = self._others(pivots)
        tilt, sign = self.tilts(pivots)
        graph = torch.linalg.solve_ex(self.slope[:, :, others], self.slope[:, :, list(pivots)])
        table = graph.result.nan_to_num(0.0)
        tilt_after = (tilt[:, None, None] + table.abs().log()).clamp_min(SMALLEST_TILT)
        return _objective(tilt_after, sign[:, None, None] * table.sign(), share)

    def climb(self, pivots: tuple[int, ...], share: float) -> tuple[int, ...]:
        """Return the set that no single swap improves."""
        best = _objective(*self.tilts(pivots), share)
        for _ in range(100):
            table = self.swaps(pivots, share)
            if not bool(table.max() > best + 1e-6):
                break
            best = table.max()
            pivots = self._swapped(pivots, int(table.argmax()))
        return pivots

    def _swapped(self, pivots: Sequence[int], flat: int) -> tuple[int, ...]:
        row, column = divmod(flat, len(pivots))
        kept = [p for i, p in enumerate(pivots) if i != column]
        return tuple(sorted([*kept, self._others(pivots)[row]]))

    def neighbours(self, pivots: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the sets one swap away, most promising first."""
        table = self.swaps(pivots, WORST_SHARES[-1]).flatten()
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


def _try_out(search: _Search, pivots: tuple[int, ...], x: Tensor, seed: int) -> PivotScore:
    """Return the score of a set: tilt and folds at the events, trials at held-out ones."""
    tilt, sign = search.tilts(pivots)
    worst = float(_lowest(tilt, 0.01))
    found, reached = 0.0, 0.0
    known, held_out = x[:-TRIAL_EVENTS], x[-TRIAL_EVENTS:]
    try:
        chart = ImplicitChart.on_pivots(
            search.constraints, known, pivots, ImplicitShape(n_linear=0, hidden=1, blocks=0)
        ).double()
    except ChartError:
        return PivotScore(pivots, worst, float(_folds(sign)), found, reached)
    generator = torch.Generator().manual_seed(seed)
    u = held_out[:, list(pivots)]
    back, arrived = chart.found_directly(u)
    same = (back - held_out).abs().amax(dim=-1) < 1e-4
    moved = u + JITTER * torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device)
    found = float((arrived & same).double().mean())
    reached = float(chart.found_directly(moved)[1].double().mean())
    return PivotScore(pivots, worst, float(_folds(sign)), found, reached)
