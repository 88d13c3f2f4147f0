"""Energy flow: counts follow the efficiencies, moments the resolutions, or simply the truth."""

import numpy as np
import pytest

from simulators.chain.detector import Detector, observe
from simulators.chain.pdg import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from simulators.chain.response import ecal_resolution, hcal_resolution

N = 20_000


def always(pt, abs_eta):
    return np.ones_like(pt)


def sharp(value, abs_eta):
    return np.zeros_like(value)


def perfect():
    every = dict.fromkeys(("hadron", "electron", "muon"))
    return Detector(
        tracking=dict.fromkeys(every, always),
        track_resolution=dict.fromkeys(every, sharp),
        ecal=sharp,
        hcal=sharp,
        ecal_energy_min=0.0,
        hcal_energy_min=0.0,
    )


def test_a_perfect_detector_sees_what_is_there(showered):
    _, particles = showered
    flow = observe(particles, perfect(), np.random.default_rng(1))
    pt = np.hypot(particles["px"], particles["py"])
    neutrino = np.isin(np.abs(particles["pid"]), (12, 14, 16))
    inside = ~neutrino & (np.abs(particles["pz"]) < pt * np.sinh(5.0))
    seen = particles.where(inside)
    np.testing.assert_array_equal(flow["pid"], seen["pid"])
    np.testing.assert_array_equal(flow.offsets, seen.offsets)
    tracks = np.isin(flow["kind"], (CHARGED_HADRON, ELECTRON, MUON))
    for name in ("px", "py", "pz", "energy"):
        np.testing.assert_allclose(flow[name][tracks], seen[name][tracks], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(flow["energy"][~tracks], seen["energy"][~tracks], rtol=1e-12)
    momentum2 = flow["px"] ** 2 + flow["py"] ** 2 + flow["pz"] ** 2
    np.testing.assert_allclose(momentum2[~tracks], flow["energy"][~tracks] ** 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("pid", "pt", "eta", "efficiency"),
    [(211, 0.5, 1.0, 0.70), (-321, 5.0, 2.0, 0.85), (11, 5.0, 1.0, 0.95), (13, 5.0, 2.0, 0.98)],
)
def test_tracks_are_counted_by_their_efficiency(gun, pid, pt, eta, efficiency):
    flow = observe(gun(N, pid, pt, eta, 0.1), Detector(), np.random.default_rng(2))
    tracks = ~np.isin(flow["kind"], (PHOTON, NEUTRAL_HADRON))
    error = np.sqrt(efficiency * (1 - efficiency) / N)
    assert tracks.sum() / N == pytest.approx(efficiency, abs=4.5 * error)


SMEARED = [
    (22, 60.0, 0.3, PHOTON, ecal_resolution),
    (22, 60.0, 2.2, PHOTON, ecal_resolution),
    (130, 40.0, 0.3, NEUTRAL_HADRON, hcal_resolution),
    (211, 10.0, 4.0, NEUTRAL_HADRON, hcal_resolution),
]


@pytest.mark.parametrize(("pid", "pt", "eta", "kind", "width"), SMEARED)
def test_calorimeters_keep_the_mean_and_have_their_resolution(gun, pid, pt, eta, kind, width):
    flow = observe(gun(N, pid, pt, eta), Detector(), np.random.default_rng(3))
    energy = pt * np.cosh(eta)
    expected = width(np.array([energy]), np.array([eta]))[0]
    assert (flow["kind"] == kind).all()
    assert len(flow["energy"]) == N
    assert flow["energy"].mean() == pytest.approx(energy, abs=4.5 * expected / np.sqrt(N))
    assert flow["energy"].std() == pytest.approx(expected, rel=0.05)
    np.testing.assert_allclose(flow["pt"] * np.cosh(flow["eta"]), flow["energy"], rtol=1e-9)


def test_tracks_keep_mass_and_direction_and_have_their_resolution(gun):
    pion = 0.13957
    flow = observe(gun(N, 211, 20.0, 0.2, pion), Detector(), np.random.default_rng(5))
    tracks = flow.where(flow["kind"] == CHARGED_HADRON)
    width = 20.0 * np.hypot(0.01, 20 * 1.5e-4)
    assert tracks["pt"].mean() == pytest.approx(20.0, abs=4.5 * width / np.sqrt(N))
    assert tracks["pt"].std() == pytest.approx(width, rel=0.03)
    np.testing.assert_allclose(tracks["eta"], 0.2, rtol=1e-9)
    momentum2 = tracks["px"] ** 2 + tracks["py"] ** 2 + tracks["pz"] ** 2
    np.testing.assert_allclose(np.sqrt(tracks["energy"] ** 2 - momentum2), pion, rtol=1e-3)


@pytest.mark.parametrize(
    ("pid", "pt", "eta"), [(12, 50.0, 0.0), (-16, 50.0, 0.0), (22, 50.0, 5.1), (13, 50.0, 3.0)]
)
def test_what_nobody_sees(gun, pid, pt, eta):
    flow = observe(gun(50, pid, pt, eta), Detector(), np.random.default_rng(6))
    assert len(flow) == 50
    assert len(flow["pt"]) == 0


def test_calorimeters_have_a_threshold(gun):
    flow = observe(gun(N, 22, 0.6, 0.0), Detector(), np.random.default_rng(7))
    assert 0 < len(flow["energy"]) < N
    assert flow["energy"].min() > 0.5
