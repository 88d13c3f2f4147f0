"""From the unit cube to final objects: Jacobian of the map, distributions of the smearing."""

import numpy as np
import pytest
from scipy import stats

from simulators.wbf import constants
from simulators.wbf.event_model import _pole_coefficients
from simulators.wbf.kinematics import invariant_mass2, momentum_from_rapidity, remove_recoil
from simulators.wbf.parton_level import differential_coefficients
from simulators.wbf.phase_space import SamplingMap
from simulators.wbf.proposals import _final_objects, proposals_at


@pytest.fixture(scope="module")
def drawn():
    """40,000 parton-level points, and their final objects before any cut."""
    rng = np.random.default_rng(21)
    u = rng.uniform(0.2, 0.8, (7, 40_000))
    point = SamplingMap(-3.0, 6.0)(u)
    return point, _final_objects(point, rng)


def test_the_jacobian_of_the_sampling_map():
    """|d(y1, y2, yh, pT1, pT2)/du| by central differences."""
    sampling = SamplingMap(-3.0, 6.0)

    def coordinates(u):
        point = sampling(u[:, None])
        return np.concatenate([np.log(point.exp_rapidity), point.pt1, point.pt2])[:, 0]

    rng = np.random.default_rng(22)
    for u in rng.uniform(0.1, 0.9, (20, 7)):
        steps = 1e-6 * np.eye(7)
        matrix = [(coordinates(u + h) - coordinates(u - h)) / 2e-6 for h in steps]
        expected = abs(np.linalg.det(np.stack(matrix)))
        assert sampling(u[:, None]).jacobian[0] == pytest.approx(expected, rel=1e-5)


def test_total_rapidity_keeps_the_momentum_fractions_below_one():
    u = np.random.default_rng(23).random((7, 20_000))
    point = SamplingMap()(u)
    pts = [np.hypot(*point.pt1), np.hypot(*point.pt2)]
    higgs = np.sqrt(constants.HIGGS_MASS**2 + np.sum((point.pt1 + point.pt2) ** 2, axis=0))
    scales = np.stack([*pts, higgs])
    x1 = (scales * point.exp_rapidity).sum(axis=0) / constants.BEAM_ENERGY_SUM
    x2 = (scales / point.exp_rapidity).sum(axis=0) / constants.BEAM_ENERGY_SUM
    physical = point.jacobian > 0
    assert 0.3 < physical.mean() < 1
    assert np.maximum(x1, x2)[physical].max() < 1


def test_smearing_follows_its_densities(drawn):
    """Recoil, jet masses and pair mass by Kolmogorov-Smirnov; photon direction isotropic."""
    point, (j1, j2, a1, a2) = drawn
    recoil, (_, _, pair) = remove_recoil((j1, j2, a1 + a2))
    scaled = 1 + (recoil**2).sum(axis=0) / constants.RECOIL_SCALE**2
    pulls = {"recoil": scaled ** (1 - constants.RECOIL_POWER)}
    pulls["direction"] = np.arctan2(*recoil) / (2 * np.pi) + 0.5
    for name, jet, pt in (("m1", j1, point.pt1), ("m2", j2, point.pt2)):
        centre = constants.JET_MASS_OFFSET + constants.JET_MASS_SLOPE * np.hypot(*pt)
        pulls[name] = stats.norm.cdf(np.log(np.sqrt(invariant_mass2(jet)) / centre) / 0.45)
    mass = np.sqrt(invariant_mass2(a1 + a2))
    pulls["pair mass"] = stats.norm.cdf((mass - 125) / 2)
    total = a1 + a2
    along = (a1[1:] * total[1:]).sum(axis=0) / np.sqrt((total[1:] ** 2).sum(axis=0))
    gamma = total[0] / mass
    boosted = gamma * along - np.sqrt(gamma**2 - 1) * a1[0]
    pulls["polar angle"] = boosted / mass + 0.5
    for name, values in pulls.items():
        assert stats.kstest(values, "uniform").pvalue > 1e-4, name
    assert pair.shape == total.shape


def test_removing_the_recoil_leads_back_to_the_parton_level(drawn):
    point, (j1, j2, a1, a2) = drawn
    _, (b1, b2, pair) = remove_recoil((j1, j2, a1 + a2))
    for p, pt, exp_rapidity in zip(
        (b1, b2, pair),
        (point.pt1, point.pt2, -point.pt1 - point.pt2),
        point.exp_rapidity,
        strict=True,
    ):
        np.testing.assert_allclose(p[1:3], pt, rtol=0, atol=1e-7)
        rapidity = 0.5 * np.log((p[0] + p[3]) / (p[0] - p[3]))
        np.testing.assert_allclose(rapidity, np.log(exp_rapidity), atol=1e-9)


@pytest.mark.parametrize("channel", ["ud", "full"])
def test_proposal_and_density_hold_the_same_parton_level(channel):
    """c_k(x) = [labelled coefficient + exchanged lines] times one factor for all k."""
    rng = np.random.default_rng(24)
    u = rng.uniform(0.2, 0.8, (7, 500))
    point = SamplingMap()(u)
    factor = np.divide(1, point.jacobian, where=point.jacobian > 0, out=np.zeros(500))
    proposals = proposals_at(u, factor, rng, channel)
    kept = proposals.position
    momenta = [
        momentum_from_rapidity(pt[:, kept], exp_rapidity[kept], mass**2)
        for pt, exp_rapidity, mass in (
            (point.pt1, point.exp_rapidity[0], 0.0),
            (point.pt2, point.exp_rapidity[1], 0.0),
            (-point.pt1 - point.pt2, point.exp_rapidity[2], constants.HIGGS_MASS),
        )
    ]
    k1, k2, higgs = momenta
    both = proposals.coefficients + differential_coefficients(k2, k1, higgs, channel)
    density = _pole_coefficients(*proposals.momenta, channel=channel)
    even = [0, 1, 3, 5]
    np.testing.assert_allclose((density / density[0])[even], (both / both[0])[even], rtol=1e-6)
