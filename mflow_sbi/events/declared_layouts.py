"""Layouts that the reader declares, in a few lines, for files of no known layout.

layout:
tree: events
objects:
a: {name: photon, px: Photon_Px, py: Photon_Py, pz: Photon_Pz, energy: Photon_E}
m: {name: muon, pt: mu_pt, eta: mu_eta, phi: mu_phi, mass: 0.10566, prefix: mu_}
met: {px: MET_px, py: MET_py}
weight: EventWeight
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mflow_sbi.errors import EventFileError
from mflow_sbi.events.layouts import LAYOUTS, LEPTONS, Layout, MissingBranches, ObjectBranches
from mflow_sbi.events.wording import listed, nearest

__all__ = ["as_layout", "declared_layout"]

_POLAR, _CARTESIAN = ("pt", "eta", "phi"), ("px", "py", "pz")
_KEYS = ("tree", "objects", "met", "weight")
_OBJECT_KEYS = tuple(field.name for field in fields(ObjectBranches) if field.name != "symbol")
_NUMBERS = ("mass",)


def as_layout(layout: str | Layout | Mapping[str, Any]) -> Layout:
    """Return a layout by name, or as declared.

    Raises:
        EventFileError: An unknown name or key, or objects without a momentum.

    >>> as_layout("delphes").collections[0].pt
    'Photon.PT'
    """
    if isinstance(layout, Layout):
        return layout
    if isinstance(layout, Mapping):
        return declared_layout(layout)
    if layout not in LAYOUTS:
        msg = f"layout {layout!r}: expected {listed(LAYOUTS)}, or one declared by its branches."
        raise EventFileError(msg + nearest(layout, LAYOUTS))
    return LAYOUTS[layout]


def declared_layout(declaration: Mapping[str, Any]) -> Layout:
    """Return the layout declared as in the text above.

    Raises:
        EventFileError: An unknown key, or objects without a momentum.

    >>> muons = {"m": {"pt": "mu_pt", "eta": "mu_eta", "phi": "mu_phi", "mass": 0.10566}}
    >>> declared_layout({"objects": muons}).collections[0].needed
    ('mu_pt', 'mu_eta', 'mu_phi')
    """
    _require_keys("layout", declaration, _KEYS)
    objects = declaration.get("objects") or {}
    met, weight = declaration.get("met"), declaration.get("weight")
    _require_mapping("layout.objects", objects)
    return Layout(
        name="declared",
        tree=declaration.get("tree"),
        collections=tuple(_collection(str(symbol), keys) for symbol, keys in objects.items()),
        weights=(str(weight),) if weight else (),
        missing=(_missing(met),) if met else (),
        unions=(LEPTONS,) if {"e", "m"} <= set(objects) and "l" not in objects else (),
        requires_weight=bool(weight),
    )


def _collection(symbol: str, keys: Any) -> ObjectBranches:  # noqa: ANN401
    place = f"layout.objects.{symbol}"
    if not symbol.isidentifier() or symbol == "met":
        msg = f"{place}: expected a short name such as 'a', which sentences write as a[0]."
        raise EventFileError(msg)
    _require_keys(place, keys, _OBJECT_KEYS)
    for key, value in keys.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) or (key in _NUMBERS and number and value >= 0)):
            msg = f"{place}.{key}: expected the name of a branch; got {value!r}."
            raise EventFileError(msg)
    given = [names for names in (_POLAR, _CARTESIAN) if set(names) <= set(keys)]
    others = {*_POLAR, *_CARTESIAN}.intersection(keys)
    if len(given) != 1 or others != set(given[0]):
        msg = f"{place}: expected pt, eta and phi, or px, py and pz; got {listed(keys)}."
        raise EventFileError(msg)
    if given[0] == _CARTESIAN and not {"mass", "energy"}.intersection(keys):
        msg = f"{place}: px, py and pz need an energy or a mass (0 for massless objects)."
        raise EventFileError(msg)
    return ObjectBranches(symbol, **{"name": f"object {symbol}", **keys})


def _missing(keys: Any) -> MissingBranches:  # noqa: ANN401
    _require_keys("layout.met", keys, ("pt", "phi", "px", "py"))
    if set(keys) not in ({"pt", "phi"}, {"px", "py"}):
        msg = f"layout.met: expected pt and phi, or px and py; got {listed(keys)}."
        raise EventFileError(msg)
    return MissingBranches(**keys)


def _require_mapping(place: str, value: Any) -> None:  # noqa: ANN401
    if not isinstance(value, Mapping):
        msg = f"{place}: expected keys and values; got {value!r}."
        raise EventFileError(msg)


def _require_keys(place: str, value: Any, known: tuple[str, ...]) -> None:  # noqa: ANN401
    _require_mapping(place, value)
    for key in value:
        if key not in known:
            msg = f"{place}: unknown key {key!r}; known keys: {listed(known)}."
            raise EventFileError(msg + nearest(str(key), known))
