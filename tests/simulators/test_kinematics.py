"""Recoil, photon decay and cuts: inverses, Jacobians, invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.wbf.kinematics import (
    add_recoil,
    decay_to_photons,
    invariant_mass2,
    momentum_from_rapidity,
    passes_cuts,
    remove_recoil,
)

MASSES = np.array([12.0, 9.0, 124.0])


def objects_at(pt1, pt2, rapidities):
    """Two jets and a photon pair with balanced transverse momenta, each (4, 1)."""
    pts = [pt1, pt2, -pt1 - pt2]
    return tuple(
        momentum_from_rapidity(pt[:, None], np.exp([y]), mass**2)
        for pt, y, mass in zip(pts, rapidities, MASSES, strict=True)
    )


def rapidity(p):
    return 0.5 * np.log((p[0] + p[3]) / (p[0] - p[3]))


momentum = st.floats(-300, 300)
configuration = st.tuples(*[momentum] * 4, *[st.floats(-3, 3)] * 3, *[st.floats(-80, 80)] * 2)


@settings(deadline=None)
@given(configuration)
def test_removing_the_recoil_inverts_adding_it(values):
    pt1, pt2, recoil = np.array(values[:2]), np.array(values[2:4]), np.array(values[7:9])
    objects = objects_at(pt1, pt2, values[4:7])
    moved = add_recoil(objects, recoil[:, None])
    found, back = remove_recoil(moved)
    np.testing.assert_allclose(found[:, 0], recoil, rtol=0, atol=1e-9)
    for p, q in zip(objects, back, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(configuration)
def test_recoil_keeps_masses_and_the_systems_mass_and_rapidity(values):
    objects = objects_at(np.array(values[:2]), np.array(values[2:4]), values[4:7])
    moved = add_recoil(objects, np.array(values[7:9])[:, None])
    total, moved_total = np.sum(objects, axis=0), np.sum(moved, axis=0)
    np.testing.assert_allclose(invariant_mass2(moved_total), invariant_mass2(total), rtol=1e-9)
    np.testing.assert_allclose(rapidity(moved_total), rapidity(total), atol=1e-9)
    for p, q in zip(objects, moved, strict=True):
        scale = float(max(p[0, 0], q[0, 0]) ** 2)
        np.testing.assert_allclose(invariant_mass2(p), invariant_mass2(q), atol=1e-12 * scale)


def test_the_recoil_map_has_determinant_one():
    """(K, y1', y2', yh', pT1', pT2') -> (pT, y) of the three objects, central differences."""

    def final(u):
        objects = objects_at(u[5:7], u[7:9], u[2:5])
        moved = add_recoil(objects, u[0:2, None])
        return np.concatenate([[p[1, 0], p[2, 0], rapidity(p)[0]] for p in moved])

    rng = np.random.default_rng(3)
    for _ in range(5):
        u = np.concatenate([rng.normal(0, 20, 2), rng.normal(0, 1.5, 3), rng.normal(0, 80, 4)])
        steps = 1e-4 * np.array([20, 20, 1, 1, 1, 80, 80, 80, 80])
        columns = [
            (final(u + step) - final(u - step)) / (2 * size)
            for step, size in zip(np.diag(steps), steps, strict=True)
        ]
        assert abs(np.linalg.det(np.stack(columns))) == pytest.approx(1, abs=1e-6)


def test_photons_are_massless_and_add_up_to_their_parent():
    rng = np.random.default_rng(4)
    mass = rng.normal(125, 2, 50)
    pt, exp_rapidity = rng.normal(0, 200, (2, 50)), np.exp(rng.normal(0, 1, 50))
    parent = momentum_from_rapidity(pt, exp_rapidity, mass**2)
    a1, a2 = decay_to_photons(parent, mass, rng.uniform(-1, 1, 50), rng.uniform(0, 6, 50))
    np.testing.assert_allclose(a1 + a2, parent, rtol=1e-12)
    for photon in (a1, a2):
        assert np.max(np.abs(invariant_mass2(photon)) / parent[0] ** 2) < 1e-13


def at(pt, eta, phi, mass=0.0):
    momentum = pt * np.cosh(eta)
    energy = np.hypot(mass, momentum)
    return np.array([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])


def fiducial_event():
    """J1, j2, a1, a2 well inside the cuts, m_aa = 125."""
    a1, a2 = at(80.0, 0.3, 2.0), at(60.0, -0.2, 3.9)
    a2 *= 125.0**2 / invariant_mass2(a1 + a2)
    return [at(70.0, 3.0, 0.1, 8.0), at(40.0, -2.5, -1.5, 6.0), a1, a2]


CUTS = {
    "leading jet pT": (0, at(19.9, 3.0, 0.1, 8.0)),
    "second jet pT": (1, at(19.9, -2.5, -1.5, 6.0)),
    "jet eta": (1, at(40.0, -5.01, -1.5, 6.0)),
    "photon pT": (3, at(9.9, -0.2, 3.9)),
    "photon eta": (2, at(80.0, 2.51, 2.0)),
    "jets apart": (1, at(40.0, 2.8, 0.3, 6.0)),
    "jet and photon apart": (1, at(40.0, 0.3, 2.3, 6.0)),
    "pair mass": (3, at(60.0, -0.2, 2.9)),
}


def test_an_event_inside_the_cuts_passes():
    assert passes_cuts(*(p[:, None] for p in fiducial_event())).tolist() == [True]


@pytest.mark.parametrize("cut", CUTS)
def test_each_cut_refuses_its_event(cut):
    which, momentum = CUTS[cut]
    event = fiducial_event()
    event[which] = momentum
    assert passes_cuts(*(p[:, None] for p in event)).tolist() == [False]


def test_azimuths_are_compared_around_the_circle():
    event = fiducial_event()
    event[0], event[1] = at(70.0, 3.0, 3.1, 8.0), at(40.0, 3.0, -3.1, 6.0)
    assert passes_cuts(*(p[:, None] for p in event)).tolist() == [False]
