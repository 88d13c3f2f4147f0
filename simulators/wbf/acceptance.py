"""Accept/reject at parameter points of their own: every waiting event is tried until accepted.

A proposal with coefficients c/g is accepted for an event at theta with probability
w(theta).c / (g max weight), so that accepted proposals follow p(.|theta).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InvalidRequest
from simulators.wbf.adaptation import AdaptedProposal
from simulators.wbf.constants import SCALE_PER_TEV2
from simulators.wbf.event_model import monomials
from simulators.wbf.matrix_element import theta_units
from simulators.wbf.proposals import CHUNK

__all__ = ["WINDOW", "Tally", "acceptance_weights", "parameter_points", "try_proposals"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

WINDOW = 2 * CHUNK
"""Events that proposals are tried for at a time; the others wait."""


class WeightedProposals(Protocol):
    """Proposals with coefficients (6, n) over g, and how many were proposed."""

    @property
    def coefficients(self) -> Array: ...  # noqa: D102
    @property
    def n_proposed(self) -> int: ...  # noqa: D102


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        n_proposed: Proposals tried.
        n_dropped: Accepted proposals that were dropped again.
        weight: Sum of acceptance probabilities.
        excess: Sum of what they exceed 1 by.
    """

    n_proposed: int = 0
    n_dropped: int = 0
    weight: float = 0.0
    excess: float = 0.0

    @property
    def overweight_fraction(self) -> float:
        """Share of the cross section lost to acceptance probabilities above 1."""
        return self.excess / self.weight


def parameter_points(theta: object) -> Array:
    """Theta as (N, 2) float64.

    Raises:
        InvalidRequest: Another shape, or no points.
    """
    points = np.asarray(theta, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        msg = f"theta must have shape (N, 2) with N >= 1; got {points.shape}"
        raise InvalidRequest(msg)
    return points


def acceptance_weights(points: Array, proposal: AdaptedProposal, setting: str) -> Array:
    """W(theta)/max weight, (N, 6): its product with the coefficients (1, f, ..) is a probability.

    Raises:
        InvalidRequest: Unknown setting, or a theta so large that the density overflows.
    """
    units = theta_units(setting)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = proposal.max_weight(points * SCALE_PER_TEV2[setting])
    if not np.isfinite(bound).all():
        msg = f"theta: the density overflows at {points[~np.isfinite(bound)][0].tolist()}"
        raise InvalidRequest(msg)
    return monomials(points) * units / bound[:, None]


def try_proposals(
    proposals: WeightedProposals,
    acceptance: Array,
    rng: np.random.Generator,
    tally: Tally,
) -> tuple[Index, Index]:
    """Try every proposal for one pending event: (pending events, proposals) of the acceptances.

    Args:
        proposals: n proposals, each tried once.
        acceptance: `acceptance_weights` of the pending events, (n_pending, 6).
        rng: Random numbers.
        tally: Counts to add to.
    """
    n = proposals.coefficients.shape[1]
    tried = np.arange(n) % len(acceptance)
    probability = np.einsum("nk,kn->n", acceptance[tried], proposals.coefficients)
    tally.n_proposed += proposals.n_proposed
    tally.weight += float(probability.sum())
    tally.excess += float(np.maximum(probability - 1, 0).sum())
    accepted = np.flatnonzero(rng.random(n) < probability)
    slots, first = np.unique(tried[accepted], return_index=True)
    return slots, accepted[first]
