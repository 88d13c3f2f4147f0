r"""The surface of events with two photons and two jets, in coordinates where every u is an event.

The observables of the WBF study are functions of 14 numbers: three-momenta of a1, a2, j1, j2 and
the two jet energies.  The chart takes them apart so that thin directions and hard edges become
coordinates of their own (P = p_a1 + p_a2, transverse vectors turned into the frame where the
first axis is the direction of P_T):

    u_1      azimuth of P_T, folded out: a uniform azimuth is exactly standard normal
    u_2      log(pT of P / 1 GeV)
    u_3,4    recoil K = P_T + j1_T + j2_T, in the frame of P_T    small where momentum is conserved
    u_5      log(pT of j2 / 1 GeV)
    u_6      azimuth of j2 from the direction of S = j1_T + j2_T, folded out
    u_7      rapidity of P
    u_8      log(m_aa / 125 GeV)
    u_9,10   direction n of a1 in the rest frame of P:  n_x = exp(-(u_9^2 + u_10^2) / 2)
    u_11,12  pseudorapidities of the jets
    u_13,14  log of the jet masses in GeV

The recoil is squashed radially, |u| = asinh(|K| / 25 GeV): long tails become short.  An azimuth
phi that may be anywhere but in |phi| < phi_0 is folded out onto the line,

    |phi| = phi_0 + (pi - phi_0) erf(|u| / sqrt 2),    u of the sign of phi.

phi_0 = 0 for P_T; j1 is the jet of larger pT, so that cos phi_0 = min(1, |S| / (2 pT_j2)) for j2.
n_x > 0 says that a1 is the photon of larger pT; an isotropic decay makes u_9,10 exactly standard
normal.  All 26 redundancies and both orders hold by construction, to rounding.
"""

import math
from collections.abc import Sequence
from typing import Self, TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mflow_sbi.charts.specified import SpecifiedChart
from mflow_sbi.errors import ChartError
from mflow_sbi.events import WBF_OBSERVABLES
from mflow_sbi.interfaces import Latents

__all__ = ["COLLIDER_LATENTS", "ColliderChart"]

COLLIDER_LATENTS = (
    *("azimuth_aa", "log_pt_aa", "k_along", "k_across", "log_pt_j2", "azimuth_j2"),
    *("y_aa", "log_m_aa", "decay_across", "decay_beam"),
    *("eta_j1", "eta_j2", "log_m_j1", "log_m_j2"),
)
"""Names of the 14 latents, in order."""

RECOIL_SCALE = 25.0
"""GeV: where the squashed recoil turns from linear to logarithmic; its typical size."""
PAIR_MASS = 125.0
LEAST_MASS = 1e-3
"""GeV; lighter jets are encoded at this mass, far below the resolution of any energy."""
LEAST_COSINE = 1e-12
"""Smallest n_x encoded: photons whose order of pT is lost in noise count as equal in pT."""
LEAST_SHARE = 1e-15
"""Smallest share of an azimuth's range left of it that is encoded, about 8 standard deviations."""
TINY = 1e-30

Vector: TypeAlias = tuple[Tensor, Tensor, Tensor]

_NAMES = tuple(observable.name for observable in WBF_OBSERVABLES)
_OBJECTS = ("a1", "a2", "j1", "j2")
_BASIC = (*(f"p{c}_{o}" for o in _OBJECTS for c in "xyz"), "e_j1", "e_j2", "m_aa")


class ColliderChart(SpecifiedChart):
    """R^14 -> events of two photons and two jets, in standardised observables of the WBF study.

    Encoding reads px, py, pz of the four objects, e_j1, e_j2 and m_aa, and nothing else: for
    events off the surface the other observables are redundant copies.  It expects photons in
    order of pT, as `read_events` gives them.  Rebuild with the number of observables and
    `load_state_dict`.

    Args:
        ambient_dim: n, how many of the 40 observables make up an event.
    """

    columns: Tensor
    basic: Tensor

    def __init__(self, ambient_dim: int = len(_NAMES)) -> None:
        super().__init__(len(COLLIDER_LATENTS), ambient_dim)
        if not len(_BASIC) <= ambient_dim <= len(_NAMES):
            message = (
                f"the collider chart knows {len(_NAMES)} observables and needs {len(_BASIC)}; "
                f"got {ambient_dim}"
            )
            raise ChartError(message)
        self.register_buffer("columns", torch.arange(ambient_dim))
        self.register_buffer("basic", torch.tensor([_NAMES.index(name) for name in _BASIC]))

    @classmethod
    def for_observables(cls, names: Sequence[str], mean: ArrayLike, std: ArrayLike) -> Self:
        """Return the chart of these observables, in their order, standardised by mean and std.

        Args:
            names: of the n observables, among the 40 of `WBF_OBSERVABLES`, each once.
            mean: (n,), physical units.
            std: (n,), physical units.

        Raises:
            ChartError: an observable that the chart does not know or that is named twice, one it
                cannot do without is missing, or the standardisation does not fit.
        """
        names = list(names)
        unknown = [name for name in names if name not in _NAMES]
        missing = [name for name in _BASIC if name not in names]
        if unknown or missing or len(set(names)) < len(names):
            message = (
                "the collider chart is made of the 40 WBF observables, each at most once, and "
                f"needs {', '.join(_BASIC)}; unknown: {unknown or 'none'}, missing: "
                f"{missing or 'none'}. Read those observables, or choose another chart"
            )
            raise ChartError(message)
        chart = cls(len(names))
        chart.columns.copy_(torch.tensor([_NAMES.index(name) for name in names]))
        chart.basic.copy_(torch.tensor([names.index(name) for name in _BASIC]))
        return chart.standardised(mean, std)

    def latents(self, point: Tensor) -> Latents:
        """Return u of events in GeV, (N, n) -> (N, 14)."""
        numbers = point[..., self.basic].unbind(dim=-1)
        a1, a2, j1, j2 = (numbers[3 * i : 3 * i + 3] for i in range(4))
        energies, mass = numbers[12:14], numbers[14].clamp_min(LEAST_MASS)
        pair = [first + second for first, second in zip(a1, a2, strict=True)]
        pt, axis = _length_and_direction(pair[0], pair[1])
        both = [j1[i] + j2[i] for i in (0, 1)]
        recoil = [pair[i] + both[i] for i in (0, 1)]
        pt_j2, _ = _length_and_direction(j2[0], j2[1])
        total, direction = _length_and_direction(both[0], both[1])
        transverse_mass = torch.hypot(mass, pt)
        return torch.stack(
            [
                _folded_out(torch.atan2(axis[1], axis[0]), torch.zeros_like(pt)),
                torch.log(pt),
                *_squashed(*_into_frame(recoil[0], recoil[1], axis), RECOIL_SCALE),
                torch.log(pt_j2),
                _folded_out(_azimuth(j2, direction), _least_azimuth(total, pt_j2)),
                torch.asinh(pair[2] / transverse_mass),
                torch.log(mass / PAIR_MASS),
                *_decay_latents(a1, a2, axis, pt, pair[2], mass),
                *(_pseudorapidity(*jet) for jet in (j1, j2)),
                *(_log_mass(e, *jet) for e, jet in zip(energies, (j1, j2), strict=True)),
            ],
            dim=-1,
        )

    def point(self, u: Latents) -> Tensor:
        """Return the event with latents u in GeV, (N, 14) -> (N, n)."""
        s = u.unbind(dim=-1)
        pt, axis = torch.exp(s[1]), _unit(_folded_back(s[0], torch.zeros_like(s[0])))
        recoil = _out_of_frame(*_unsquashed(s[2], s[3], RECOIL_SCALE), axis)
        both = [recoil[i] - pt * axis[i] for i in (0, 1)]
        total, direction = _length_and_direction(both[0], both[1])
        pt_j2 = torch.exp(s[4])
        turn = _unit(_folded_back(s[5], _least_azimuth(total, pt_j2)))
        second = _out_of_frame(pt_j2 * turn[0], pt_j2 * turn[1], direction)
        first = [both[i] - second[i] for i in (0, 1)]
        mass = PAIR_MASS * torch.exp(s[7])
        a1, a2 = _photons(pt, axis, s[6], mass, s[8], s[9])
        values = _single("a1", a1, None) | _single("a2", a2, None)
        jets = ((first, s[10], s[12], "j1"), (second, s[11], s[13], "j2"))
        for (px, py), eta, log_mass, name in jets:
            pz = _length(px, py) * torch.sinh(eta)
            values |= _single(name, (px, py, pz), torch.exp(log_mass))
        values |= _pair("aa", values, mass) | _pair("jj", values, None)
        return torch.stack([values[name] for name in _NAMES], dim=-1)[..., self.columns]


# Planar vectors


def _length(x: Tensor, y: Tensor) -> Tensor:
    """Return |(x, y)|, with a slope at zero."""
    return torch.sqrt((x.square() + y.square()).clamp_min(TINY))


def _length_and_direction(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return |(x, y)| and the unit vector along it; (1, 0) for the zero vector."""
    length = _length(x, y)
    at_zero = x.square() + y.square() <= TINY
    return length, (
        torch.where(at_zero, torch.ones_like(x), x / length),
        torch.where(at_zero, torch.zeros_like(y), y / length),
    )


def _squashed(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the vector along (x, y) of length asinh(|(x, y)| / scale)."""
    length = _length(x, y)
    factor = torch.asinh(length / scale) / length
    return x * factor, y * factor


def _unsquashed(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the vector along (x, y) of length scale sinh |(x, y)|."""
    length = _length(x, y)
    factor = scale * torch.sinh(length) / length
    return x * factor, y * factor


def _into_frame(x: Tensor, y: Tensor, axis: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the components of (x, y) along and across the axis."""
    c, s = axis
    return c * x + s * y, c * y - s * x


def _out_of_frame(
    along: Tensor, across: Tensor, axis: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the vector with these components along and across the axis."""
    c, s = axis
    return c * along - s * across, s * along + c * across


# Azimuths


def _azimuth(vector: Sequence[Tensor], axis: tuple[Tensor, Tensor]) -> Tensor:
    """Return the angle of the vector's transverse part from the axis, in [-pi, pi]."""
    along, across = _into_frame(vector[0], vector[1], axis)
    return torch.atan2(across, along)


def _unit(azimuth: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cos(azimuth), torch.sin(azimuth)


def _least_azimuth(total: Tensor, pt: Tensor) -> Tensor:
    """Return how far the softer of two vectors of this sum, its length pt, is from it at least."""
    cosine = total / (2.0 * pt)
    bent = cosine < 1.0 - 1e-12
    return torch.where(bent, torch.arccos(cosine.clamp_max(1.0 - 1e-12)), torch.zeros_like(pt))


def _folded_out(azimuth: Tensor, least: Tensor) -> Tensor:
    """Return u of an azimuth outside (-least, least); those inside count as on the border."""
    left = (math.pi - azimuth.abs()) / (math.pi - least)
    size = -torch.special.ndtri(0.5 * left.clamp(LEAST_SHARE, 1.0))
    return torch.where(azimuth < 0, -size, size)


def _folded_back(u: Tensor, least: Tensor) -> Tensor:
    """Return the azimuth of u, in [least, pi] or [-pi, -least]."""
    size = least + (math.pi - least) * torch.erf(u.abs() / math.sqrt(2.0))
    return torch.where(u < 0, -size, size)


# The photon pair


def _decay_latents(
    a1: Sequence[Tensor],
    a2: Sequence[Tensor],
    axis: tuple[Tensor, Tensor],
    pt: Tensor,
    pz: Tensor,
    mass: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Return sqrt(-2 log n_x) (n_y, n_z) / |(n_y, n_z)|, n the direction of a1 at rest.

    With D = p_a1 - p_a2 orthogonal to the pair's four-momentum, boosting to its rest frame gives
    n ~ (m D_x / m_T, D_y, (m_T^2 D_z - p_z p_T D_x) / (E m_T)).
    """
    dx, dy, dz = (one - two for one, two in zip(a1, a2, strict=True))
    dx, dy = _into_frame(dx, dy, axis)
    transverse = torch.hypot(mass, pt)
    energy = torch.hypot(transverse, pz)
    nx = mass * dx / transverse
    nz = (transverse.square() * dz - pz * pt * dx) / (energy * transverse)
    norm = torch.sqrt((nx.square() + dy.square() + nz.square()).clamp_min(TINY))
    nx, ny, nz = (nx / norm).clamp_min(LEAST_COSINE), dy / norm, nz / norm
    sine2 = (ny.square() + nz.square()).clamp_min(TINY)
    near = nx > 0.5
    square = torch.where(
        near, -torch.log1p(-sine2.clamp_max(0.8)), -2.0 * torch.log(nx.clamp_max(0.9))
    )
    factor = torch.sqrt(square / sine2)
    return ny * factor, nz * factor


def _photons(
    pt: Tensor, axis: tuple[Tensor, Tensor], rapidity: Tensor, mass: Tensor, v: Tensor, w: Tensor
) -> tuple[Vector, Vector]:
    """Return (px, py, pz) of both photons: back to back along n at rest, boosted to P."""
    square = (v.square() + w.square()).clamp_min(TINY)
    factor = torch.sqrt(-torch.expm1(-square) / square)
    nx, ny, nz = torch.exp(-0.5 * square), v * factor, w * factor
    transverse = torch.hypot(mass, pt)
    photons = []
    for sign in (1.0, -1.0):
        energy = 0.5 * (transverse + sign * pt * nx)  # in the frame where P has rapidity zero
        along, across = 0.5 * (pt + sign * transverse * nx), 0.5 * sign * mass * ny
        pz = energy * torch.sinh(rapidity) + 0.5 * sign * mass * nz * torch.cosh(rapidity)
        photons.append((*_out_of_frame(along, across, axis), pz))
    return photons[0], photons[1]


# Observables


def _pseudorapidity(px: Tensor, py: Tensor, pz: Tensor) -> Tensor:
    return torch.asinh(pz / _length(px, py))


def _log_mass(e: Tensor, px: Tensor, py: Tensor, pz: Tensor) -> Tensor:
    """Return log m, m^2 = (E - |p|)(E + |p|), not below LEAST_MASS."""
    p = torch.sqrt(px.square() + py.square() + pz.square())
    return 0.5 * torch.log(((e - p) * (e + p)).clamp_min(LEAST_MASS**2))


def _single(name: str, momentum: Vector, mass: Tensor | None) -> dict[str, Tensor]:
    """Return the six observables of one object; without a mass it is massless."""
    px, py, pz = momentum
    pt = _length(px, py)
    p = torch.hypot(pt, pz)
    e = p if mass is None else torch.hypot(p, mass)
    columns = {"e": e, "px": px, "py": py, "pz": pz, "pt": pt, "eta": torch.asinh(pz / pt)}
    return {f"{kind}_{name}": column for kind, column in columns.items()}


def _pair(name: str, values: dict[str, Tensor], mass: Tensor | None) -> dict[str, Tensor]:
    """Return the eight observables of two objects: sums, pT, mass, eta, difference in eta."""
    one, two = f"{name[0]}1", f"{name[0]}2"
    e, px, py, pz = (values[f"{k}_{one}"] + values[f"{k}_{two}"] for k in ("e", "px", "py", "pz"))
    pt = _length(px, py)
    if mass is None:
        p = torch.hypot(pt, pz)
        mass = torch.sqrt(((e - p) * (e + p)).clamp_min(TINY))
    columns = {"e": e, "px": px, "py": py, "pz": pz, "pt": pt, "m": mass}
    columns |= {
        "eta": torch.asinh(pz / pt),
        "deltaeta": values[f"eta_{one}"] - values[f"eta_{two}"],
    }
    return {f"{kind}_{name}": column for kind, column in columns.items()}
