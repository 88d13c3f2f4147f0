"""The squared amplitude: printed reference values and the symmetries it must have."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import InvalidRequest, KinematicsError
from simulators.wbf.matrix_element import CHANNELS, squared_amplitude_coefficients, theta_units
from simulators.wbf.parton_level import differential_coefficients

REFERENCE = json.loads(Path(__file__).with_name("reference_values.json").read_text("utf-8"))
EXCHANGED = {f"NC_{a}{b}_{q}": f"NC_{b}{a}_{q}" for a in "12" for b in "12" for q in ("qq", "qqb")}


def amplitude(partons, channel: str, setting: str = "paper") -> np.ndarray:
    p1, p2, k1, k2 = partons
    return squared_amplitude_coefficients(p1, p2, k1, k2, channel, setting)


def natural_scale(c: np.ndarray) -> np.ndarray:
    """The size |c_k| could have without cancellation: (c0, 2 sqrt(c0 c3), ...)."""
    c0, c3, c5 = c[..., 0], c[..., 3], c[..., 5]
    mixed = [2 * np.sqrt(c0 * c3), 2 * np.sqrt(c0 * c5), 2 * np.sqrt(c3 * c5)]
    return np.stack([c0, mixed[0], mixed[1], c3, mixed[2], c5], axis=-1)


@pytest.mark.parametrize(("point", "channel", "expected"), REFERENCE["squared_amplitudes"])
def test_the_reference_squared_amplitudes_are_reproduced(parton_momenta, point, channel, expected):
    p1, p2, k1, k2, _ = parton_momenta(*REFERENCE["points"][point])
    coefficients = squared_amplitude_coefficients(p1, p2, k1, k2, channel, "paper")
    np.testing.assert_allclose(coefficients[0], expected, rtol=1e-8)


@pytest.mark.parametrize(("point", "process", "expected"), REFERENCE["parton_level"])
def test_the_reference_cross_sections_are_reproduced(parton_momenta, point, process, expected):
    _, _, k1, k2, higgs = parton_momenta(*REFERENCE["points"][point])
    coefficients = differential_coefficients(k1.T, k2.T, higgs.T, process)[:, 0]
    np.testing.assert_allclose(coefficients * theta_units("paper"), expected, rtol=1e-8)


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_polynomial_is_positive_everywhere(random_partons, channel):
    c0, c1, c2, c3, c4, c5 = amplitude(random_partons, channel).T
    form = np.array([[2 * c0, c1, c2], [c1, 2 * c3, c4], [c2, c4, 2 * c5]]).transpose(2, 0, 1)
    scaled = form / np.sqrt(np.einsum("nii,njj->nij", form, form))
    assert np.linalg.eigvalsh(scaled).min() > -1e-10


@pytest.mark.parametrize("channel", CHANNELS)
def test_reflection_flips_exactly_the_cp_odd_terms(random_partons, channel):
    mirror = np.array([1.0, 1.0, -1.0, 1.0])
    c = amplitude(random_partons, channel)
    reflected = amplitude([p * mirror for p in random_partons], channel)
    flip = np.array([1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    assert np.max(np.abs(reflected * flip - c) / natural_scale(c)) < 1e-10
    assert np.abs(c[:, [2, 4]]).max() > 0


@pytest.mark.parametrize("channel", CHANNELS)
def test_exchanging_the_two_lines_changes_nothing(random_partons, channel):
    p1, p2, k1, k2 = random_partons
    c = amplitude((p1, p2, k1, k2), channel)
    exchanged = amplitude(
        (p2, p1, k2, k1), EXCHANGED[channel] if channel in EXCHANGED else channel
    )
    assert np.max(np.abs(exchanged - c) / natural_scale(c)) < 1e-10


@settings(deadline=None, max_examples=20)
@given(
    beta=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    channel=st.sampled_from(CHANNELS),
)
def test_boosts_change_nothing(random_partons, beta, channel):
    velocity = np.array(beta)
    square = velocity @ velocity
    gamma = 1 / np.sqrt(1 - square)
    boost = np.eye(4)
    boost[0, 0] = gamma
    boost[0, 1:] = boost[1:, 0] = gamma * velocity
    boost[1:, 1:] += gamma**2 / (1 + gamma) * np.outer(velocity, velocity)
    c = amplitude(random_partons, channel)
    boosted = amplitude([p @ boost for p in random_partons], channel)
    assert np.max(np.abs(boosted - c) / natural_scale(c)) < 1e-8


def test_a_quark_along_the_spinor_axis_is_no_singularity():
    p1, p2 = np.array([[500.0, 0.0, 0.0, 500.0]]), np.array([[500.0, 0.0, 0.0, -500.0]])
    k2 = np.array([[150.0, 90.0, 0.0, -120.0]])

    def coefficients(px: float, py: float) -> np.ndarray:
        k1 = np.array([[200.0, px, py, 0.0]])
        return squared_amplitude_coefficients(p1, p2, k1, k2, "WW_qq")

    for px in (200.0, -200.0):
        np.testing.assert_allclose(coefficients(px, 0.0), coefficients(px, 1e-7), 1e-7, 1e-13)


def test_settings_differ_by_powers_of_the_scale(random_partons):
    tuned = amplitude(random_partons, "NC_21_qq", "tuned")
    paper = amplitude(random_partons, "NC_21_qq", "paper")
    np.testing.assert_allclose(paper, tuned * [1, 5, 5, 25, 25, 25], rtol=1e-12)


def test_doors_refuse_what_they_cannot_use():
    p = np.ones((2, 4))
    with pytest.raises(InvalidRequest, match="unknown channel 'WW'"):
        squared_amplitude_coefficients(p, p, p, p, "WW")
    with pytest.raises(InvalidRequest, match="unknown setting 'loud'"):
        squared_amplitude_coefficients(p, p, p, p, "WW_qq", "loud")
    with pytest.raises(KinematicsError, match=r"k1 must be an array of shape \(N, 4\)"):
        squared_amplitude_coefficients(p, p, p[:, :3], p, "WW_qq")
    with pytest.raises(KinematicsError, match="one shape"):
        squared_amplitude_coefficients(p, p, p[:1], p, "WW_qq")
    with pytest.raises(KinematicsError, match="p2 has momenta that are not finite"):
        squared_amplitude_coefficients(p, p * np.nan, p, p, "WW_qq")
