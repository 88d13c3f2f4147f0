"""Isolation counts what is near, and nothing else."""

import numpy as np
import pytest

from simulators.chain.isolation import CANDIDATES, isolated, isolation
from simulators.chain.jagged import Jagged
from simulators.chain.pdg import ELECTRON, MUON, NEUTRAL_HADRON, PHOTON


def flow(*objects):
    """One event of (kind, pT, eta, phi)."""
    kind, pt, eta, phi = np.array(objects, dtype=float).T
    columns = {"kind": kind.astype(np.uint8), "pt": pt, "eta": eta, "phi": phi}
    return Jagged(np.array([0, len(pt)]), columns)


def test_the_sum_of_what_is_near():
    event = flow(
        (PHOTON, 50, 0.0, 3.1),
        (NEUTRAL_HADRON, 4, 0.3, -3.1),  # near, across the cut of phi
        (NEUTRAL_HADRON, 2, -0.2, 3.0),
        (NEUTRAL_HADRON, 30, 0.6, 3.1),  # outside the cone
        (NEUTRAL_HADRON, 0.4, 0.0, 3.1),  # too soft
    )
    assert isolation(event, np.array([0]))[0] == pytest.approx(6 / 50)


@pytest.mark.parametrize(
    ("kind", "name", "ratio_max"),
    [(PHOTON, "Photon", 0.12), (ELECTRON, "Electron", 0.12), (MUON, "Muon", 0.25)],
)
def test_candidates_are_kept_up_to_their_ratio(kind, name, ratio_max):
    for neighbour, n_kept in ((0.99 * ratio_max * 50, 1), (1.01 * ratio_max * 50, 0)):
        event = flow((kind, 50, 0, 0), (NEUTRAL_HADRON, neighbour, 0.1, 0.1))
        many = Jagged.concatenate([event] * 400)
        found = isolated(many, CANDIDATES[name], np.random.default_rng(1))
        assert len(found["pt"]) == pytest.approx(0.95 * 400 * n_kept, abs=20)


def test_photons_close_to_each_other_lose_each_other():
    event = flow((PHOTON, 60, 0, 0), (PHOTON, 50, 0, 0.4))
    assert (isolation(event, np.array([0, 1])) > 0.12).all()


def test_events_do_not_see_each_other():
    photon = flow((PHOTON, 60, 0, 0))
    jet = flow((NEUTRAL_HADRON, 60, 0, 0))
    both = Jagged.concatenate([photon, jet])
    assert isolation(both, np.array([0]))[0] == 0
