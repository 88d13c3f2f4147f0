"""Which branches make a photon, a jet, a weight: the layouts in which events are stored."""

from collections.abc import Collection as Names
from dataclasses import dataclass

__all__ = [
    "DELPHES",
    "FLAT",
    "LAYOUTS",
    "NANOAOD",
    "Layout",
    "MissingBranches",
    "ObjectBranches",
    "ObjectUnion",
    "recognise",
]

ELECTRON_MASS, MUON_MASS = 0.00051099895, 0.1056583755  # GeV, Review of Particle Physics


@dataclass(frozen=True)
class ObjectBranches:
    """The jagged branches of one collection of objects: (pT, eta, phi) or (px, py, pz), and more.

    Attributes:
        symbol: What the objects are called in expressions, e.g. "a".
        name: What they are called in messages, e.g. "photon".
        pt: Branch of the transverse momentum, GeV.
        eta: Branch of the pseudorapidity.
        phi: Branch of the azimuth, rad.
        px: Branch of a Cartesian component, GeV, where there are no pT, eta, phi.
        py: The same.
        pz: The same.
        mass: Branch of the mass, GeV, or the mass that all of them have.
        energy: Branch of the energy, GeV. Beside Cartesian components it is the energy, unless
            a mass is given; of massless objects in pT it is compared with pT cosh(eta).
        prefix: What the branches of the collection begin with; the selection of objects may use
            any of them without it.
    """

    symbol: str
    name: str
    pt: str | None = None
    eta: str | None = None
    phi: str | None = None
    px: str | None = None
    py: str | None = None
    pz: str | None = None
    mass: str | float | None = None
    energy: str | None = None
    prefix: str = ""

    @property
    def momentum(self) -> tuple[str, str, str]:
        """Three branches of the momentum, (pT, eta, phi) or (px, py, pz)."""
        polar = (self.pt, self.eta, self.phi)
        return polar if None not in polar else (self.px, self.py, self.pz)  # pyright: ignore[reportReturnType]

    @property
    def cartesian(self) -> bool:
        """Whether the momentum is (px, py, pz)."""
        return self.pt is None

    @property
    def needed(self) -> tuple[str, ...]:
        """The branches without which the objects cannot be built."""
        fourth = self.mass
        if fourth is None and self.cartesian:
            fourth = self.energy
        return (*self.momentum, fourth) if isinstance(fourth, str) else self.momentum


@dataclass(frozen=True)
class ObjectUnion:
    """Objects of several collections taken together, ordered by pT: leptons, e.g.

    Attributes:
        symbol: What they are called in expressions.
        name: What they are called in messages.
        parts: Symbols of the collections.
    """

    symbol: str
    name: str
    parts: tuple[str, ...]


LEPTONS = ObjectUnion("l", "lepton", ("e", "m"))


@dataclass(frozen=True)
class MissingBranches:
    """Branches of missing transverse momentum, (pT, phi) or (px, py): one number per event."""

    pt: str | None = None
    phi: str | None = None
    px: str | None = None
    py: str | None = None

    @property
    def needed(self) -> tuple[str, str]:
        """Its two branches, (pT, phi) or (px, py)."""
        polar = (self.pt, self.phi)
        return polar if None not in polar else (self.px, self.py)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Layout:
    """How events are stored in a tree.

    Attributes:
        name: Its name in metadata.
        tree: The usual name of the tree, if there is one.
        collections: Collections of objects; none where each observable has its own branch.
        weights: Branches that may hold the event weight; the first that exists is used.
        missing: Where missing transverse momentum may be; the first that exists is used.
        relative: Beginnings of the names of weights that are relative to the event weight.
        unions: Collections that may be taken together.
        requires_weight: Whether a file without these weights is refused.
    """

    name: str
    tree: str | None
    collections: tuple[ObjectBranches, ...]
    weights: tuple[str, ...]
    missing: tuple[MissingBranches, ...] = ()
    relative: tuple[str, ...] = ()
    unions: tuple[ObjectUnion, ...] = ()
    requires_weight: bool = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """What sentences may call objects."""
        return tuple(one.symbol for one in (*self.collections, *self.unions))

    def missing_in(self, branches: Names[str]) -> MissingBranches | None:
        """Return where missing transverse momentum is in a tree of these branches."""
        return next((m for m in self.missing if set(m.needed) <= set(branches)), None)

    def found_in(self, branches: Names[str]) -> tuple[ObjectBranches, ...]:
        """Return the collections that a tree of these branches has."""
        return tuple(c for c in self.collections if set(c.needed) <= set(branches))


def _delphes(symbol: str, name: str, prefix: str, **others: str | float) -> ObjectBranches:
    pt, eta, phi = (f"{prefix}.{key}" for key in ("PT", "Eta", "Phi"))
    return ObjectBranches(symbol, name, pt, eta, phi, prefix=f"{prefix}.", **others)  # pyright: ignore[reportArgumentType]


def _nano(symbol: str, name: str, prefix: str, mass: str | float | None = None) -> ObjectBranches:
    pt, eta, phi = (f"{prefix}_{key}" for key in ("pt", "eta", "phi"))
    mass = f"{prefix}_mass" if mass is None else mass
    return ObjectBranches(symbol, name, pt, eta, phi, mass=mass, prefix=f"{prefix}_")


DELPHES = Layout(
    name="delphes",
    tree="Delphes",
    collections=(
        _delphes("a", "photon", "Photon", energy="Photon.E"),
        _delphes("j", "jet", "Jet", mass="Jet.Mass"),
        _delphes("e", "electron", "Electron", mass=ELECTRON_MASS),
        _delphes("m", "muon", "Muon", mass=MUON_MASS),
    ),
    weights=("Event.Weight",),
    missing=(MissingBranches(pt="MissingET.MET", phi="MissingET.Phi"),),
    unions=(LEPTONS,),
)
"""The output of Delphes, and of the simulators of this project."""

NANOAOD = Layout(
    name="nanoaod",
    tree="Events",
    collections=(
        _nano("a", "photon", "Photon", mass=0.0),
        _nano("j", "jet", "Jet"),
        _nano("e", "electron", "Electron", mass=ELECTRON_MASS),
        _nano("m", "muon", "Muon", mass=MUON_MASS),
        _nano("t", "tau", "Tau"),
    ),
    weights=("genWeight",),
    missing=tuple(
        MissingBranches(pt=f"{name}_pt", phi=f"{name}_phi") for name in ("MET", "PuppiMET")
    ),
    relative=("LHE", "PSWeight"),
    unions=(LEPTONS,),
)
"""CMS NanoAOD. Weights LHE... and PSWeight are ratios to the nominal weight, genWeight."""

FLAT = Layout(name="flat", tree=None, collections=(), weights=("weight", "Event.Weight"))
"""One branch per observable, one number per event."""

LAYOUTS = {layout.name: layout for layout in (DELPHES, NANOAOD, FLAT)}

THETA_PREFIX, SCORE_PREFIX = "theta.", "score."


def recognise(tree: str, branches: Names[str]) -> Layout:
    """Return the layout of a tree without metadata, from its name and branches.

    >>> recognise("Delphes", []).name, recognise("events", ["m4l"]).name
    ('delphes', 'flat')
    >>> recognise("Events", ["nJet", "Jet_pt"]).name, recognise("Events", ["m4l"]).name
    ('nanoaod', 'flat')
    """
    if tree == DELPHES.tree:
        return DELPHES
    for layout in (DELPHES, NANOAOD):
        if any(collection.pt in branches for collection in layout.collections):
            return layout
    return FLAT
