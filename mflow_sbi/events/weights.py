r"""Weights of training events: averages, what they leave of the statistics, and those of theta.

Events (x_i, theta_i) with weights w_i stand for a density by its averages,

    E[l] = sum_i w_i l_i / sum_i w_i,

whatever produced the weights: another density (w = p_2 / p_1), a generator's cross section, or
a calculation beyond leading order, whose weights have both signs.  They are worth as much as

    n_eff = (sum_i w_i)^2 / sum_i w_i^2

events of equal weight.  A factor of all weights means nothing, and neither does one that depends
on theta only where it comes to p(x|theta): it is part of the prior over theta, pi.

*The prior.*  Densities of theta given x are normalised over pi, so that pi needs weights >= 0,
and those of theta alone.  Positive weights are their own.  Negative ones are merged with those of
the nearest thetas: cells of theta are halved as long as both halves sum to zero or more, and
inside a cell w_i becomes |w_i| sum w / sum |w| (cell resampling, arXiv:2109.07851).  Events of
equal theta are never parted, and averages of functions of theta stay what they were, up to how
much these vary over the smallest cells of positive weight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.interfaces import Array

__all__ = [
    "LEAST_EFFECTIVE_EVENTS",
    "LEAST_EFFECTIVE_SHARE",
    "WeightSummary",
    "equal_weights",
    "require_trainable",
    "spread_rows",
    "theta_weights",
    "training_weights",
]

LEAST_EFFECTIVE_EVENTS = 200
"""Events of equal weight below which there is nothing to train on: a tenth of them is held out,
and 20 events do not tell one epoch from the next."""
LEAST_EFFECTIVE_SHARE = 0.01
"""n_eff / N below which steps are noise: five events would steer a batch of 500."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class WeightSummary:
    """What N weights leave of the statistics.

    Args:
        n_events: N.
        n_effective: (sum w)^2 / sum w^2; 0 where the sum is not positive.
        negative_share: events of negative weight / N.
        cancelled_share: 1 - sum w / sum |w|: what the signs take away.
        largest_share: max |w| / sum |w|.
    """

    n_events: int
    n_effective: float
    negative_share: float
    cancelled_share: float
    largest_share: float

    @classmethod
    def of(cls, weight: Array) -> "WeightSummary":
        """Return the summary of finite weights (N,); all zero are worth nothing.

        >>> WeightSummary.of(np.array([1.0, 1.0, 1.0, -1.0])).n_effective
        1.0
        """
        largest = np.abs(weight).max(initial=0.0)
        if largest == 0:
            return cls(len(weight), 0.0, 0.0, 0.0, 0.0)
        scaled = weight / largest
        total, size = scaled.sum(), np.abs(scaled).sum()
        return cls(
            n_events=len(weight),
            n_effective=float(max(total, 0.0) ** 2 / np.square(scaled).sum()),
            negative_share=float((scaled < 0).mean()),
            cancelled_share=float(1.0 - total / size),
            largest_share=float(1.0 / size),
        )

    def __str__(self) -> str:
        """Return one sentence."""
        share = self.n_effective / self.n_events
        signs = ""
        if self.negative_share:
            signs = (
                f"; {self.negative_share:.2%} of them have negative weights, which cancel "
                f"{self.cancelled_share:.2%} of the sum of |w|"
            )
        return (
            f"{self.n_events:,} weighted events have the effective size (sum w)^2 / sum w^2 = "
            f"{self.n_effective:,.0f} ({share:.2%}){signs}; the largest weight is "
            f"{self.largest_share:.2%} of the sum of |w|"
        )


def equal_weights(weight: Array | None) -> bool:
    """Return whether there are no weights, or positive ones that differ by rounding only.

    >>> equal_weights(np.array([3.0, 3.0])), equal_weights(np.array([-1.0, -1.0]))
    (True, False)
    """
    if weight is None or not len(weight):
        return True
    low, high = float(weight.min()), float(weight.max())
    return bool(low > 0 and high <= (1.0 + _ROUNDING) * low and np.isfinite(high))


def training_weights(weight: Array | None) -> Array | None:
    """Return w_i / mean w, (N,), or None where all are equal.

    Raises:
        EventDataError: weights that are not finite, of no positive sum, or of too small an
            effective size: `LEAST_EFFECTIVE_EVENTS`, `LEAST_EFFECTIVE_SHARE` of the events.
    """
    if weight is None or equal_weights(weight):
        return None
    n_bad = int((~np.isfinite(weight)).sum())
    if n_bad:
        msg = (
            f"{n_bad:,} of {len(weight):,} event weights are not finite; expected numbers. Leave "
            "those events out."
        )
        raise EventDataError(msg)
    require_trainable(WeightSummary.of(weight), float(weight.sum()))
    return weight / weight.mean()


def require_trainable(summary: WeightSummary, total: float) -> None:
    """Refuse weights of this sum that nothing can be trained on.

    Raises:
        EventDataError: no positive sum, or too small an effective size.
    """
    if not total > 0:
        msg = (
            f"the weights of {summary.n_events:,} events sum to {total:.3g}; expected a "
            "positive sum: only then do they stand for a density. Look for a sign of all "
            "weights, or take more events."
        )
        raise EventDataError(msg)
    least = max(LEAST_EFFECTIVE_EVENTS, LEAST_EFFECTIVE_SHARE * summary.n_events)
    if summary.n_effective < least:
        msg = (
            f"{summary}. Training needs an effective size of at least "
            f"{LEAST_EFFECTIVE_EVENTS} and {LEAST_EFFECTIVE_SHARE:.0%} of the events, here "
            f"{least:,.0f}: take more events, or events simulated nearer to what the weights "
            "stand for, or leave out or merge those of very large weight."
        )
        raise EventDataError(msg)


def theta_weights(theta: Array, weight: Array) -> Array:
    """Return weights >= 0 of theta that average functions of theta as the given ones do.

    Positive weights are returned as they are; see the room's text for signed ones.

    Args:
        theta: parameters of the events, (N, p).
        weight: of positive sum, (N,).

    >>> theta_weights(np.array([[0.0], [0.0], [1.0]]), np.array([3.0, -1.0, 2.0])).tolist()
    [1.5, 0.5, 2.0]
    """
    if weight.min() >= 0:
        return weight
    spread = theta.std(axis=0)
    scaled = theta / np.where(spread > 0, spread, 1.0)
    result = np.array(weight)
    waiting = [np.arange(len(weight))]
    while waiting:
        rows = waiting.pop()
        own = weight[rows]
        if own.min() >= 0:
            continue
        halves = _halves(scaled[rows], own)
        if halves is None:
            result[rows] = np.abs(own) * max(own.sum(), 0.0) / np.abs(own).sum()
        else:
            waiting.extend((rows[halves], rows[~halves]))
    return result


def _halves(theta: Array, weight: Array) -> NDArray[np.bool_] | None:
    """Return which events lie below a cut near the median, widest parameter first; sums >= 0."""
    total = weight.sum()
    for column in np.argsort(theta.min(axis=0) - theta.max(axis=0)):
        values = theta[:, column]
        middle = np.partition(values, len(values) // 2)[len(values) // 2]
        below, not_above = values < middle, values <= middle
        nearer = not_above.sum() - len(values) / 2 < len(values) / 2 - below.sum()
        for lower in (not_above, below) if nearer else (below, not_above):
            if 0 < lower.sum() < len(values) and 0 <= weight[lower].sum() <= total:
                return lower
    return None


def spread_rows(n_rows: int, n: int, weight: Array | None = None) -> NDArray[np.intp]:
    """Return n of N rows, evenly spread over the rows, or over their weights >= 0, (n,).

    Equal weights at these rows stand for the given ones: row i comes n w_i / sum w times, up to
    one.

    >>> spread_rows(4, 2).tolist(), spread_rows(3, 4, np.array([1.0, 0.0, 3.0])).tolist()
    ([0, 3], [0, 2, 2, 2])
    """
    if weight is None:
        return np.linspace(0, n_rows - 1, n).astype(np.intp)
    cumulative = np.cumsum(weight)
    at = (np.arange(n) + 0.5) / n * cumulative[-1]
    return np.searchsorted(cumulative, at, side="right")
