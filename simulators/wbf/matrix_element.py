r"""Squared amplitudes of q q' -> q q' h by weak-boson fusion, exact polynomials in theta.

With J_1, J_2 the conserved quark currents, q_i = p_i - k_i and p_h = q_1 + q_2, every amplitude is

    A = a S + b R + c E,   S = J1.J2,   R = (q2.J1)(q1.J2),   E = eps(J1, J2, q1, q2),

with a = a0 + a1 f, b = b1 f, c = c1 ft real, f = f_W/Lambda^2 and ft = f_W~/Lambda^2.  So |A|^2 is
a polynomial in the monomials (1, f, ft, f^2, f ft, ft^2) whose coefficients are products of
couplings and six real bilinears of (S, R, E).  S, R, E are written in spinor products
<ij>[ji] = 2 p_i.p_j; two arrangements suffice: both lines with the same helicity (`same`) and with
opposite helicities (`opposite`), which differ by crossing p2 <-> k2.

Conventions of the EWdim6 UFO model: O_W enters with the sign `EFT_SIGN`, the dual field strength
with the factor `DUAL_FACTOR`; metric (+---), eps^{0123} = +1, unit CKM matrix, no widths (t < 0).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InvalidRequest, KinematicsError
from simulators.wbf.constants import (
    CHARGE,
    COS2_WEAK,
    COS_WEAK,
    DUAL_FACTOR,
    EFT_SIGN,
    SCALE_PER_TEV2,
    SIN2_WEAK,
    SIN_WEAK,
    W_MASS,
    WEAK_COUPLING,
    Z_MASS,
)

__all__ = ["CHANNELS", "channel_sum", "squared_amplitude_coefficients", "theta_units"]

Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

NEUTRAL_TYPES = ((2, 2), (2, 1), (1, 2), (1, 1))
"""Quark types on lines 1 and 2 of the neutral-current channels: 2 up type, 1 down type."""

CHANNELS = (
    "WW_qq",
    "WW_qqb",
    *(f"NC_{n1}{n2}_{pair}" for pair in ("qq", "qqb") for n1, n2 in NEUTRAL_TYPES),
)


class _Bilinears(NamedTuple):
    """|S|^2, |R|^2, |E|^2, Re S R*, Re S E*, Re R E*."""

    ss: Array
    rr: Array
    ee: Array
    sr: Array
    se: Array
    re: Array


class _SpinorProducts(NamedTuple):
    """<ij> of the four quarks."""

    p1p2: ComplexArray
    k1k2: ComplexArray
    k1p1: ComplexArray
    k2p2: ComplexArray
    k1p2: ComplexArray
    k2p1: ComplexArray


def squared_amplitude_coefficients(
    p1: Array, p2: Array, k1: Array, k2: Array, channel: str, setting: str = "tuned"
) -> Array:
    r"""|M|^2(theta) = sum_k c_k w_k(theta), w = (1, t0, t1, t0^2, t0 t1, t1^2).

    Averaged over the spins and colours of the incoming quarks, summed over those of the outgoing
    ones; the amplitude of q(p1) q'(p2) -> q(k1) q'(k2) h, in GeV^-2.

    Args:
        p1: Incoming momenta of line 1, (N, 4) as (E, px, py, pz) in GeV, massless.
        p2: Incoming momenta of line 2, (N, 4).
        k1: Outgoing momenta of line 1, (N, 4).
        k2: Outgoing momenta of line 2, (N, 4).
        channel: One of `CHANNELS`: "WW_qq", "WW_qqb", "NC_22_qq" ...; NC_{n1}{n2} has quarks of
            type n1 on line 1 and n2 on line 2 (2 up, 1 down); "qqb" has one antiquark.
        setting: "tuned" (c/Lambda^2 = 33.04 theta TeV^-2) or "paper" (165.2).

    Returns:
        The coefficients c, (N, 6).

    Raises:
        InvalidRequest: Unknown channel or setting.
        KinematicsError: Momenta of the wrong shape or not finite.

    Example:
        >>> beam = [[500.0, 0.0, 0.0, 500.0]]
        >>> other = [[500.0, 0.0, 0.0, -500.0]]
        >>> k1, k2 = [[300.0, 60.0, 0.0, 293.94]], [[300.0, 0.0, 60.0, -293.94]]
        >>> squared_amplitude_coefficients(beam, other, k1, k2, "WW_qq").shape
        (1, 6)
    """
    if channel not in CHANNELS:
        msg = f"unknown channel {channel!r}: expected one of {', '.join(CHANNELS)}"
        raise InvalidRequest(msg)
    units = theta_units(setting)
    in1, in2 = _component_major(p1, "p1"), _component_major(p2, "p2")
    out1, out2 = _component_major(k1, "k1"), _component_major(k2, "k2")
    shapes = [p.T.shape for p in (in1, in2, out1, out2)]
    if len(set(shapes)) != 1:
        msg = f"p1, p2, k1, k2 must have one shape (N, 4); got {', '.join(map(str, shapes))}"
        raise KinematicsError(msg)
    coefficients = channel_sum(in1, in2, out1, out2, {channel: np.ones(in1.shape[1])})
    return np.ascontiguousarray((coefficients * units[:, None]).T)


def theta_units(setting: str) -> Array:
    """(1, s, s, s^2, s^2, s^2) with s = c/Lambda^2 per unit theta, in GeV^-2.

    Multiplies coefficients of (1, f, ft, f^2, f ft, ft^2) into coefficients of powers of theta.

    Args:
        setting: "tuned" (33.04 TeV^-2) or "paper" (165.2 TeV^-2).

    Raises:
        InvalidRequest: Unknown setting.

    Example:
        >>> round(float(theta_units("paper")[1]), 7)
        0.0001652
    """
    if setting not in SCALE_PER_TEV2:
        msg = f"unknown setting {setting!r}: expected one of {', '.join(SCALE_PER_TEV2)}"
        raise InvalidRequest(msg)
    s = np.float64(SCALE_PER_TEV2[setting]) / 1e6
    return np.array([1.0, s, s, s * s, s * s, s * s])


def channel_sum(p1: Array, p2: Array, k1: Array, k2: Array, weights: Mapping[str, Array]) -> Array:
    """Sum over channels of weight times |M|^2, as coefficients of (1, f, ft, f^2, f ft, ft^2).

    The fast inner call: momenta component-major, no checks.

    Args:
        p1: Incoming momenta of line 1, (4, N), GeV.
        p2: Incoming momenta of line 2, (4, N).
        k1: Outgoing momenta of line 1, (4, N).
        k2: Outgoing momenta of line 2, (4, N).
        weights: Channel name -> weight per event (N,), e.g. products of parton densities; channels
            left out count as zero.

    Returns:
        Coefficients (6, N); f and ft in GeV^-2.
    """
    products = _spinor_products(p1, p2, k1, k2)
    invariants = _invariants(products)
    bilinears = {"same": _same(products)}
    if set(weights) != {"WW_qq"}:
        bilinears["opposite"] = _opposite(products)
    total = np.zeros((6, p1.shape[1]))
    for channel, arrangement in (("WW_qq", "same"), ("WW_qqb", "opposite")):
        if channel in weights:
            _add_charged(total, weights[channel], bilinears[arrangement], invariants)
    neutral = [name for name in weights if name.startswith("NC")]
    if neutral:
        luminosity = np.stack([weights[name] for name in neutral])
        for arrangement, forms in bilinears.items():
            table = np.stack([_COUPLING_PRODUCTS[arrangement][name] for name in neutral])
            couplings = np.einsum("ck,cn->kn", table, luminosity)
            _add_neutral(total, couplings, forms, invariants)
    return total


class _Invariants(NamedTuple):
    """t_1 = q1^2, t_2 = q2^2, q1.q2 and p_h.p_h = t_1 + t_2 + 2 q1.q2."""

    t1: Array
    t2: Array
    q1_q2: Array
    higgs2: Array


def _invariants(s: _SpinorProducts) -> _Invariants:
    t1, t2 = -_abs2(s.k1p1), -_abs2(s.k2p2)
    q1_q2 = 0.5 * (_abs2(s.p1p2) + _abs2(s.k1k2) - _abs2(s.k1p2) - _abs2(s.k2p1))
    return _Invariants(t1, t2, q1_q2, t1 + t2 + 2 * q1_q2)


def _spinor_products(p1: Array, p2: Array, k1: Array, k2: Array) -> _SpinorProducts:
    in1, in2, out1, out2 = (_spinor(p) for p in (p1, p2, k1, k2))
    return _SpinorProducts(
        p1p2=_angle(in1, in2),
        k1k2=_angle(out1, out2),
        k1p1=_angle(out1, in1),
        k2p2=_angle(out2, in2),
        k1p2=_angle(out1, in2),
        k2p1=_angle(out2, in1),
    )


def _spinor(p: Array) -> tuple[Array, ComplexArray]:
    """(sqrt(E + px), (py + i pz)/sqrt(E + px)): regular along the beams; E + px without loss."""
    energy, px, py, pz = p
    forward = energy + np.abs(px)
    plus = np.where(px > 0, forward, (py * py + pz * pz) / forward)
    transverse = py + 1j * pz
    backward = plus == 0
    if backward.any():
        plus[backward] = 1.0
        transverse[backward] = np.sqrt(2 * energy[backward])
        root = np.sqrt(plus)
        return np.where(backward, 0.0, root), transverse / root
    root = np.sqrt(plus)
    return root, transverse / root


def _angle(i: tuple[Array, ComplexArray], j: tuple[Array, ComplexArray]) -> ComplexArray:
    return i[0] * j[1] - i[1] * j[0]


def _abs2(z: ComplexArray) -> Array:
    return z.real * z.real + z.imag * z.imag


def _real_product(z: ComplexArray, w: ComplexArray) -> Array:
    """Re z w*."""
    return z.real * w.real + z.imag * w.imag


def _same(s: _SpinorProducts) -> _Bilinears:
    """Both lines of the same helicity (LL; RR has the same bilinears)."""
    return _contract(s.k1k2, s.p1p2, s.k1p2, s.k2p1, s.k1p1, s.k2p2, sign=1)


def _opposite(s: _SpinorProducts) -> _Bilinears:
    """Lines of opposite helicity: p2 <-> k2, and q2 keeps its meaning (R, E change sign)."""
    return _contract(s.k1p2, -s.k2p1, s.k1k2, -s.p1p2, s.k1p1, -s.k2p2, sign=-1)


def _contract(
    k1k2: ComplexArray,
    p1p2: ComplexArray,
    k1p2: ComplexArray,
    k2p1: ComplexArray,
    k1p1: ComplexArray,
    k2p2: ComplexArray,
    sign: int,
) -> _Bilinears:
    """S = 2<k1k2>[p2p1], R = (q2.J1)(q1.J2), E = i(X - Y), squared and multiplied.

    q2.J1 = <k1p2>[p2p1] - <k1k2>[k2p1], q1.J2 = <k2p1>[p1p2] - <k2k1>[k1p2],
    X = <k1k2>^2 [k1p1][k2p2], Y = [p1p2]^2 <k1p1><k2p2>, [ij] = -<ij>*.
    """
    square_p2p1 = p1p2.conj()
    scalar = 2 * k1k2 * square_p2p1
    q2_j1 = k1p2 * square_p2p1 + k1k2 * k2p1.conj()
    q1_j2 = -(k2p1 * square_p2p1 + k1k2 * k1p2.conj())
    recoil = sign * q2_j1 * q1_j2
    lines = k1p1 * k2p2
    x = k1k2 * k1k2 * lines.conj()
    y = square_p2p1 * square_p2p1 * lines
    epsilon = (sign * 1j) * (x - y)
    return _Bilinears(
        ss=_abs2(scalar),
        rr=_abs2(recoil),
        ee=_abs2(epsilon),
        sr=_real_product(scalar, recoil),
        se=_real_product(scalar, epsilon),
        re=_real_product(recoil, epsilon),
    )


def _add_charged(total: Array, weight: Array, forms: _Bilinears, invariants: _Invariants) -> None:
    """W exchange: a0 = P, a1 = -sign P mh^2/2, b1 = sign P, c1 = n P; spin average 1/4.

    P = (g^2/2) g M_W / ((t1 - M_W^2)(t2 - M_W^2)).
    """
    t1, t2, _, higgs2 = invariants
    propagators = WEAK_COUPLING**3 * W_MASS / (2 * (t1 - W_MASS**2) * (t2 - W_MASS**2))
    factor = 0.25 * weight * propagators * propagators
    a1 = (-EFT_SIGN / 2) * higgs2
    total[0] += factor * forms.ss
    total[1] += (2 * factor) * (a1 * forms.ss + EFT_SIGN * forms.sr)
    total[2] += (2 * DUAL_FACTOR * factor) * forms.se
    total[3] += factor * (
        a1 * (a1 * forms.ss + (2 * EFT_SIGN) * forms.sr) + EFT_SIGN**2 * forms.rr
    )
    total[4] += (2 * DUAL_FACTOR * factor) * (a1 * forms.se + EFT_SIGN * forms.re)
    total[5] += DUAL_FACTOR**2 * factor * forms.ee


def _neutral_couplings(quark_type: int) -> dict[str, tuple[float, float]]:
    """Z and photon couplings of one quark line by helicity; 2 up type, 1 down type."""
    isospin, charge = {2: (0.5, 2 / 3), 1: (-0.5, -1 / 3)}[quark_type]
    left = (WEAK_COUPLING / COS_WEAK) * (isospin - charge * SIN2_WEAK)
    right = -(WEAK_COUPLING / COS_WEAK) * charge * SIN2_WEAK
    return {"L": (left, CHARGE * charge), "R": (right, CHARGE * charge)}


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Products of the three exchanges (ZZ, Z gamma, gamma Z) that enter |A|^2."""


def _coupling_products(n1: int, n2: int, *, helicities: tuple[str, ...]) -> Array:
    """Sum over helicity pairs of products of (gz gz, gz eQ, eQ gz), spin average 1/4: (6,)."""
    total = np.zeros(len(_PAIRS))
    for pair in helicities:
        z1, photon1 = _neutral_couplings(n1)[pair[0]]
        z2, photon2 = _neutral_couplings(n2)[pair[1]]
        exchange = np.array([z1 * z2, z1 * photon2, photon1 * z2])
        total += [0.25 * exchange[i] * exchange[j] for i, j in _PAIRS]
    return total


def _coupling_table() -> dict[str, dict[str, Array]]:
    """Arrangement -> channel -> coupling products; an antiquark exchanges the arrangements."""
    equal, unequal = ("LL", "RR"), ("LR", "RL")
    helicities = {
        ("same", "qq"): equal,
        ("opposite", "qq"): unequal,
        ("same", "qqb"): unequal,
        ("opposite", "qqb"): equal,
    }
    return {
        arrangement: {
            f"NC_{n1}{n2}_{pair}": _coupling_products(
                n1, n2, helicities=helicities[arrangement, pair]
            )
            for n1, n2 in NEUTRAL_TYPES
            for pair in ("qq", "qqb")
        }
        for arrangement in ("same", "opposite")
    }


_COUPLING_PRODUCTS = _coupling_table()


def _add_neutral(
    total: Array, couplings: Array, forms: _Bilinears, invariants: _Invariants
) -> None:
    """Z and photon exchange; quadratic forms of (ZZ, Z gamma, gamma Z) with the couplings (6, N).

    a0 = g M_W zz / c^2,  b1 = sign (g M_W zz + r (za + az)),  c1 = n (g M_W zz + r (za + az)),
    a1 = sign (-g M_W zz mh^2/2 - r (za q2.p + az q1.p)),  r = g M_W s/(2c).
    """
    t1, t2, q1_q2, higgs2 = invariants
    z1, z2 = 1 / (t1 - Z_MASS**2), 1 / (t2 - Z_MASS**2)
    vertex = WEAK_COUPLING * W_MASS
    mixing = vertex * SIN_WEAK / (2 * COS_WEAK)
    exchange = (vertex * z1 * z2, mixing * z1 / t2, mixing * z2 / t1)
    v = {(i, j): couplings[n] * (exchange[i] * exchange[j]) for n, (i, j) in enumerate(_PAIRS)}
    row0 = v[0, 0] + v[0, 1] + v[0, 2]
    row1 = v[0, 1] + v[1, 1] + v[1, 2]
    row2 = v[0, 2] + v[1, 2] + v[2, 2]
    d0, d1, d2 = -0.5 * higgs2, -(q1_q2 + t2), -(q1_q2 + t1)
    b_b = row0 + row1 + row2
    a1_b = d0 * row0 + d1 * row1 + d2 * row2
    a1_a1 = d0 * (d0 * v[0, 0] + 2 * (d1 * v[0, 1] + d2 * v[0, 2])) + (
        d1 * (d1 * v[1, 1] + 2 * d2 * v[1, 2]) + d2 * d2 * v[2, 2]
    )
    a0_a1 = (d0 * v[0, 0] + d1 * v[0, 1] + d2 * v[0, 2]) / COS2_WEAK
    a0_b = row0 / COS2_WEAK
    total[0] += v[0, 0] * forms.ss / COS2_WEAK**2
    total[1] += (2 * EFT_SIGN) * (a0_a1 * forms.ss + a0_b * forms.sr)
    total[2] += (2 * DUAL_FACTOR) * a0_b * forms.se
    total[3] += EFT_SIGN**2 * (a1_a1 * forms.ss + b_b * forms.rr + 2 * a1_b * forms.sr)
    total[4] += (2 * EFT_SIGN * DUAL_FACTOR) * (a1_b * forms.se + b_b * forms.re)
    total[5] += DUAL_FACTOR**2 * b_b * forms.ee


def _component_major(p: Array, name: str) -> Array:
    momenta = np.asarray(p, dtype=np.float64)
    if momenta.ndim != 2 or momenta.shape[1] != 4:
        msg = f"{name} must be an array of shape (N, 4), (E, px, py, pz); got {momenta.shape}"
        raise KinematicsError(msg)
    if not np.isfinite(momenta).all():
        msg = f"{name} has momenta that are not finite; remove those events"
        raise KinematicsError(msg)
    return np.ascontiguousarray(momenta.T)
