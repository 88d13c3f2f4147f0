"""Proposed events: phase-space points carried through the event model, with their coefficients.

A proposal is a parton-level point u ~ g, smeared, recoiled and decayed by the densities of the
event model (which therefore cancel), with coefficients

    c_k = d sigma_k(k1, k2) |d(parton level)/du| / g(u)    inside the cuts, 0 outside,

so that the mean of w(theta).c over proposals is sigma_fid(theta), and accepting a proposal with
probability proportional to w(theta).c gives an event of p(x|theta).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.wbf import constants
from simulators.wbf.kinematics import (
    add_recoil,
    decay_to_photons,
    momentum_from_rapidity,
    passes_cuts,
)
from simulators.wbf.parton_level import differential_coefficients
from simulators.wbf.phase_space import MixtureProposal, PartonPoint, SamplingMap

__all__ = ["CHUNK", "Proposals", "draw_proposals", "proposals_at"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

CHUNK = 8192
"""Proposals handled at once: their arrays stay in the cache."""

_MAP = SamplingMap()


@dataclass(frozen=True)
class Proposals:
    """Proposals inside the cuts.

    Attributes:
        momenta: j1, j2, a1, a2 as generated (not ordered), each (4, n), GeV.
        coefficients: c_k of (1, f, ft, f^2, f ft, ft^2) over g, (6, n), pb.
        position: Place among the points proposed, (n,).
        n_proposed: Points proposed, including those outside the cuts.
    """

    momenta: tuple[Array, Array, Array, Array]
    coefficients: Array
    position: Index
    n_proposed: int


def draw_proposals(
    rng: np.random.Generator, proposal: MixtureProposal, channel: str, n: int = CHUNK
) -> Proposals:
    """Propose n points from g and keep those inside the cuts, with c_k/g."""
    u, g = proposal.sample(rng, n)
    return proposals_at(u, 1 / g, rng, channel)


def proposals_at(u: Array, factor: Array, rng: np.random.Generator, channel: str) -> Proposals:
    """Carry unit-cube points (7, n) through the event model; coefficients times `factor` (n,)."""
    point = _MAP(u)
    n = u.shape[1]
    objects = _final_objects(point, rng)
    factor = factor * point.jacobian
    position = np.flatnonzero(passes_cuts(*objects) & (factor > 0))
    j1, j2, a1, a2 = (p[:, position] for p in objects)
    coefficients = _parton_coefficients(point, position, channel) * factor[position]
    return Proposals((j1, j2, a1, a2), coefficients, position, n)


def _final_objects(
    point: PartonPoint, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Masses, recoil, photons: every random number of the event model beyond the parton level."""
    n = point.jacobian.size
    normal = rng.standard_normal((3, n))
    uniform = rng.random((4, n))
    jets = [
        momentum_from_rapidity(pt, exp_rapidity, _jet_mass(pt, z) ** 2)
        for pt, exp_rapidity, z in zip(
            (point.pt1, point.pt2), point.exp_rapidity, normal, strict=False
        )
    ]
    mass = constants.PHOTON_PAIR_MASS + constants.PHOTON_PAIR_WIDTH * normal[2]
    pair_pt = -(point.pt1 + point.pt2)
    pair = momentum_from_rapidity(pair_pt, point.exp_rapidity[2], mass * mass)
    j1, j2, pair = add_recoil((jets[0], jets[1], pair), _draw_recoil(uniform[0], uniform[1]))
    a1, a2 = decay_to_photons(pair, mass, 2 * uniform[2] - 1, 2 * math.pi * uniform[3])
    return j1, j2, a1, a2


def _jet_mass(pt: Array, normal: Array) -> Array:
    pt_size = np.sqrt(pt[0] * pt[0] + pt[1] * pt[1])
    centre = constants.JET_MASS_OFFSET + constants.JET_MASS_SLOPE * pt_size
    return centre * np.exp(constants.JET_MASS_WIDTH * normal)


def _draw_recoil(radial: Array, angular: Array) -> Array:
    """K = k0 sqrt(r^(-1/(n-1)) - 1), r uniform on (0, 1]; direction uniform: (2, N)."""
    remaining = (1 - radial) ** (-1 / (constants.RECOIL_POWER - 1))
    size = constants.RECOIL_SCALE * np.sqrt(remaining - 1)
    angle = (2 * math.pi) * angular
    return np.stack([size * np.cos(angle), size * np.sin(angle)])


def _parton_coefficients(point: PartonPoint, position: Index, channel: str) -> Array:
    pt1, pt2 = point.pt1[:, position], point.pt2[:, position]
    exp_rapidity = point.exp_rapidity[:, position]
    k1 = momentum_from_rapidity(pt1, exp_rapidity[0], 0.0)
    k2 = momentum_from_rapidity(pt2, exp_rapidity[1], 0.0)
    higgs = momentum_from_rapidity(-(pt1 + pt2), exp_rapidity[2], constants.HIGGS_MASS**2)
    return differential_coefficients(k1, k2, higgs, channel)
