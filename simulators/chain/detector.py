r"""Energy-flow objects: every stable particle through the tracker or a calorimeter.

    charged, leaves a track     pT' = pT exp(b z - b^2/2), direction and mass kept
    photons; electrons without  E'  = E  exp(b z - b^2/2) in the ECAL, massless
    other hadrons, neutral or   E'  = E  exp(b z - b^2/2) in the HCAL, massless
    charged without a track

with z ~ N(0, 1) and b^2 = ln(1 + s^2): a log-normal response of mean 1 and relative width s, as
in Delphes (arXiv:1307.6346).  Calorimeter objects below 0.5 GeV (ECAL) or 1 GeV (HCAL) are lost;
so are muons without a track, neutrinos, and everything beyond |eta| = 5.

Delphes-like, and not Delphes: particles are smeared one by one, not summed in towers (so there is
no significance cut, and no jet energy scale that makes up for it), and charged particles are not
bent on their way to the calorimeters.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulators.chain.jagged import Jagged
from simulators.chain.pdg import (
    CHARGED_HADRON,
    ELECTRON,
    INVISIBLE,
    MUON,
    NEUTRAL_HADRON,
    PHOTON,
    kinds,
)
from simulators.chain.response import (
    CALORIMETER_ETA_MAX,
    TRACK_RESOLUTION,
    TRACKING,
    ecal_resolution,
    hcal_resolution,
)

__all__ = ["Detector", "observe"]

Array = NDArray[np.float64]
Formula = Callable[[Array, Array], Array]
"""Of (pT, |eta|) for tracks, of (E, |eta|) for calorimeters."""

_TRACKS = {"hadron": CHARGED_HADRON, "electron": ELECTRON, "muon": MUON}
_SINH_ETA_MAX = math.sinh(CALORIMETER_ETA_MAX)


@dataclass(frozen=True)
class Detector:
    """Efficiencies and resolutions; by default the formulas of `response`.

    Attributes:
        tracking: Probability of a track, by "hadron", "electron", "muon".
        track_resolution: Relative width of a track's pT, by the same names.
        ecal: Width of an energy in the electromagnetic calorimeter, GeV.
        hcal: Width of an energy in the hadronic calorimeter, GeV.
        ecal_energy_min: Smallest energy that is seen, GeV.
        hcal_energy_min: Smallest energy that is seen, GeV.
    """

    tracking: Mapping[str, Formula] = field(default_factory=lambda: TRACKING)
    track_resolution: Mapping[str, Formula] = field(default_factory=lambda: TRACK_RESOLUTION)
    ecal: Formula = ecal_resolution
    hcal: Formula = hcal_resolution
    ecal_energy_min: float = 0.5
    hcal_energy_min: float = 1.0


def observe(particles: Jagged, detector: Detector, rng: np.random.Generator) -> Jagged:
    """Energy-flow objects of every event.

    Args:
        particles: Stable particles: px, py, pz, energy in GeV, pid.
        detector: Its efficiencies and resolutions.
        rng: Random numbers.

    Returns:
        Objects with px, py, pz, energy, pt, eta, phi, pid and kind: tracks keep the kind of their
        particle, what the ECAL sees is a photon, what the HCAL sees a neutral hadron.
    """
    kind = kinds(particles["pid"])
    px, py, pz, energy = (particles[name] for name in ("px", "py", "pz", "energy"))
    pt2 = px * px + py * py
    seen = np.flatnonzero(
        (kind != INVISIBLE) & (pt2 > 0) & (pz * pz < pt2 * (_SINH_ETA_MAX * _SINH_ETA_MAX))
    )
    event, kind, pid = particles.event[seen], kind[seen], particles["pid"][seen]
    px, py, pz, energy, pt = px[seen], py[seen], pz[seen], energy[seen], np.sqrt(pt2[seen])
    eta = np.arcsinh(pz / pt)
    abs_eta = np.abs(eta)
    track = _leave_tracks(pt, abs_eta, kind, detector, rng)
    factor = _response(pt, energy, abs_eta, kind, track, detector, rng)
    momentum = pt * np.cosh(eta)
    mass2 = np.maximum(energy * energy - momentum * momentum, 0.0)
    in_ecal = ~track & ((kind == PHOTON) | (kind == ELECTRON))
    factor = np.where(track, factor, factor * energy / momentum)
    momentum *= factor
    energy = np.where(track, np.sqrt(momentum * momentum + mass2), momentum)
    threshold = np.where(in_ecal, detector.ecal_energy_min, detector.hcal_energy_min)
    kept = np.flatnonzero(track | ((energy > threshold) & (kind != MUON)))
    kind = np.where(track, kind, np.where(in_ecal, PHOTON, NEUTRAL_HADRON)).astype(np.uint8)
    factor = factor[kept]
    columns = {
        "px": px[kept] * factor,
        "py": py[kept] * factor,
        "pz": pz[kept] * factor,
        "energy": energy[kept],
        "pt": pt[kept] * factor,
        "eta": eta[kept],
        "phi": np.arctan2(py[kept], px[kept]),
        "pid": pid[kept],
        "kind": kind[kept],
    }
    return Jagged.of(event[kept], len(particles), columns)


def _leave_tracks(
    pt: Array,
    abs_eta: Array,
    kind: NDArray[np.uint8],
    detector: Detector,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Whether each particle leaves a track."""
    track = np.zeros(len(pt), dtype=bool)
    for name, number in _TRACKS.items():
        some = np.flatnonzero(kind == number)
        efficiency = detector.tracking[name](pt[some], abs_eta[some])
        track[some] = rng.random(some.size) < efficiency
    return track


def _response(
    pt: Array,
    energy: Array,
    abs_eta: Array,
    kind: NDArray[np.uint8],
    track: NDArray[np.bool_],
    detector: Detector,
    rng: np.random.Generator,
) -> Array:
    """Measured over true: pT of tracks, energies in the calorimeters; 1 for lost muons."""
    width = np.zeros(len(pt))
    for name, number in _TRACKS.items():
        some = np.flatnonzero(track & (kind == number))
        width[some] = detector.track_resolution[name](pt[some], abs_eta[some])
    electromagnetic = (kind == PHOTON) | (kind == ELECTRON)
    for formula, part in (
        (detector.ecal, ~track & electromagnetic),
        (detector.hcal, ~track & ~electromagnetic & (kind != MUON)),
    ):
        some = np.flatnonzero(part)
        width[some] = formula(energy[some], abs_eta[some]) / energy[some]
    variance = np.log1p(width * width)
    return np.exp(np.sqrt(variance) * rng.standard_normal(len(pt)) - 0.5 * variance)
