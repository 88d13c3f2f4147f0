"""Momenta of one object in N events, and what two of them make: angles and transverse masses."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.interfaces import Array

__all__ = [
    "ATTRIBUTES",
    "PLANAR_ATTRIBUTES",
    "FourMomentum",
    "PlanarMomentum",
    "deltaeta",
    "deltaphi",
    "deltar",
    "transverse_mass",
]

ATTRIBUTES = ("e", "px", "py", "pz", "pt", "eta", "phi", "m")
PLANAR_ATTRIBUTES = ("px", "py", "pt", "phi")


@dataclass(frozen=True, eq=False)
class FourMomentum:
    """(E, px, py, pz) of one object in N events, columns of float64 in GeV.

    >>> photon = FourMomentum.from_pt_eta_phi_m([30.0], [0.0], [0.0], [0.0])
    >>> (photon + photon).e
    array([60.])
    """

    e: Array
    px: Array
    py: Array
    pz: Array

    @classmethod
    def from_pt_eta_phi_m(
        cls, pt: ArrayLike, eta: ArrayLike, phi: ArrayLike, m: ArrayLike
    ) -> "FourMomentum":
        """Return pT (cos phi, sin phi, sinh eta) with E^2 = p^2 + m^2, in float64."""
        pt, eta, phi, m = (np.asarray(column, dtype=np.float64) for column in (pt, eta, phi, m))
        with np.errstate(over="ignore", invalid="ignore"):
            px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
            return cls(np.sqrt(px * px + py * py + pz * pz + m * m), px, py, pz)

    def __add__(self, other: "FourMomentum") -> "FourMomentum":
        return FourMomentum(
            self.e + other.e, self.px + other.px, self.py + other.py, self.pz + other.pz
        )

    def __len__(self) -> int:
        return len(self.e)

    def take(self, indices: NDArray) -> "FourMomentum":
        """Return the four-momenta of the events at `indices` (numbers or a mask)."""
        return FourMomentum(self.e[indices], self.px[indices], self.py[indices], self.pz[indices])

    @property
    def pt(self) -> Array:
        """hypot(px, py), GeV."""
        return np.hypot(self.px, self.py)

    @property
    def eta(self) -> Array:
        """arcsinh(pz / pT); infinite along the beam."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.arcsinh(self.pz / self.pt)

    @property
    def phi(self) -> Array:
        """atan2(py, px), in (-pi, pi]."""
        return np.arctan2(self.py, self.px)

    @property
    def m(self) -> Array:
        """sqrt((E - |p|)(E + |p|)), GeV; rounding below zero counts as zero."""
        p = np.sqrt(self.px * self.px + self.py * self.py + self.pz * self.pz)
        return np.sqrt(np.maximum((self.e - p) * (self.e + p), 0.0))


@dataclass(frozen=True, eq=False)
class PlanarMomentum:
    """(px, py) in N events, GeV: a momentum of which only the transverse part is known.

    >>> PlanarMomentum.from_pt_phi([30.0], [0.0]).px
    array([30.])
    """

    px: Array
    py: Array

    @classmethod
    def from_pt_phi(cls, pt: ArrayLike, phi: ArrayLike) -> "PlanarMomentum":
        """Return pT (cos phi, sin phi)."""
        pt, phi = np.asarray(pt, dtype=np.float64), np.asarray(phi, dtype=np.float64)
        return cls(pt * np.cos(phi), pt * np.sin(phi))

    def __len__(self) -> int:
        return len(self.px)

    def take(self, indices: NDArray) -> "PlanarMomentum":
        """Return the momenta of the events at `indices` (numbers or a mask)."""
        return PlanarMomentum(self.px[indices], self.py[indices])

    @property
    def pt(self) -> Array:
        """hypot(px, py), GeV."""
        return np.hypot(self.px, self.py)

    @property
    def phi(self) -> Array:
        """atan2(py, px), in (-pi, pi]."""
        return np.arctan2(self.py, self.px)


AnyMomentum: TypeAlias = FourMomentum | PlanarMomentum


def deltaphi(x: AnyMomentum | ArrayLike, y: AnyMomentum | ArrayLike) -> Array:
    """Return phi_x - phi_y wrapped to [-pi, pi); of momenta or of azimuths.

    >>> deltaphi(np.array([3.0]), np.array([-3.0])).round(6)
    array([-0.283185])
    """
    first, second = (p.phi if isinstance(p, AnyMomentum) else np.asarray(p) for p in (x, y))
    return np.remainder(first - second + np.pi, 2 * np.pi) - np.pi


def deltaeta(x: FourMomentum, y: FourMomentum) -> Array:
    """Return eta_x - eta_y."""
    return x.eta - y.eta


def deltar(x: FourMomentum, y: FourMomentum) -> Array:
    """Return hypot(deltaeta, deltaphi)."""
    return np.hypot(deltaeta(x, y), deltaphi(x, y))


def transverse_mass(x: AnyMomentum, y: AnyMomentum) -> Array:
    """Return sqrt(2 pT_x pT_y (1 - cos deltaphi)), GeV: of a lepton and missing momentum, e.g."""
    return 2 * np.sqrt(x.pt * y.pt) * np.abs(np.sin(deltaphi(x, y) / 2))
