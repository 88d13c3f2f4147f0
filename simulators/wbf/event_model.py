r"""The event model: 14 degrees of freedom, exact density, polynomial in theta.

    D(x|theta) = sum_k w_k(theta) c_k(x),    w = (1, t0, t1, t0^2, t0 t1, t1^2),
    c_k = [ds_k(ja, jb) + ds_k(jb, ja)] rho(K) rho(m1|pT1') rho(m2|pT2') rho(m_aa) 2/(4 pi),
    p(x|theta) = D(x|theta) / sum_k w_k(theta) C_k   inside the cuts, 0 outside.

ds_k is the parton-level cross section at (pT', y'), reached from the event by removing the recoil
K and setting the jets massless and m_h = 125 GeV.  Charts: `pole` is the measure
d^2pT dy dm of both jets times d^2pT dy dm dOmega* of the photon pair; `cart` is
d^4p_j1 d^4p_j2 d^3p_a1 d^3p_a2, with c_cart = c_pole 2/(m1 m2 E_a1 E_a2 m_aa).
"""

import functools
import json
import math
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.errors import InvalidRequest, KinematicsError
from simulators.wbf import constants
from simulators.wbf.kinematics import (
    invariant_mass2,
    passes_cuts,
    remove_recoil,
    transverse_momentum,
)
from simulators.wbf.matrix_element import theta_units
from simulators.wbf.parton_level import check_process, differential_coefficients

__all__ = [
    "density_coefficients",
    "fiducial_cross_section",
    "fiducial_cross_section_error",
    "inside_cuts",
    "log_likelihood",
    "monomials",
    "score",
    "tabulated_cross_section",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHARTS = ("pole", "cart")
CROSS_SECTION_FILE = "fiducial_cross_section.json"


def monomials(theta: ArrayLike) -> Array:
    """W(theta) = (1, t0, t1, t0^2, t0 t1, t1^2).

    Args:
        theta: (..., 2).

    Returns:
        (..., 6).

    Example:
        >>> monomials([2.0, 3.0]).tolist()
        [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]
    """
    points = np.asarray(theta, dtype=np.float64)
    if points.shape[-1:] != (2,) or not np.isfinite(points).all():
        msg = f"theta must be finite and of shape (..., 2); got shape {points.shape}"
        raise InvalidRequest(msg)
    t0, t1 = points[..., 0], points[..., 1]
    return np.stack([np.ones_like(t0), t0, t1, t0 * t0, t0 * t1, t1 * t1], axis=-1)


def inside_cuts(events: ArrayLike) -> Mask:
    """Whether each event lies in the fiducial region, (N,).

    Args:
        events: Four-momenta (N, 4, 4) of j1, j2, a1, a2 as (E, px, py, pz), GeV.

    Raises:
        KinematicsError: Wrong shape, or numbers that are not finite.
    """
    return passes_cuts(*_object_major(events))


def density_coefficients(
    events: ArrayLike, chart: str = "pole", channel: str = "ud", setting: str = "tuned"
) -> Array:
    """c_k(x) of D(x|theta) = sum_k w_k(theta) c_k(x), in pb per unit of the chart's measure.

    Without the branching ratio of h -> gamma gamma; zero outside the cuts.  Symmetric in the two
    jets and in the two photons; the density is that of pT-ordered objects.

    Args:
        events: Four-momenta (N, 4, 4) of j1, j2, a1, a2 as (E, px, py, pz), GeV; leading pT first.
        chart: "pole" or "cart".
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper": the unit of theta.

    Returns:
        (N, 6).

    Raises:
        InvalidRequest: Unknown chart, channel or setting.
        KinematicsError: Events of the wrong shape or not finite.
    """
    if chart not in CHARTS:
        msg = f"unknown chart {chart!r}: expected one of {', '.join(CHARTS)}"
        raise InvalidRequest(msg)
    check_process(channel)
    units = theta_units(setting)
    objects = _object_major(events)
    inside = np.flatnonzero(passes_cuts(*objects) & _timelike(*objects))
    selected = [p[:, inside] for p in objects]
    coefficients = _pole_coefficients(*selected, channel=channel) * units[:, None]
    if chart == "cart":
        coefficients *= _pole_to_cart(*selected)
    result = np.zeros((objects[0].shape[1], 6))
    result[inside] = coefficients.T
    return result


def log_likelihood(
    events: ArrayLike, theta: ArrayLike, channel: str = "ud", setting: str = "tuned"
) -> Array:
    """Log p(x|theta) = log[w(theta).c(x)] - log[w(theta).C], chart `pole`; -inf outside the cuts.

    Args:
        events: Four-momenta (N, 4, 4) of j1, j2, a1, a2 as (E, px, py, pz), GeV; leading pT first.
        theta: One point (2,) for all events, or one per event (N, 2).
        channel: "ud" or "full".
        setting: "tuned" or "paper".

    Returns:
        (N,).

    Raises:
        InvalidRequest: Unknown channel or setting, or theta of another shape.
        KinematicsError: Events of the wrong shape or not finite.
    """
    coefficients = density_coefficients(events, "pole", channel, setting)
    weights = monomials(theta)
    if weights.shape not in {(6,), coefficients.shape}:
        msg = (
            f"theta must have shape (2,) or ({len(coefficients)}, 2) for {len(coefficients)} "
            f"events; got {np.shape(theta)}"
        )
        raise InvalidRequest(msg)
    total = weights @ fiducial_cross_section(channel, setting)
    with np.errstate(divide="ignore"):
        return np.log((coefficients * weights).sum(axis=-1)) - np.log(total)


def score(components: Array, theta: ArrayLike, cross_section: Array) -> Array:
    """Grad_theta log p(x|theta) = (grad w.c)/(w.c) - (grad w.C)/(w.C).

    Args:
        components: c, (N, 6), inside the cuts.
        theta: (N, 2) or (2,).
        cross_section: C, (6,).

    Returns:
        (N, 2).
    """
    weights = monomials(theta)
    gradients = _monomial_gradients(np.asarray(theta, dtype=np.float64))
    density = (weights * components).sum(axis=-1)[..., None]
    slope = (gradients * components[:, None, :]).sum(axis=-1)
    return slope / density - (gradients @ cross_section) / (weights @ cross_section)[..., None]


def fiducial_cross_section(channel: str, setting: str = "tuned") -> Array:
    """C_k of sigma(theta) = sum_k w_k(theta) C_k inside the cuts, pb, without the branching ratio.

    C_2 = C_4 = 0 exactly (reflection symmetry).  From the committed table, made by
    `python -m simulators wbf-cross-section`.

    Args:
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".

    Returns:
        (6,).

    Raises:
        InvalidRequest: Unknown channel or setting.

    Example:
        >>> fiducial_cross_section("ud", "paper").round(1).tolist()
        [0.6, -2.6, 0.0, 12.8, 0.0, 14.2]
    """
    return tabulated_cross_section(CROSS_SECTION_FILE, channel, setting)[0]


def fiducial_cross_section_error(channel: str, setting: str = "tuned") -> Array:
    """Monte Carlo standard errors of `fiducial_cross_section`, pb, (6,); zero for C_2 and C_4."""
    return tabulated_cross_section(CROSS_SECTION_FILE, channel, setting)[1]


def tabulated_cross_section(file: str, channel: str, setting: str) -> tuple[Array, Array]:
    """C_k and their errors from a committed table, pb, each (6,).

    Args:
        file: Name of the package data: "fiducial_cross_section.json", "parton_cross_section.json".
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".
    """
    check_process(channel)
    units = theta_units(setting) * np.array([1.0, 1e6, 1e6, 1e12, 1e12, 1e12])
    record = _cross_section_table(file)[channel]
    return np.array(record["value"]) * units, np.array(record["error"]) * units


@functools.cache
def _cross_section_table(file: str) -> dict[str, dict[str, list[float]]]:
    """Channel -> value and error, in pb per powers of c/Lambda^2 in TeV^-2."""
    text = resources.files("simulators.wbf").joinpath(file).read_text("utf-8")
    return json.loads(text)["channels"]


def _monomial_gradients(theta: Array) -> Array:
    """Grad_theta w, (..., 2, 6)."""
    t0, t1 = theta[..., 0], theta[..., 1]
    zero, one = np.zeros_like(t0), np.ones_like(t0)
    along0 = np.stack([zero, one, zero, 2 * t0, t1, zero], axis=-1)
    along1 = np.stack([zero, zero, one, zero, t0, 2 * t1], axis=-1)
    return np.stack([along0, along1], axis=-2)


def _pole_coefficients(j1: Array, j2: Array, a1: Array, a2: Array, *, channel: str) -> Array:
    """c_k in chart `pole`, coefficients of (1, f, ft, f^2, f ft, ft^2), (6, N)."""
    photons = a1 + a2
    mass1, mass2 = np.sqrt(invariant_mass2(j1)), np.sqrt(invariant_mass2(j2))
    recoil, (b1, b2, pair) = remove_recoil((j1, j2, photons))
    k1, k2 = _on_shell(b1, 0.0), _on_shell(b2, 0.0)
    higgs = _on_shell(pair, constants.HIGGS_MASS)
    parton = differential_coefficients(k1, k2, higgs, channel)
    parton += differential_coefficients(k2, k1, higgs, channel)
    smearing = (
        _recoil_density(recoil)
        * _jet_mass_density(mass1, transverse_momentum(b1))
        * _jet_mass_density(mass2, transverse_momentum(b2))
        * _photon_pair_density(np.sqrt(invariant_mass2(photons)))
    )
    return parton * (smearing * (2 / (4 * math.pi)))


def _on_shell(p: Array, mass: float) -> Array:
    """The momentum of the given mass with the same pT and rapidity."""
    pt2 = p[1] * p[1] + p[2] * p[2]
    ratio = np.sqrt((mass * mass + pt2) / ((p[0] - p[3]) * (p[0] + p[3])))
    return np.stack([p[0] * ratio, p[1], p[2], p[3] * ratio])


def _recoil_density(recoil: Array) -> Array:
    power, scale2 = constants.RECOIL_POWER, constants.RECOIL_SCALE**2
    ratio = (recoil[0] ** 2 + recoil[1] ** 2) / scale2
    return (power - 1) / (math.pi * scale2) * (1 + ratio) ** (-power)


def _jet_mass_density(mass: Array, pt: Array) -> Array:
    centre = constants.JET_MASS_OFFSET + constants.JET_MASS_SLOPE * pt
    width = constants.JET_MASS_WIDTH
    pull = np.log(mass / centre) / width
    return np.exp(-0.5 * pull * pull) / (mass * (width * math.sqrt(2 * math.pi)))


def _photon_pair_density(mass: Array) -> Array:
    width = constants.PHOTON_PAIR_WIDTH
    pull = (mass - constants.PHOTON_PAIR_MASS) / width
    return np.exp(-0.5 * pull * pull) / (width * math.sqrt(2 * math.pi))


def _pole_to_cart(j1: Array, j2: Array, a1: Array, a2: Array) -> Array:
    jets = np.sqrt(invariant_mass2(j1) * invariant_mass2(j2))
    photons = a1[0] * a2[0] * np.sqrt(invariant_mass2(a1 + a2))
    return 2 / (jets * photons)


def _timelike(j1: Array, j2: Array, a1: Array, a2: Array) -> Mask:
    """Jets and the whole system have positive squared masses: the model's support."""
    total = j1 + j2 + a1 + a2
    return (invariant_mass2(j1) > 0) & (invariant_mass2(j2) > 0) & (invariant_mass2(total) > 0)


def _object_major(events: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """Momenta (4, N) of j1, j2, a1, a2."""
    array = np.asarray(events, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (4, 4):
        msg = (
            "events must have shape (N, 4, 4): (E, px, py, pz) of j1, j2, a1, a2; "
            f"got {array.shape}"
        )
        raise KinematicsError(msg)
    if not np.isfinite(array).all():
        msg = "events have momenta that are not finite; remove those events"
        raise KinematicsError(msg)
    j1, j2, a1, a2 = np.ascontiguousarray(array.transpose(1, 2, 0))
    return j1, j2, a1, a2
