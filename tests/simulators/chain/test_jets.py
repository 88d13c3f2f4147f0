"""Anti-kT jets against a direct O(N^3) clustering, and the removal of isolated objects."""

import numpy as np
import pytest

from simulators.chain.jagged import Jagged
from simulators.chain.jets import anti_kt_jets, without_overlap

RADIUS = 0.5


def event(n, seed):
    rng = np.random.default_rng(seed)
    pt = rng.exponential(20.0, n)
    eta, phi = rng.uniform(-0.8, 0.8, n), rng.uniform(-0.8, 0.8, n)
    mass = rng.uniform(0, 1, n)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return np.stack([px, py, pz, np.sqrt(px**2 + py**2 + pz**2 + mass**2)], axis=1)


def brute_force(momenta, radius, pt_min):
    """(pT, rapidity, phi) of anti-kT jets by the definition."""
    left, jets = [p.copy() for p in momenta], []

    def coordinates(p):
        pt2 = p[0] ** 2 + p[1] ** 2
        return pt2, 0.5 * np.log((p[3] + p[2]) / (p[3] - p[2])), np.arctan2(p[1], p[0])

    while left:
        best, pair = np.inf, (0, None)
        for i, p in enumerate(left):
            pt2, y, phi = coordinates(p)
            if 1 / pt2 < best:
                best, pair = 1 / pt2, (i, None)
            for j in range(i):
                pt2_j, y_j, phi_j = coordinates(left[j])
                d_phi = np.pi - abs(np.pi - abs(phi - phi_j))
                distance = min(1 / pt2, 1 / pt2_j) * ((y - y_j) ** 2 + d_phi**2) / radius**2
                if distance < best:
                    best, pair = distance, (i, j)
        i, j = pair
        if j is None:
            jets.append(left.pop(i))
        else:
            left[j] = left[j] + left[i]
            left.pop(i)
    found = [np.sqrt(coordinates(p)[0]) for p in jets]
    return sorted((pt for pt in found if pt > pt_min), reverse=True)


def jagged(events):
    flat = np.concatenate(events)
    names: list[str] = ["px", "py", "pz", "energy"]
    columns = {name: flat[:, i].copy() for i, name in enumerate(names)}
    return Jagged(np.concatenate([[0], np.cumsum([len(e) for e in events])]), columns)


def test_jets_are_those_of_the_definition():
    events = [event(n, seed) for seed, n in enumerate((12, 1, 25, 8))]
    jets = anti_kt_jets(jagged(events), RADIUS, 5.0)
    for number, momenta in enumerate(events):
        found = jets["PT"][jets.offsets[number] : jets.offsets[number + 1]]
        np.testing.assert_allclose(found, brute_force(momenta, RADIUS, 5.0), rtol=1e-9)


def test_events_without_objects_have_no_jets():
    events = [event(5, 1), np.zeros((0, 4)), event(5, 2)]
    assert anti_kt_jets(jagged(events), RADIUS, 1.0).counts[1] == 0


def test_a_jet_has_the_mass_and_direction_of_its_sum():
    close = np.array([[50.0, 0, 0, 50], [50 * np.cos(0.2), 50 * np.sin(0.2), 0, 50]])
    jets = anti_kt_jets(jagged([close]), RADIUS, 20.0)
    assert jets["Mass"][0] == pytest.approx(2 * 50 * np.sin(0.1))
    assert jets["Phi"][0] == pytest.approx(0.1)
    assert jets["Eta"][0] == pytest.approx(0.0)


def test_jets_near_isolated_objects_are_removed():
    columns = {"PT": [50.0, 40.0, 30.0], "Eta": [0.0, 2.0, 0.0], "Phi": [3.1, 0.0, 0.0]}
    jets = Jagged(np.array([0, 2, 3]), {k: np.array(v) for k, v in columns.items()})
    photon = Jagged(np.array([0, 1, 1]), {"eta": np.array([0.1]), "phi": np.array([-3.1])})
    kept = without_overlap(jets, [photon], RADIUS)
    assert kept["PT"].tolist() == [40.0, 30.0]
    assert kept.counts.tolist() == [1, 1]
