"""The squared amplitude against Dirac traces with the full Feynman rules.

Nothing here is shared with the simulator but the momenta: explicit gamma matrices, unitary-gauge
propagators with their longitudinal parts, vertices before any use of current conservation.  Traces
cancel strongly, so they are summed in extended precision.
"""

import itertools
import math

import numpy as np
import pytest

from simulators.wbf.matrix_element import CHANNELS, squared_amplitude_coefficients

ALPHA, FERMI, MZ = 1 / 127.9, 1.16637e-5, 91.1876
MW = math.sqrt(MZ**2 / 2 + math.sqrt(MZ**4 / 4 - math.pi * ALPHA * MZ**2 / (math.sqrt(2) * FERMI)))
S2 = 1 - MW**2 / MZ**2
S, C = math.sqrt(S2), math.sqrt(1 - S2)
E = math.sqrt(4 * math.pi * ALPHA)
G = E / S
SCALE = 165.2e-6

EXTENDED, COMPLEX = np.longdouble, np.clongdouble
METRIC = np.diag([1.0, -1.0, -1.0, -1.0]).astype(EXTENDED)
PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
ZERO, ONE = np.zeros((2, 2)), np.eye(2)
GAMMA = np.array(
    [np.block([[ZERO, ONE], [ONE, ZERO]])] + [np.block([[ZERO, s], [-s, ZERO]]) for s in PAULI],
    dtype=COMPLEX,
)
GAMMA5 = 1j * GAMMA[0] @ GAMMA[1] @ GAMMA[2] @ GAMMA[3]
LEFT, RIGHT = (np.eye(4) - GAMMA5) / 2, (np.eye(4) + GAMMA5) / 2

EPSILON = np.zeros((4, 4, 4, 4), dtype=EXTENDED)
for order in itertools.permutations(range(4)):
    EPSILON[order] = round(np.linalg.det(np.eye(4)[list(order)]))


def dot(a, b):
    return np.einsum("na,ab,nb->n", a, METRIC, b)


def outer(a, b):
    return np.einsum("nm,nk->nmk", a, b)


def times_metric(scalar):
    return scalar[:, None, None] * METRIC


def dual(a, b):
    """eps^{mnab} a_a b_b."""
    return np.einsum("mkab,na,nb->nmk", EPSILON, a @ METRIC, b @ METRIC)


def w_vertex(q1, q2):
    """UFO vertex h W W, all momenta incoming: (1, f, ft) terms, (3, N, 4, 4)."""
    p3 = -(q1 + q2)
    higher = outer(p3, q1) + outer(q2, p3) - times_metric(dot(q1, p3) + dot(q2, p3))
    odd = dual(q1 - q2, p3)
    one = np.ones(len(q1))
    return G * MW * np.stack([times_metric(one), higher / 2, -odd])


def field_strength_vertex(q, p_h, *, index_last):
    """V_m F^{mn}(q) d_n h and V_m F~^{mn}(q) d_n h, F~ = eps F; F's index last or first."""
    even = outer(q, p_h) - times_metric(dot(q, p_h))
    odd = 2 * np.einsum("mnrs,kn,kr->kms", EPSILON, p_h @ METRIC, q @ METRIC)
    if not index_last:
        even, odd = even.transpose(0, 2, 1), odd.transpose(0, 2, 1)
    return even, odd


def z_vertex(q1, q2):
    p_h = q1 + q2
    even2, odd2 = field_strength_vertex(q2, p_h, index_last=True)
    even1, odd1 = field_strength_vertex(q1, p_h, index_last=False)
    one = np.ones(len(q1))
    standard = times_metric(one) / C**2
    return G * MW * np.stack([standard, -(even1 + even2) / 2, (odd1 + odd2) / 2])


def z_photon_vertex(q1, q2, *, photon):
    """Z and photon; the photon is the field strength (line `photon`)."""
    p_h = q1 + q2
    even, odd = field_strength_vertex((q1, q2)[photon], p_h, index_last=photon == 1)
    return G * MW * S / (2 * C) * np.stack([np.zeros_like(even), -even, odd])


def propagator(q, mass):
    square = dot(q, q)
    numerator = times_metric(np.ones(len(q), dtype=EXTENDED))
    if mass:
        numerator -= outer(q, q) / mass**2
    return -numerator / (square - mass**2)[:, None, None]


def line_tensor(p, k, coupling_a, coupling_b, *, anti):
    """Tr[k gamma^m C_a p gamma^n C_b], spin average 1/2; an antiquark line exchanges p and k."""
    first, last = (p, k) if anti else (k, p)
    slash_first = np.einsum("na,ab,bij->nij", first, METRIC, GAMMA)
    slash_last = np.einsum("na,ab,bij->nij", last, METRIC, GAMMA)
    a, b = (c[0] * LEFT + c[1] * RIGHT for c in (coupling_a, coupling_b))
    vertex_a, vertex_b = GAMMA @ a, GAMMA @ b
    return 0.5 * np.einsum(
        "nij,mjk,nkl,oli->nmo", slash_first, vertex_a, slash_last, vertex_b, optimize=True
    )


def couplings(kind):
    isospin, charge = {"2": (0.5, 2 / 3), "1": (-0.5, -1 / 3)}[kind]
    z = (G / C * (isospin - charge * S2), -G / C * charge * S2)
    return {"Z": z, "A": (E * charge, E * charge)}


def massless(p):
    """The same three-momentum in extended precision, exactly on the light cone."""
    exact = p.astype(EXTENDED)
    exact[:, 0] = np.sqrt(np.sum(exact[:, 1:] ** 2, axis=1))
    return exact


def brute_force(p1, p2, k1, k2, channel):
    q1, q2 = p1 - k1, p2 - k2
    anti = channel.endswith("qqb")
    if channel.startswith("WW"):
        exchanges = [("W", "W", w_vertex(q1, q2))]
        first = second = {"W": (G / math.sqrt(2), 0.0)}
    else:
        exchanges = [
            ("Z", "Z", z_vertex(q1, q2)),
            ("Z", "A", z_photon_vertex(q1, q2, photon=1)),
            ("A", "Z", z_photon_vertex(q1, q2, photon=0)),
        ]
        first, second = couplings(channel[3]), couplings(channel[4])
    mass = {"W": MW, "Z": MZ, "A": 0.0}
    lower = []
    for a, b, vertex in exchanges:
        left, right = propagator(q1, mass[a]) @ METRIC, METRIC @ propagator(q2, mass[b])
        lower.append(METRIC @ (left @ vertex @ right) @ METRIC)
    form = np.zeros((3, 3, len(p1)))
    for (a1, a2, _), va in zip(exchanges, lower, strict=True):
        for (b1, b2, _), vb in zip(exchanges, lower, strict=True):
            t1 = line_tensor(p1, k1, first[a1], first[b1], anti=False)
            t2 = line_tensor(p2, k2, second[a2], second[b2], anti=anti)
            form += np.einsum("nmo,nkq,xnmk,ynoq->xyn", t1, t2, va, vb, optimize=True).real
    monomials = [form[0, 0], form[0, 1] + form[1, 0], form[0, 2] + form[2, 0]]
    monomials += [form[1, 1], form[1, 2] + form[2, 1], form[2, 2]]
    powers = np.array([1, SCALE, SCALE, SCALE**2, SCALE**2, SCALE**2])
    return np.stack(monomials, axis=1) * powers


def test_gamma_matrices_obey_their_algebra():
    anticommutator = np.einsum("mij,njk->mnik", GAMMA, GAMMA)
    anticommutator = anticommutator + anticommutator.transpose(1, 0, 2, 3)
    np.testing.assert_allclose(anticommutator, 2 * np.einsum("mn,ik->mnik", METRIC, np.eye(4)))


@pytest.mark.parametrize("channel", CHANNELS)
def test_squared_amplitude_equals_dirac_traces(random_partons, channel):
    p1, p2, k1, k2 = (massless(p) for p in random_partons)
    expected = brute_force(p1, p2, k1, k2, channel)
    p1, p2, k1, k2 = random_partons
    got = squared_amplitude_coefficients(p1, p2, k1, k2, channel, "paper")
    c0, c3, c5 = (expected[:, i] for i in (0, 3, 5))
    scale = np.stack(
        [c0, np.sqrt(c0 * c3), np.sqrt(c0 * c5), c3, np.sqrt(c3 * c5), c5],
        axis=1,
    )
    assert np.max(np.abs(got - expected) / scale) < 1e-8
