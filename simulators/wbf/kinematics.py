"""Relations between the parton level and the final objects: recoil, photon pair, cuts.

Momenta here are component-major, (4, N) as (E, px, py, pz) in GeV; no checks.
"""

import math

import numpy as np
from numpy.typing import NDArray

from simulators.wbf import constants

__all__ = [
    "add_recoil",
    "decay_to_photons",
    "invariant_mass2",
    "momentum_from_rapidity",
    "passes_cuts",
    "remove_recoil",
    "transverse_momentum",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def momentum_from_rapidity(pt: Array, exp_rapidity: Array, mass2: Array | float) -> Array:
    """(mT cosh y, px, py, mT sinh y), mT^2 = m^2 + pT^2, from e^y: (4, N).

    Args:
        pt: (px, py), (2, N).
        exp_rapidity: e^y, (N,).
        mass2: m^2, (N,) or a number.
    """
    px, py = pt
    half = 0.5 * np.sqrt(mass2 + px * px + py * py)
    forward, backward = half * exp_rapidity, half / exp_rapidity
    return np.stack([forward + backward, px, py, forward - backward])


def invariant_mass2(p: Array) -> Array:
    """E^2 - |p|^2, (N,)."""
    return (p[0] - p[3]) * (p[0] + p[3]) - p[1] * p[1] - p[2] * p[2]


def transverse_momentum(p: Array) -> Array:
    """sqrt(px^2 + py^2), (N,)."""
    return np.sqrt(p[1] * p[1] + p[2] * p[2])


def add_recoil(objects: tuple[Array, ...], recoil: Array) -> tuple[Array, ...]:
    """Boost a system without transverse momentum until its transverse momentum is K.

    In the frame boosted along the beam by the system's rapidity, boost with gamma beta_T = K/M;
    then boost back.  The mass M and the rapidity of the system do not change, and
    prod d^2pT dy = d^2K prod' d^2pT' dy': the Jacobian is 1.

    Args:
        objects: Momenta whose transverse components add up to zero, each (4, N).
        recoil: K, (2, N), GeV.
    """
    total = sum(objects[1:], start=objects[0])
    longitudinal2 = (total[0] - total[3]) * (total[0] + total[3])
    return _boost(objects, total, longitudinal2, np.sqrt(longitudinal2), recoil)


def remove_recoil(objects: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """K = sum pT, and the objects in the frame where their transverse momenta add up to zero.

    The inverse of `add_recoil`.

    Returns:
        K (2, N) and the boosted momenta.
    """
    total = sum(objects[1:], start=objects[0])
    recoil = total[1:3]
    longitudinal2 = (total[0] - total[3]) * (total[0] + total[3])
    mass = np.sqrt(longitudinal2 - recoil[0] ** 2 - recoil[1] ** 2)
    return recoil, _boost(objects, total, longitudinal2, mass, -recoil)


def _boost(
    objects: tuple[Array, ...],
    total: Array,
    longitudinal2: Array,
    mass: Array,
    recoil: Array,
) -> tuple[Array, ...]:
    """Boost transversally by gamma beta = K/M in the frame where the system has rapidity zero."""
    kx, ky = recoil
    inverse = 1 / np.sqrt(longitudinal2)
    cosh, sinh = total[0] * inverse, total[3] * inverse
    gamma = np.sqrt(1 + (kx * kx + ky * ky) / (mass * mass))
    bx, by = kx / mass, ky / mass
    shrink = 1 / (1 + gamma)
    boosted = []
    for p in objects:
        energy, pz = p[0] * cosh - p[3] * sinh, p[3] * cosh - p[0] * sinh
        along = bx * p[1] + by * p[2]
        shift = along * shrink + energy
        energy = gamma * energy + along
        boosted.append(
            np.stack(
                [
                    energy * cosh + pz * sinh,
                    p[1] + bx * shift,
                    p[2] + by * shift,
                    pz * cosh + energy * sinh,
                ]
            )
        )
    return tuple(boosted)


def decay_to_photons(
    parent: Array, mass: Array, cosine: Array, azimuth: Array
) -> tuple[Array, Array]:
    """Two photons back to back in the rest frame of the parent, boosted along with it.

    Args:
        parent: (4, N).
        mass: Invariant mass of the parent, (N,).
        cosine: cos(polar angle) of the first photon in the rest frame, (N,).
        azimuth: Its azimuth, (N,).
    """
    half = 0.5 * mass
    transverse = half * np.sqrt(1 - cosine * cosine)
    nx, ny, nz = transverse * np.cos(azimuth), transverse * np.sin(azimuth), half * cosine
    along = (parent[1] * nx + parent[2] * ny + parent[3] * nz) / mass
    shift = along / (parent[0] + mass) + 0.5
    first = np.stack(
        [
            0.5 * parent[0] + along,
            nx + parent[1] * shift,
            ny + parent[2] * shift,
            nz + parent[3] * shift,
        ]
    )
    return first, parent - first


def passes_cuts(j1: Array, j2: Array, a1: Array, a2: Array) -> Mask:
    """Fiducial region: pT_j > 20, |eta_j| < 5, pT_a > 10, |eta_a| < 2.5, dR > 0.4, m_aa.

    dR between every two of the four objects, in pseudorapidity and azimuth; 115 < m_aa < 135 GeV.
    """
    inside = _acceptance(j1, constants.JET_PT_MIN, constants.JET_ETA_MAX)
    inside &= _acceptance(j2, constants.JET_PT_MIN, constants.JET_ETA_MAX)
    inside &= _acceptance(a1, constants.PHOTON_PT_MIN, constants.PHOTON_ETA_MAX)
    inside &= _acceptance(a2, constants.PHOTON_PT_MIN, constants.PHOTON_ETA_MAX)
    low, high = constants.PHOTON_PAIR_MASS_RANGE
    mass2 = invariant_mass2(a1 + a2)
    inside &= (mass2 > low * low) & (mass2 < high * high)
    survivors = np.flatnonzero(inside)
    inside[survivors] = _separated([p[:, survivors] for p in (j1, j2, a1, a2)])
    return inside


def _acceptance(p: Array, pt_min: float, eta_max: float) -> Mask:
    """PT > pt_min and |eta| < eta_max, without a logarithm: |pz| < pT sinh(eta_max)."""
    pt2 = p[1] * p[1] + p[2] * p[2]
    return (pt2 > pt_min * pt_min) & (p[3] * p[3] < pt2 * math.sinh(eta_max) ** 2)


def _separated(objects: list[Array]) -> Mask:
    eta = [np.arcsinh(p[3] / transverse_momentum(p)) for p in objects]
    phi = [np.arctan2(p[2], p[1]) for p in objects]
    apart = np.ones(eta[0].shape, dtype=bool)
    for i in range(len(objects)):
        for j in range(i):
            delta_phi = np.abs(phi[i] - phi[j])
            delta_phi = np.minimum(delta_phi, 2 * math.pi - delta_phi)
            delta_eta = eta[i] - eta[j]
            distance2 = delta_eta * delta_eta + delta_phi * delta_phi
            apart &= distance2 > constants.DELTA_R_MIN**2
    return apart
