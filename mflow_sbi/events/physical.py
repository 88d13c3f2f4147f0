"""Numbers that cannot be momenta in GeV and radians are refused, and the likely reason is told."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.layouts import ObjectBranches
from mflow_sbi.events.momenta import FourMomentum
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = [
    "require_azimuths",
    "require_cartesian",
    "require_gev",
    "require_not_negative",
    "require_polar",
]

_FLOAT32 = float(np.finfo(np.float32).eps)
_PHI_SLACK = 8 * np.pi * _FLOAT32  # float32(pi) > pi
_ENERGY_SLACK = 64 * _FLOAT32  # times (1 + |eta|): cosh amplifies the rounding of eta
_MASS_SLACK = 2 * np.sqrt(_FLOAT32)  # rounding of E^2 - p^2 in float32, relative to E
_SHELL_SLACK = 32 * _FLOAT32  # of E^2 - p^2, relative to E^2
_LARGEST_ENERGY = 1e5  # GeV, above any collider
_LARGEST_MEDIAN = 3e3  # GeV, of the pT of all objects: those of a file in MeV are above 5,000
_LARGEST_ETA = 20.0  # sinh(20) = 2e8: beyond it, no pT above rounding fits a collider


def require_polar(
    path: Path,
    branches: ObjectBranches,
    columns: tuple[Array, Array, Array, Array],
    energy: Array | None,
) -> None:
    """Refuse (pT, eta, phi, mass) that cannot be momenta.

    Raises:
        EventDataError: Negative pT or mass, angles that are not radians in [-pi, pi], numbers
            that cannot be GeV, an `energy` that is not pT cosh(eta).
    """
    pt, eta, phi, mass = columns
    name_pt, name_eta, name_phi = branches.momentum
    require_not_negative(path, name_pt, pt)
    require_azimuths(path, name_phi, phi)
    _refuse(
        path,
        name_eta,
        eta,
        (np.abs(eta) > _LARGEST_ETA) & (pt > 0),
        "lies beyond 20 (up to {worst}) at pT > 0; expected pseudorapidities. If it is the polar "
        "angle in degrees, convert it to -log(tan(theta / 2)).",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        momentum = pt * np.cosh(eta)
    require_gev(path, name_pt, pt, momentum, "|p| = pT cosh(eta)")
    _refuse(
        path,
        str(branches.mass or ""),
        mass,
        mass < -_MASS_SLACK * np.hypot(momentum, mass),
        "is negative beyond float32 rounding of a massless object (e.g. {worst}); expected a "
        "mass >= 0 in GeV.",
    )
    if energy is not None and branches.energy:
        _refuse(
            path,
            branches.energy,
            energy,
            np.abs(energy - momentum) > _ENERGY_SLACK * (1 + np.abs(eta)) * momentum,
            f"differs from {name_pt} cosh({name_eta}) (e.g. E = {{worst}}); expected massless "
            "objects with all branches in GeV. Check the units (MeV?) and the branches.",
        )


def require_cartesian(
    path: Path, branches: ObjectBranches, momenta: FourMomentum, mass: Array | None
) -> None:
    """Refuse (px, py, pz) with an energy or a mass that cannot be momenta.

    Raises:
        EventDataError: Negative energy or mass, energy below |p|, numbers that cannot be GeV.
    """
    name = branches.momentum[0]
    p2 = momenta.px**2 + momenta.py**2 + momenta.pz**2
    require_gev(path, name, momenta.pt, np.sqrt(p2), "|p|")
    if mass is not None:
        require_not_negative(path, str(branches.mass), mass)
        return
    energy = momenta.e
    require_not_negative(path, branches.energy or "", energy)
    _refuse(
        path,
        branches.energy or "",
        energy,
        energy**2 - p2 < -_SHELL_SLACK * energy**2,
        f"is below |p| of {', '.join(branches.momentum)} (e.g. E = {{worst}}); expected "
        "E^2 >= p^2 with all branches in GeV. Check the units and the branches.",
    )


def require_not_negative(path: Path, branch: str, values: Array) -> None:
    """Refuse numbers below zero.

    Raises:
        EventDataError: There are some.
    """
    _refuse(
        path,
        branch,
        values,
        values < 0,
        "is negative (e.g. {worst}); expected pT >= 0 in GeV. Check how the branch was filled.",
    )


def require_azimuths(path: Path, branch: str, phi: Array) -> None:
    """Refuse azimuths outside [-pi, pi].

    Raises:
        EventDataError: There are some.
    """
    _refuse(
        path,
        branch,
        phi,
        np.abs(phi) > np.pi + _PHI_SLACK,
        "lies beyond pi (up to {worst}); expected radians in [-pi, pi]. Convert degrees by "
        "pi/180, or wrap [0, 2 pi).",
    )


def require_gev(path: Path, branch: str, pt: Array, momentum: Array, formula: str) -> None:
    """Refuse momenta that cannot be GeV.

    Raises:
        EventDataError: |p| above any collider, or a median of pT that is.
    """
    _refuse(
        path,
        branch,
        momentum,
        momentum > _LARGEST_ENERGY,
        f"gives {formula} up to {{worst}} GeV, above any collider; expected GeV. If the file is "
        "in MeV, divide by 1000.",
    )
    median = float(np.median(pt)) if len(pt) else 0.0
    if median > _LARGEST_MEDIAN:
        msg = (
            f"{path}: {branch!r} of {counted(len(pt), 'object')} gives pT around {median:.6g} "
            "GeV, above any collider; expected GeV. If the file is in MeV, divide by 1000."
        )
        raise EventDataError(msg)


def _refuse(
    path: Path, branch: str, values: Array, wrong: NDArray[np.bool_], sentence: str
) -> None:
    if wrong.any():
        i = int(np.argmax(np.abs(np.where(wrong, values, 0.0))))
        msg = (
            f"{path}: {branch!r} of {int(wrong.sum()):,} of "
            f"{counted(len(wrong), 'object')} {sentence.format(worst=f'{values[i]:.6g}')}"
        )
        raise EventDataError(msg)
