"""What a pool was worth, and what is refused because it is worth too little."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.interfaces import Array

__all__ = [
    "LARGEST_NEGATIVE_SHARE",
    "LARGEST_POOR_SHARE",
    "LARGEST_REPETITION",
    "LEAST_EFFECTIVE_EVENTS",
    "ResamplingReport",
]

LEAST_EFFECTIVE_EVENTS = 100
"""n_eff of the pool at a theta below which averages there are off by more than a tenth of their
spread, however many events are drawn.  (A published test set of 10,000 events had 21.6.)"""
LARGEST_POOR_SHARE = 0.05
"""Share of the thetas drawn where the pool may be poorer: the tails of a prior."""
LARGEST_REPETITION = 10.0
"""Events drawn per effective event of the pool: beyond, a flow learns single events by heart."""
LARGEST_NEGATIVE_SHARE = 1e-5
"""Negative densities that rounded weights leave (NanoAOD: 3e-5 of each), counted as zero."""


@dataclass(frozen=True)
class ResamplingReport:
    """What became of a pool.

    Args:
        n_pool: events in the pool.
        n_events: events drawn.
        n_effective: 1 / sum_i p_i^2, p_i the probability of event i, averaged over theta.
        least_effective: n_eff at the theta where the pool is worth least.
        least_theta: that theta, (p,).
        largest_share: of the sum of weights at that theta, in one event: where it is not small,
            n_eff itself is a matter of luck.
        poor_share: share of thetas with n_eff below `LEAST_EFFECTIVE_EVENTS`.
        n_distinct: different events of the pool among those drawn.
        largest_multiplicity: how often the most frequent one was drawn.
        negative_share: largest share of |weights| that was negative and left out.
    """

    n_pool: int
    n_events: int
    n_effective: float
    least_effective: float
    least_theta: tuple[float, ...]
    largest_share: float
    poor_share: float
    n_distinct: int
    largest_multiplicity: int
    negative_share: float

    def counted(self, rows: NDArray[np.intp]) -> "ResamplingReport":
        """Return the report with the numbers of these rows drawn, (n,)."""
        counts = np.bincount(rows, minlength=1)
        return replace(
            self,
            n_events=len(rows),
            n_distinct=int((counts > 0).sum()),
            largest_multiplicity=int(counts.max()),
        )

    def __str__(self) -> str:
        """Return one sentence."""
        share = self.n_distinct / max(1, self.n_events)
        at = ", ".join(f"{value:.3g}" for value in self.least_theta)
        return (
            f"{self.n_events:,} events drawn from a pool of {self.n_pool:,}, worth "
            f"{self.n_effective:,.0f} events; {share:.1%} of those drawn are different ones, the "
            f"most frequent came {self.largest_multiplicity} times; at theta = ({at}) the pool is "
            f"worth {self.least_effective:,.0f}, one event carries {self.largest_share:.2%} there"
        )


def require_worth(
    effective: Array, theta: Array, n_effective: float, n_events: int, n_pool: int
) -> ResamplingReport:
    """Return a report without events, or refuse a pool that is worth too little.

    Args:
        effective: n_eff of the pool at each theta, (M,).
        theta: (M, p).
        n_effective: of the pool for all thetas together.
        n_events: to be drawn.
        n_pool: events in the pool.

    Raises:
        EventDataError: too small an effective size, by the constants of this room.
    """
    m = int(effective.argmin())
    worst = tuple(theta[m].tolist())
    poor = float((effective < LEAST_EFFECTIVE_EVENTS).mean())
    if poor > LARGEST_POOR_SHARE:
        msg = (
            f"the pool of {n_pool:,} events is worth fewer than {LEAST_EFFECTIVE_EVENTS} at "
            f"{poor:.0%} of the thetas (at {list(worst)}: {effective[m]:.1f}), expected at "
            f"{LARGEST_POOR_SHARE:.0%} at most: averages there would be noise however many events "
            "are drawn. Simulate nearer to those thetas (a benchmark there, or theta drawn from "
            "the prior), take more events, or a narrower prior."
        )
        raise EventDataError(msg)
    if n_events > LARGEST_REPETITION * n_effective:
        msg = (
            f"{n_events:,} events asked for from a pool of {n_pool:,} that is worth "
            f"{n_effective:,.0f}: each would come {n_events / n_effective:.0f} times, expected at "
            f"most {LARGEST_REPETITION:g} times. Ask for fewer events, or take a larger pool."
        )
        raise EventDataError(msg)
    return ResamplingReport(
        n_pool=n_pool,
        n_events=0,
        n_effective=n_effective,
        least_effective=float(effective[m]),
        least_theta=worst,
        largest_share=0.0,
        poor_share=poor,
        n_distinct=0,
        largest_multiplicity=0,
        negative_share=0.0,
    )
