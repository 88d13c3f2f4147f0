"""Proposed parton-level events q q' -> q q' h behind generator cuts, with their coefficients.

c_k = d sigma_k(k1, k2) |d(parton level)/du| / g(u) inside the cuts, 0 outside: the mean of
w(theta).c over proposals is the parton-level sigma(theta), and accepting with probability
proportional to w(theta).c gives events of p(z|theta).

Cuts: pT > 18 GeV and |eta| < 5 of both quarks, |y| < 2.5 of the Higgs boson.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.wbf import constants
from simulators.wbf.kinematics import momentum_from_rapidity
from simulators.wbf.parton_level import differential_coefficients
from simulators.wbf.phase_space import PartonPoint, SamplingMap

__all__ = ["PartonProposals", "parton_proposals_at", "passes_generator_cuts"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_MAP = SamplingMap(low=-7.5, high=7.5)
"""Rapidity differences of a quark and the Higgs boson: the cuts allow no more."""


@dataclass(frozen=True)
class PartonProposals:
    """Proposals inside the cuts.

    Attributes:
        momenta: k1 (line from beam A), k2, h, (3, 4, n), GeV.
        coefficients: c_k of (1, f, ft, f^2, f ft, ft^2) over g, (6, n), pb.
        position: Place among the points proposed, (n,).
        n_proposed: Points proposed.
    """

    momenta: Array
    coefficients: Array
    position: Index
    n_proposed: int


def parton_proposals_at(
    u: Array, factor: Array, rng: np.random.Generator, channel: str
) -> PartonProposals:
    """Parton-level configurations at unit-cube points (7, n); coefficients times `factor` (n,)."""
    del rng  # nothing beyond u is random at parton level
    point = _MAP(u)
    factor = factor * point.jacobian
    position = np.flatnonzero((factor > 0) & passes_generator_cuts(point))
    pt1, pt2 = point.pt1[:, position], point.pt2[:, position]
    exp_rapidity = point.exp_rapidity[:, position]
    k1 = momentum_from_rapidity(pt1, exp_rapidity[0], 0.0)
    k2 = momentum_from_rapidity(pt2, exp_rapidity[1], 0.0)
    higgs = momentum_from_rapidity(-(pt1 + pt2), exp_rapidity[2], constants.HIGGS_MASS**2)
    coefficients = differential_coefficients(k1, k2, higgs, channel) * factor[position]
    return PartonProposals(np.stack([k1, k2, higgs]), coefficients, position, u.shape[1])


def passes_generator_cuts(point: PartonPoint) -> NDArray[np.bool_]:
    """Whether each configuration passes the cuts of the parton level, (n,)."""
    y1, y2, higgs = point.exp_rapidity
    inside = _within(higgs, constants.HIGGS_RAPIDITY_MAX)
    for pt, exp_rapidity in ((point.pt1, y1), (point.pt2, y2)):
        inside &= (pt * pt).sum(axis=0) > constants.PARTON_PT_MIN**2
        inside &= _within(exp_rapidity, constants.PARTON_ETA_MAX)
    return inside


def _within(exp_rapidity: Array, limit: float) -> NDArray[np.bool_]:
    edge = math.exp(limit)
    return (exp_rapidity < edge) & (exp_rapidity * edge > 1)
