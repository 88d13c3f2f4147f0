r"""Anti-kT jets of energy-flow objects (fastjet), isolated objects removed.

    d_ij = min(1/pT_i^2, 1/pT_j^2) dR_ij^2/R^2,    d_iB = 1/pT_i^2,    four-momenta added.

Sources: anti-kT, arXiv:0802.1189; fastjet, arXiv:1111.6097.  A jet within R of an isolated photon
or lepton is that photon or lepton, and is removed (Delphes: `UniqueObjectFinder`, there by shared
constituents).
"""

from collections.abc import Iterable

import awkward as ak
import fastjet
import numpy as np
from fastjet._swig import ClusterSequence  # the class that owns the banner
from numpy.typing import NDArray

from simulators.chain.distances import delta_r2
from simulators.chain.jagged import Jagged

__all__ = ["anti_kt_jets", "without_overlap"]


def anti_kt_jets(flow: Jagged, radius: float, pt_min: float) -> Jagged:
    """Jets with pT > pt_min, leading pT first: columns PT, Eta, Phi, Mass (float64).

    Args:
        flow: Objects with px, py, pz, energy in GeV.
        radius: R.
        pt_min: Smallest transverse momentum, GeV.
    """
    ClusterSequence.set_fastjet_banner_stream(None)
    names = {"px": "px", "py": "py", "pz": "pz", "E": "energy"}
    columns = {name: flow[column] for name, column in names.items()}
    objects = Jagged(flow.offsets, columns).records(0, len(flow), "Momentum4D")
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    found = fastjet.ClusterSequence(objects, definition).inclusive_jets(min_pt=pt_min)
    counts = ak.to_numpy(ak.num(found))
    px, py, pz, energy = (ak.to_numpy(ak.flatten(found[name])) for name in names)
    pt = np.hypot(px, py)
    mass2 = (energy - pz) * (energy + pz) - pt * pt
    columns = {
        "PT": pt,
        "Eta": np.arcsinh(pz / pt),
        "Phi": np.arctan2(py, px),
        "Mass": np.sqrt(np.maximum(mass2, 0)),
    }
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Jagged(offsets, columns).descending("PT")


def without_overlap(jets: Jagged, objects: Iterable[Jagged], radius: float) -> Jagged:
    """The jets that have no object (columns eta, phi) within dR < radius of their axis."""
    kept = np.ones(len(jets["PT"]), dtype=bool)
    for collection in objects:
        kept &= ~_near_any(jets, collection, radius)
    return jets.where(kept)


def _near_any(jets: Jagged, objects: Jagged, radius: float) -> NDArray[np.bool_]:
    jet, other = objects.partners(jets.event)
    distance2 = delta_r2(
        jets["Eta"][jet], jets["Phi"][jet], objects["eta"][other], objects["phi"][other]
    )
    near = distance2 < radius * radius
    return np.bincount(jet[near], minlength=len(jets["PT"])) > 0
