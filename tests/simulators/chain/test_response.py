"""Efficiencies and resolutions at points of the card, computed by hand."""

import numpy as np
import pytest

from simulators.chain.response import (
    IDENTIFICATION,
    TRACK_RESOLUTION,
    TRACKING,
    ecal_resolution,
    hcal_resolution,
)

EFFICIENCIES = [
    (TRACKING["hadron"], 0.1, 0.0, 0.0),
    (TRACKING["hadron"], 1.0, 1.5, 0.70),
    (TRACKING["hadron"], 1.01, 1.5, 0.95),
    (TRACKING["hadron"], 50.0, 2.5, 0.85),
    (TRACKING["hadron"], 50.0, 2.51, 0.0),
    (TRACKING["electron"], 0.5, 2.0, 0.50),
    (TRACKING["electron"], 100.0, 1.0, 0.95),
    (TRACKING["electron"], 101.0, 2.0, 0.90),
    (TRACKING["muon"], 0.5, 1.0, 0.75),
    (TRACKING["muon"], 5.0, 2.0, 0.98),
    (IDENTIFICATION["photon"], 10.0, 1.0, 0.0),
    (IDENTIFICATION["photon"], 10.1, 1.5, 0.95),
    (IDENTIFICATION["electron"], 20.0, 1.6, 0.85),
    (IDENTIFICATION["photon"], 20.0, 2.6, 0.0),
    (IDENTIFICATION["muon"], 20.0, 2.4, 0.95),
    (IDENTIFICATION["muon"], 20.0, 2.45, 0.0),
    (IDENTIFICATION["muon"], 2000.0, 0.0, 0.95 * np.exp(-0.5)),
]


@pytest.mark.parametrize(("efficiency", "pt", "eta", "expected"), EFFICIENCIES)
def test_efficiencies(efficiency, pt, eta, expected):
    assert efficiency(np.array([pt]), np.array([eta]))[0] == pytest.approx(expected)


RESOLUTIONS = [
    (TRACK_RESOLUTION["hadron"], 100.0, 0.5, np.hypot(0.01, 0.015)),
    (TRACK_RESOLUTION["hadron"], 100.0, 2.0, np.hypot(0.025, 0.055)),
    (TRACK_RESOLUTION["muon"], 100.0, 1.0, np.hypot(0.015, 0.015)),
    (TRACK_RESOLUTION["electron"], 10.0, 0.0, np.hypot(0.03, 0.013)),
    (ecal_resolution, 100.0, 1.0, 1.64 * np.sqrt(0.64 + 1.21 + 0.16)),
    (ecal_resolution, 100.0, 2.5, 3.56 * np.sqrt(0.64 + 1.21 + 0.16)),
    (ecal_resolution, 100.0, 4.0, np.sqrt(10.7**2 + 432.64)),
    (hcal_resolution, 100.0, 3.0, np.sqrt(25.0 + 225.0)),
    (hcal_resolution, 100.0, 3.1, np.sqrt(169.0 + 729.0)),
]


@pytest.mark.parametrize(("resolution", "value", "eta", "expected"), RESOLUTIONS)
def test_resolutions(resolution, value, eta, expected):
    assert resolution(np.array([value]), np.array([eta]))[0] == pytest.approx(expected)
