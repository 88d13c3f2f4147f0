"""From stable particles to photons, electrons, muons, jets and missing momentum of events kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulators.chain.detector import Detector, observe
from simulators.chain.isolation import CANDIDATES, isolated
from simulators.chain.jagged import Jagged
from simulators.chain.jets import anti_kt_jets, without_overlap
from simulators.chain.pdg import charge_sign
from simulators.errors import ChainError

__all__ = ["DetectedEvents", "Reconstruction", "reconstruct"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reconstruction:
    """How events are reconstructed, and which are kept.

    Attributes:
        jet_radius: R of anti-kT.
        jet_pt_min: GeV.
        n_photons: Photons that an event needs, isolated, pT > 10 GeV and |eta| < 2.5.
        n_jets: Jets that an event needs.
        detector: Its efficiencies and resolutions.

    Raises:
        ChainError: A radius or a threshold that is not positive.
    """

    jet_radius: float = 0.5
    jet_pt_min: float = 20.0
    n_photons: int = 0
    n_jets: int = 0
    detector: Detector = field(default_factory=Detector)

    def __post_init__(self) -> None:
        if not (0 < self.jet_radius < 3 and self.jet_pt_min > 0):
            msg = (
                "jets need 0 < radius < 3 and a pT threshold above 0; "
                f"got {self.jet_radius} and {self.jet_pt_min} GeV"
            )
            raise ChainError(msg)


@dataclass(frozen=True)
class DetectedEvents:
    """Events kept, with what was seen of them.

    Attributes:
        rows: Number of each event among those given to the chain, (N,).
        collections: "Photon", "Electron", "Muon", "Jet" in Delphes' columns, float32, leading
            pT first.
        missing: "MET" (GeV) and "Phi", (N,).
    """

    rows: NDArray[np.int64]
    collections: Mapping[str, Jagged]
    missing: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def concatenate(parts: "list[DetectedEvents]") -> "DetectedEvents":
        """The events of all parts, one after the other.

        Raises:
            ChainError: There is none.
        """
        first = parts[0]
        if not any(map(len, parts)):
            msg = "no event passed the selection; ask for more events, or for fewer objects"
            raise ChainError(msg)
        return DetectedEvents(
            np.concatenate([part.rows for part in parts]),
            {
                name: Jagged.concatenate([part.collections[name] for part in parts])
                for name in first.collections
            },
            {
                name: np.concatenate([part.missing[name] for part in parts])
                for name in first.missing
            },
        )


def reconstruct(
    rows: NDArray[np.int64],
    particles: Jagged,
    settings: Reconstruction,
    rng: np.random.Generator,
) -> DetectedEvents:
    """See stable particles with the detector, and keep the events of the selection.

    Args:
        rows: Number of each event, (N,).
        particles: Stable particles of N events: px, py, pz, energy, pid.
        settings: Jets, selection, detector.
        rng: Random numbers.
    """
    flow = observe(particles, settings.detector, rng)
    objects = {name: isolated(flow, candidate, rng) for name, candidate in CANDIDATES.items()}
    kept = objects["Photon"].counts >= settings.n_photons
    rows, flow = rows[kept], flow.events(kept)
    objects = {name: collection.events(kept) for name, collection in objects.items()}
    jets = anti_kt_jets(flow, settings.jet_radius, settings.jet_pt_min)
    jets = without_overlap(jets, objects.values(), settings.jet_radius)
    kept = jets.counts >= settings.n_jets
    collections = {name: _delphes(name, objects[name].events(kept)) for name in objects}
    collections["Jet"] = _single_precision(jets.events(kept))
    return DetectedEvents(rows[kept], collections, _missing(flow.events(kept)))


def _delphes(name: str, objects: Jagged) -> Jagged:
    """PT, Eta, Phi and E = pT cosh(eta) of photons or Charge of leptons."""
    rounded = {key: objects[key.lower()].astype(np.float32) for key in ("PT", "Eta", "Phi")}
    if name == "Photon":
        pt, eta = rounded["PT"].astype(np.float64), rounded["Eta"].astype(np.float64)
        rounded["E"] = (pt * np.cosh(eta)).astype(np.float32)
        return Jagged(objects.offsets, rounded)
    return Jagged(objects.offsets, {**rounded, "Charge": charge_sign(objects["pid"])})


def _single_precision(jets: Jagged) -> Jagged:
    return Jagged(jets.offsets, {k: v.astype(np.float32) for k, v in jets.columns.items()})


def _missing(flow: Jagged) -> dict[str, NDArray[np.float32]]:
    """Minus the sum of all transverse momenta."""
    px, py = -flow.total("px"), -flow.total("py")
    missing = {"MET": np.hypot(px, py), "Phi": np.arctan2(py, px)}
    return {name: values.astype(np.float32) for name, values in missing.items()}
