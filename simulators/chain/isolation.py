r"""Photons, electrons and muons: identified with an efficiency, and isolated.

    I = sum of pT of other energy-flow objects with pT > 0.5 GeV and dR < 0.5, over the pT of the
    candidate;  isolated if I <= 0.12 (photons, electrons) or 0.25 (muons).

Another photon inside the cone counts, too: two photons of a very fast h -> gamma gamma lose each
other.  Source: Delphes (arXiv:1307.6346), modules `Efficiency` and `Isolation` of its CMS card.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.chain.distances import delta_r2
from simulators.chain.jagged import Jagged
from simulators.chain.pdg import ELECTRON, MUON, PHOTON
from simulators.chain.response import IDENTIFICATION

__all__ = ["CANDIDATES", "Candidate", "isolated", "isolation"]

Array = NDArray[np.float64]

CONE = 0.5
PT_MIN = 0.5


@dataclass(frozen=True)
class Candidate:
    """A kind of object that must be identified and isolated.

    Attributes:
        name: Name of its efficiency in `IDENTIFICATION`.
        kind: Kind of energy-flow object.
        ratio_max: Largest isolation sum over pT.
    """

    name: str
    kind: int
    ratio_max: float


CANDIDATES = {
    "Photon": Candidate("photon", PHOTON, 0.12),
    "Electron": Candidate("electron", ELECTRON, 0.12),
    "Muon": Candidate("muon", MUON, 0.25),
}


def isolated(flow: Jagged, candidate: Candidate, rng: np.random.Generator) -> Jagged:
    """Identified and isolated objects of one kind, leading pT first.

    Args:
        flow: Energy-flow objects of `observe`.
        candidate: Which.
        rng: Random numbers of the identification.
    """
    of_kind = np.flatnonzero(flow["kind"] == candidate.kind)
    pt, abs_eta = flow["pt"][of_kind], np.abs(flow["eta"][of_kind])
    efficiency = IDENTIFICATION[candidate.name](pt, abs_eta)
    possible = efficiency > 0
    of_kind, efficiency = of_kind[possible], efficiency[possible]
    chosen = of_kind[rng.random(of_kind.size) < efficiency]
    chosen = chosen[isolation(flow, chosen) <= candidate.ratio_max]
    kept = np.zeros(len(flow["pt"]), dtype=bool)
    kept[chosen] = True
    return flow.where(kept).descending("pt")


def isolation(flow: Jagged, chosen: NDArray[np.intp]) -> Array:
    """I of the chosen objects, (len(chosen),)."""
    place, other = flow.partners(flow.event[chosen])
    own = chosen[place]
    eta, phi, pt = flow["eta"], flow["phi"], flow["pt"]
    near = delta_r2(eta[other], phi[other], eta[own], phi[own]) < CONE * CONE
    near &= (pt[other] > PT_MIN) & (other != own)
    total = np.bincount(place[near], weights=pt[other[near]], minlength=chosen.size)
    return total / pt[chosen]
