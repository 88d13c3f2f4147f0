"""The exact density: reference events, charts, support, score, cross section."""

import json
from pathlib import Path

import numpy as np
import pytest

from simulators.errors import InvalidRequest, KinematicsError
from simulators.wbf.event_model import (
    density_coefficients,
    fiducial_cross_section,
    fiducial_cross_section_error,
    inside_cuts,
    log_likelihood,
    monomials,
    score,
)
from simulators.wbf.generator import generate_events
from simulators.wbf.integration import estimate_cross_section
from simulators.wbf.kinematics import invariant_mass2, remove_recoil
from simulators.wbf.matrix_element import theta_units

REFERENCE = json.loads(Path(__file__).with_name("reference_values.json").read_text("utf-8"))
SPECIFIED = {
    "ud": ([0.6485, -2.580, 0, 12.793, 0, 14.194], [0.0008, 0.003, 0, 0.022, 0, 0.017]),
    "full": ([2.0019, -7.465, 0, 33.863, 0, 39.451], [0.0029, 0.011, 0, 0.065, 0, 0.061]),
}


@pytest.fixture(scope="module")
def events():
    theta = np.random.default_rng(1).normal(size=(200, 2))
    return generate_events(theta, np.random.default_rng(2))


@pytest.mark.parametrize("chart", ["pole", "cart"])
@pytest.mark.parametrize("event", REFERENCE["events"])
def test_the_reference_densities_are_reproduced(event, chart):
    """Their momenta are printed to 1e-6 GeV, which moves masses and densities by some 1e-7."""
    got = density_coefficients([event["momenta"]], chart, "ud", "paper")[0]
    np.testing.assert_allclose(got, event[chart], rtol=5e-7)


@pytest.mark.parametrize("event", REFERENCE["events"])
def test_the_inverse_map_finds_the_reference_parton_level(event):
    j1, j2, a1, a2 = np.array(event["momenta"])[..., None]
    recoil, (b1, b2, pair) = remove_recoil((j1, j2, a1 + a2))
    np.testing.assert_allclose(recoil[:, 0], event["recoil"], atol=1e-5)
    np.testing.assert_allclose(
        np.sqrt([invariant_mass2(j1)[0], invariant_mass2(j2)[0]]), event["jet_masses"], rtol=1e-5
    )
    for p, name in ((b1, "k1"), (b2, "k2"), (pair, "higgs")):
        np.testing.assert_allclose(p[1:3, 0], event[name][1:3], atol=1e-5)


@pytest.mark.parametrize("event", REFERENCE["events"])
def test_the_charts_differ_by_the_numerical_jacobian(event):
    """Measures d4p_j1 d4p_j2 d3p_a1 d3p_a2 against d2pT dy dm (x2) d2pT dy dm dOmega*."""

    def jet(p):
        mass = np.sqrt(p[0] ** 2 - p[1:] @ p[1:])
        return [p[1], p[2], 0.5 * np.log((p[0] + p[3]) / (p[0] - p[3])), mass]

    def pole(u):
        photons = [np.array([np.linalg.norm(p), *p]) for p in (u[8:11], u[11:14])]
        pair = photons[0] + photons[1]
        mass = jet(pair)[3]
        shift = photons[0][1:] @ pair[1:] / (mass * (mass + pair[0])) - photons[0][0] / mass
        n = photons[0][1:] + pair[1:] * shift
        angles = [n[2] / np.linalg.norm(n), np.arctan2(n[1], n[0])]
        return np.array([*jet(u[:4]), *jet(u[4:8]), *jet(pair), *angles])

    j1, j2, a1, a2 = np.array(event["momenta"])
    u = np.concatenate([j1, j2, a1[1:], a2[1:]])
    steps = 1e-4 * np.eye(14)
    jacobian = np.stack([(pole(u + h) - pole(u - h)) / 2e-4 for h in steps])
    momenta = [event["momenta"]]
    ratio = density_coefficients(momenta, "cart") / density_coefficients(momenta, "pole")
    np.testing.assert_allclose(ratio[0], abs(np.linalg.det(jacobian)), rtol=1e-5)


def test_the_density_vanishes_exactly_outside_the_cuts(events):
    momenta = events.momenta
    rotated = momenta.copy()
    rotated[:, 2:] = momenta[:, [2, 2]]  # one photon twice: the pair has no mass
    assert not inside_cuts(rotated).any()
    assert not density_coefficients(rotated).any()
    assert np.all(log_likelihood(rotated, [0.2, 0.1]) == -np.inf)
    assert inside_cuts(momenta).all()
    assert np.isfinite(log_likelihood(momenta, [0.2, 0.1])).all()


def test_jets_and_photons_are_unlabelled(events):
    exchanged = events.momenta[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(density_coefficients(exchanged), events.components, rtol=1e-9)


def test_reflection_flips_exactly_the_cp_odd_terms(events):
    mirror = np.array([1.0, 1.0, -1.0, 1.0])
    reflected = density_coefficients(events.momenta * mirror)
    flip = np.array([1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    np.testing.assert_allclose(reflected * flip, events.components, rtol=1e-6)


@pytest.mark.parametrize("channel", ["ud", "full"])
def test_the_density_is_positive_for_every_theta(events, channel):
    coefficients = density_coefficients(events.momenta, channel=channel)
    theta = np.random.default_rng(3).normal(0, 3, (500, 2))
    assert (coefficients @ monomials(theta).T).min() > 0


def test_likelihood_per_event_and_for_one_theta_agree(events):
    theta = np.random.default_rng(4).normal(size=(len(events), 2))
    each = log_likelihood(events.momenta, theta)
    for i in (0, 7, 99):
        one = log_likelihood(events.momenta[i : i + 1], theta[i])
        np.testing.assert_allclose(one, each[i : i + 1], rtol=1e-12)


def test_score_is_the_gradient_of_the_log_likelihood(events):
    step = 1e-5
    for axis in range(2):
        shift = step * np.eye(2)[axis]
        above = log_likelihood(events.momenta, events.theta + shift)
        below = log_likelihood(events.momenta, events.theta - shift)
        np.testing.assert_allclose(
            events.score[:, axis], (above - below) / (2 * step), rtol=1e-6, atol=1e-6
        )


def test_the_score_has_mean_zero():
    theta = np.tile([0.4, -0.3], (20_000, 1))
    drawn = generate_events(theta, np.random.default_rng(6))
    error = drawn.score.std(axis=0) / np.sqrt(len(drawn))
    assert np.max(np.abs(drawn.score.mean(axis=0)) / error) < 4


@pytest.mark.parametrize("channel", SPECIFIED)
def test_the_cross_section_agrees_with_the_specified_one(channel):
    value, error = (np.array(numbers) for numbers in SPECIFIED[channel])
    table = fiducial_cross_section(channel, "paper")
    both = np.hypot(error, fiducial_cross_section_error(channel, "paper"))
    assert np.max(np.abs(table - value)[both > 0] / both[both > 0]) < 3
    assert table[[2, 4]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("channel", ["ud", "ww", "full"])
def test_the_cross_section_table_can_be_recomputed(channel):
    estimate = estimate_cross_section(channel, 500_000, np.random.default_rng(8))
    units = theta_units("tuned") * np.array([1, 1e6, 1e6, 1e12, 1e12, 1e12])
    difference = estimate.value * units - fiducial_cross_section(channel)
    error = np.hypot(estimate.error * units, fiducial_cross_section_error(channel))
    assert np.max(np.abs(difference)[error > 0] / error[error > 0]) < 4
    assert np.max(np.abs(estimate.odd_pull)) < 4


def test_the_cross_section_table_is_precise():
    for channel in ("ud", "ww", "full"):
        even = [0, 1, 3, 5]
        value = fiducial_cross_section(channel)[even]
        assert np.max(fiducial_cross_section_error(channel)[even] / np.abs(value)) < 1e-3


def test_settings_differ_by_powers_of_the_scale():
    np.testing.assert_allclose(
        fiducial_cross_section("ud", "paper"),
        fiducial_cross_section("ud", "tuned") * [1, 5, 5, 25, 25, 25],
        rtol=1e-12,
    )


def test_doors_refuse_what_they_cannot_use(events):
    momenta = events.momenta
    with pytest.raises(InvalidRequest, match="unknown chart 'polar'"):
        density_coefficients(momenta, "polar")
    with pytest.raises(InvalidRequest, match="unknown channel 'uu'"):
        density_coefficients(momenta, channel="uu")
    with pytest.raises(InvalidRequest, match="unknown setting"):
        fiducial_cross_section("ud", "x")
    with pytest.raises(InvalidRequest, match="unknown channel"):
        fiducial_cross_section("zz")
    with pytest.raises(KinematicsError, match=r"shape \(N, 4, 4\)"):
        density_coefficients(momenta[:, :3])
    with pytest.raises(KinematicsError, match="not finite"):
        density_coefficients(momenta * np.inf)
    with pytest.raises(InvalidRequest, match="theta must have shape"):
        log_likelihood(momenta, np.zeros((3, 2)))
    with pytest.raises(InvalidRequest, match="theta must be finite"):
        log_likelihood(momenta, [np.nan, 0.0])


def test_score_broadcasts_one_theta(events):
    cross_section = fiducial_cross_section("ud")
    one = score(events.components, [0.1, 0.2], cross_section)
    many = score(events.components, np.tile([0.1, 0.2], (len(events), 1)), cross_section)
    np.testing.assert_allclose(one, many)
