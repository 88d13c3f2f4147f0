r"""The surface of events with two photons and two jets, in coordinates where every u is an event.

The observables of the WBF study are functions of 14 numbers: three-momenta of a1, a2, j1, j2 and
the two jet energies.  The chart takes them apart so that thin directions and hard edges become
coordinates of their own (P = p_a1 + p_a2, transverse vectors turned into the frame where the
first axis is the direction of P_T):

    u_1,2    P_T, as a planar vector                         the only one that turns with the event
    u_3,4    recoil K = P_T + j1_T + j2_T, in the frame of P_T    small where momentum is conserved
    u_5,6    j2_T, in the frame of P_T
    u_7      rapidity of P
    u_8      log(m_aa / 125 GeV)
    u_9,10   direction n of a1 in the rest frame of P:  n_x = exp(-(u_9^2 + u_10^2) / 2)
    u_11,12  pseudorapidities of the jets
    u_13,14  log of the jet masses in GeV

Planar vectors are squashed radially, |u| = asinh(|p| / scale): no azimuth, no period, and long
tails become short.  n_x > 0 says that a1 is the photon of larger pT; an isotropic decay makes
u_9,10 exactly standard normal.  All 26 redundancies hold by construction, to rounding.
"""

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
    *("px_aa", "py_aa", "k_along", "k_across", "pt_j2_along", "pt_j2_across"),
    *("y_aa", "log_m_aa", "decay_across", "decay_beam"),
    *("eta_j1", "eta_j2", "log_m_j1", "log_m_j2"),
)
"""Names of the 14 latents, in order."""

PAIR_SCALE, RECOIL_SCALE, JET_SCALE = 300.0, 25.0, 100.0
"""GeV: where squashed vectors turn from linear to logarithmic; typical sizes of each."""
PAIR_MASS = 125.0
LEAST_MASS = 1e-3
"""GeV; lighter jets are encoded at this mass, far below the resolution of any energy."""
LEAST_COSINE = 1e-12
"""Smallest n_x encoded: photons whose order of pT is lost in noise count as equal in pT."""
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
        recoil = [pair[i] + j1[i] + j2[i] for i in (0, 1)]
        transverse_mass = torch.hypot(mass, pt)
        return torch.stack(
            [
                *_squashed(pair[0], pair[1], PAIR_SCALE),
                *_squashed(*_into_frame(recoil[0], recoil[1], axis), RECOIL_SCALE),
                *_squashed(*_into_frame(j2[0], j2[1], axis), JET_SCALE),
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
        pair = _unsquashed(s[0], s[1], PAIR_SCALE)
        pt, axis = _length_and_direction(*pair)
        recoil = _out_of_frame(*_unsquashed(s[2], s[3], RECOIL_SCALE), axis)
        second = _out_of_frame(*_unsquashed(s[4], s[5], JET_SCALE), axis)
        first = [recoil[i] - pair[i] - second[i] for i in (0, 1)]
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
