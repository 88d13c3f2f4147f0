r"""Efficiencies and resolutions of the detector: the formulas of the CMS card of Delphes.

Source: Delphes (arXiv:1307.6346), its card `delphes_card_CMS.tcl`; pT, E in GeV, a = |eta|.
Tracking and identification efficiencies are step functions of (pT, a), given below as tables.
Resolutions:

    tracks       s(pT)/pT = sqrt(c^2 + (k pT)^2), c and k by a <= 0.5, 1.5, 2.5
    ECAL         s(E) = g sqrt((0.008 E)^2 + 0.11^2 E + 0.40^2),
                 g = 1 + 0.64 a^2 (a <= 1.5), 2.16 + 5.6 (a - 2)^2 (a <= 2.5);
                 s(E) = sqrt((0.107 E)^2 + 2.08^2 E) (a <= 5)
    HCAL         s(E) = sqrt((0.050 E)^2 + 1.50^2 E) (a <= 3),
                 s(E) = sqrt((0.130 E)^2 + 2.70^2 E) (a <= 5)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CALORIMETER_ETA_MAX",
    "IDENTIFICATION",
    "TRACKING",
    "TRACKING_ETA_MAX",
    "TRACK_RESOLUTION",
    "Steps",
    "TrackResolution",
    "ecal_resolution",
    "hcal_resolution",
]

Array = NDArray[np.float64]

TRACKING_ETA_MAX = 2.5
CALORIMETER_ETA_MAX = 5.0


@dataclass(frozen=True)
class Steps:
    """An efficiency constant in boxes: values[i][j] for eta_edges[i] and pt_edges[j] passed.

    Zero for pT <= pt_edges[0] and for |eta| > eta_edges[-1]; boxes include their upper edges.

    Example:
        >>> TRACKING["hadron"](np.array([0.05, 0.5, 2.0]), np.array([0.0, 0.0, 2.0])).tolist()
        [0.0, 0.7, 0.85]
    """

    eta_edges: tuple[float, ...]
    pt_edges: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def __call__(self, pt: Array, abs_eta: Array) -> Array:
        """Efficiency at pT and |eta|."""
        table = np.zeros((len(self.eta_edges) + 1, len(self.pt_edges) + 1))
        table[:-1, 1:] = self.values
        row = np.searchsorted(self.eta_edges, abs_eta, side="left")
        column = np.searchsorted(self.pt_edges, pt, side="left")
        return table[row, column]


TRACKING = {
    "hadron": Steps((1.5, 2.5), (0.1, 1.0), ((0.70, 0.95), (0.60, 0.85))),
    "electron": Steps((1.5, 2.5), (0.1, 1.0, 100.0), ((0.73, 0.95, 0.99), (0.50, 0.83, 0.90))),
    "muon": Steps((1.5, 2.5), (0.1, 1.0), ((0.75, 0.99), (0.70, 0.98))),
}
"""Probability that a charged particle leaves a track."""

_IDENTIFIED = Steps((1.5, 2.5), (10.0,), ((0.95,), (0.85,)))


def _muon_identification(pt: Array, abs_eta: Array) -> Array:
    """0.95 above 10 GeV up to |eta| = 2.4, falling as exp(0.5 - pT/2000) above 1 TeV."""
    plateau = Steps((2.4,), (10.0,), ((0.95,),))(pt, abs_eta)
    return plateau * np.where(pt > 1000.0, np.exp(0.5 - 5e-4 * np.maximum(pt, 1000.0)), 1.0)


IDENTIFICATION = {
    "photon": _IDENTIFIED,
    "electron": _IDENTIFIED,
    "muon": _muon_identification,
}
"""Probability that a photon, electron or muon is identified as one."""


@dataclass(frozen=True)
class TrackResolution:
    """s(pT)/pT = sqrt(constant^2 + (slope pT)^2) for |eta| up to 0.5, 1.5 and beyond."""

    constant: tuple[float, float, float]
    slope: tuple[float, float, float]

    def __call__(self, pt: Array, abs_eta: Array) -> Array:
        """Relative resolution at pT and |eta|."""
        region = np.searchsorted((0.5, 1.5), abs_eta, side="left")
        scaled = np.array(self.slope)[region] * pt
        constant = np.array(self.constant)[region]
        return np.sqrt(constant * constant + scaled * scaled)


TRACK_RESOLUTION = {
    "hadron": TrackResolution((0.01, 0.015, 0.025), (1.5e-4, 2.5e-4, 5.5e-4)),
    "electron": TrackResolution((0.03, 0.05, 0.15), (1.3e-3, 1.7e-3, 3.1e-3)),
    "muon": TrackResolution((0.01, 0.015, 0.025), (1.0e-4, 1.5e-4, 3.5e-4)),
}


def ecal_resolution(energy: Array, abs_eta: Array) -> Array:
    """S(E) of the electromagnetic calorimeter, GeV."""
    barrel = 1 + 0.64 * abs_eta * abs_eta
    endcap = 2.16 + 5.6 * (abs_eta - 2) ** 2
    shape = np.where(abs_eta <= 1.5, barrel, endcap)
    inner = shape * np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    outer = np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy)
    return np.where(abs_eta <= 2.5, inner, outer)


def hcal_resolution(energy: Array, abs_eta: Array) -> Array:
    """S(E) of the hadronic calorimeter, GeV."""
    forward = abs_eta > 3.0
    constant, stochastic = np.where(forward, 0.130, 0.050), np.where(forward, 2.70, 1.50)
    return np.sqrt((constant * energy) ** 2 + stochastic**2 * energy)
