"""Which branches make a photon, a jet, a weight: the layouts in which events are stored."""

from collections.abc import Collection as Names
from dataclasses import dataclass

__all__ = ["DELPHES", "FLAT", "LAYOUTS", "Layout", "ObjectBranches", "recognise"]


@dataclass(frozen=True)
class ObjectBranches:
    """The jagged branches of one collection of objects.

    Attributes:
        symbol: What the objects are called in expressions, e.g. "a".
        name: What they are called in messages, e.g. "photon".
        pt: Branch of the transverse momentum, GeV.
        eta: Branch of the pseudorapidity.
        phi: Branch of the azimuth, rad.
        mass: Branch of the mass, GeV; None for massless objects.
        energy: Branch of the energy of massless objects, compared with pT cosh(eta) where present.
    """

    symbol: str
    name: str
    pt: str
    eta: str
    phi: str
    mass: str | None = None
    energy: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """The branches without which the objects cannot be built."""
        return tuple(b for b in (self.pt, self.eta, self.phi, self.mass) if b is not None)


@dataclass(frozen=True)
class Layout:
    """How events are stored in a TTree.

    Attributes:
        name: Its name in metadata.
        tree: The usual name of the tree, if there is one.
        collections: Collections of objects; none where each observable has its own branch.
        weights: Branches that may hold the event weight; the first that exists is used.
    """

    name: str
    tree: str | None
    collections: tuple[ObjectBranches, ...]
    weights: tuple[str, ...]


DELPHES = Layout(
    name="delphes",
    tree="Delphes",
    collections=(
        ObjectBranches(
            symbol="a",
            name="photon",
            pt="Photon.PT",
            eta="Photon.Eta",
            phi="Photon.Phi",
            energy="Photon.E",
        ),
        ObjectBranches(
            symbol="j", name="jet", pt="Jet.PT", eta="Jet.Eta", phi="Jet.Phi", mass="Jet.Mass"
        ),
    ),
    weights=("Event.Weight",),
)
"""The output of Delphes, and of the simulators of this project."""

FLAT = Layout(name="flat", tree=None, collections=(), weights=("weight", "Event.Weight"))
"""One branch per observable, one number per event."""

LAYOUTS = {layout.name: layout for layout in (DELPHES, FLAT)}

THETA_PREFIX, SCORE_PREFIX = "theta.", "score."


def recognise(tree: str, branches: Names[str]) -> Layout:
    """Return the layout of a tree without metadata, from its name and branches.

    >>> recognise("Delphes", []).name, recognise("events", ["m4l"]).name
    ('delphes', 'flat')
    """
    for layout in LAYOUTS.values():
        for collection in layout.collections:
            if tree == layout.tree or collection.pt in branches:
                return layout
    return FLAT
