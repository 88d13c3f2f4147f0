"""Parton-level points that several rooms' tests share."""

import numpy as np
import pytest

from simulators.wbf.phase_space import SamplingMap

HIGGS_MASS = 125.0
BEAM = np.array([1.0, 0.0, 0.0, 1.0])
OTHER_BEAM = np.array([1.0, 0.0, 0.0, -1.0])


def _momentum(pt: np.ndarray, rapidity: float, mass: float) -> np.ndarray:
    transverse = np.sqrt(mass**2 + pt @ pt)
    return np.array([transverse * np.cosh(rapidity), *pt, transverse * np.sinh(rapidity)])


@pytest.fixture(scope="session")
def parton_momenta():
    """(pT1, phi1, y1, pT2, phi2, y2, yh) -> p1, p2, k1, k2, h, each (1, 4)."""

    def build(pt1, phi1, y1, pt2, phi2, y2, yh):
        first = pt1 * np.array([np.cos(phi1), np.sin(phi1)])
        second = pt2 * np.array([np.cos(phi2), np.sin(phi2)])
        k1, k2 = _momentum(first, y1, 0.0), _momentum(second, y2, 0.0)
        higgs = _momentum(-first - second, yh, HIGGS_MASS)
        total = k1 + k2 + higgs
        p1, p2 = (total[0] + total[3]) / 2 * BEAM, (total[0] - total[3]) / 2 * OTHER_BEAM
        return [p[None] for p in (p1, p2, k1, k2, higgs)]

    return build


@pytest.fixture(scope="session")
def random_partons(parton_momenta):
    """Physical points of up to 300 draws: p1, p2, k1, k2, each (N, 4)."""
    rng = np.random.default_rng(5)
    u = rng.random((7, 300))
    u[:2] = 0.25 + 0.7 * u[:2]  # 20 GeV < pT < 1140 GeV
    points = SamplingMap(-2.0, 4.0)(u)
    y1, y2, yh = np.log(points.exp_rapidity)
    columns = [
        parton_momenta(
            np.hypot(*points.pt1[:, i]),
            np.arctan2(*points.pt1[::-1, i]),
            y1[i],
            np.hypot(*points.pt2[:, i]),
            np.arctan2(*points.pt2[::-1, i]),
            y2[i],
            yh[i],
        )[:4]
        for i in np.flatnonzero(points.jacobian)
    ]
    return [np.concatenate(p) for p in zip(*columns, strict=True)]
