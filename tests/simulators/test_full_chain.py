"""Weak-boson fusion through the chain: the score is a gradient, the file tells the truth."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import uproot

import mflow_sbi
from simulators.__main__ import main
from simulators.chain.reconstruction import Reconstruction
from simulators.errors import ChainError
from simulators.wbf.event_model import monomials
from simulators.wbf.full_chain import (
    ChainSettings,
    chain_table,
    selected_cross_section,
    simulate_chain,
)
from simulators.wbf.parton_events import parton_cross_section

N = 900


@pytest.fixture(scope="module")
def simulated():
    theta = np.random.default_rng(41).standard_normal((N, 2))
    return simulate_chain(theta, np.random.SeedSequence(42), "ud", "tuned")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    return simulate(folder / "train.root", "--keep-lhe", str(folder / "partons.lhe.gz"))


def simulate(path, *options, seed=5, theta=("--theta-prior", "normal"), events=400):
    words = ["wbf-chain", "--setting", "paper", *theta, "--events", str(events)]
    assert main([*words, "--seed", str(seed), "--out", str(path), *options]) == 0
    return path


def read(path):
    """Columns by branch and the metadata, with nothing but uproot."""
    file: Any = uproot.open(path)
    tree = file["Delphes"]
    return {name: tree[name].array() for name in tree.keys()}, json.loads(str(file["mflow_sbi"]))


def test_selected_events_have_two_photons_and_two_jets(simulated):
    detected = simulated.detected
    assert 0.45 < simulated.efficiency < 0.65
    assert simulated.n_given_up == 0
    for name, pt_min in (("Photon", 10.0), ("Jet", 20.0)):
        objects = detected.collections[name]
        assert objects.counts.min() >= 2
        assert objects["PT"].min() >= pt_min
        falling = np.diff(objects["PT"]) <= 0
        falling[objects.offsets[1:-1] - 1] = True
        assert falling.all()
    assert (np.diff(detected.rows) > 0).all()


def test_most_photon_pairs_are_the_higgs_boson(simulated):
    photons = simulated.detected.collections["Photon"]
    first, second = photons.offsets[:-1], photons.offsets[:-1] + 1
    pt, eta, phi = (photons[name].astype(np.float64) for name in ("PT", "Eta", "Phi"))
    cosh = np.cosh(eta[first] - eta[second]) - np.cos(phi[first] - phi[second])
    mass = np.sqrt(2 * pt[first] * pt[second] * cosh)
    low, median, high = np.quantile(mass, (0.16, 0.5, 0.84))
    assert median == pytest.approx(125, abs=0.5)
    assert 1.4 < (high - low) / 2 < 2.6  # core of 1.7 to 2.2 GeV


def test_every_event_has_the_truth_of_its_own_partons(simulated):
    """The photon pair has the transverse momentum and rapidity of the Higgs boson."""
    detected, partons = simulated.detected, simulated.partons
    photons = detected.collections["Photon"]
    leading = [photons.offsets[:-1] + i for i in (0, 1)]
    pt, eta, phi = (photons[name].astype(np.float64) for name in ("PT", "Eta", "Phi"))
    px, py, pz, energy = (
        sum(component[i] for i in leading)
        for component in (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
    )
    higgs = partons.momenta[detected.rows, 4]
    for found, expected in (
        (np.hypot(px, py), np.hypot(higgs[:, 1], higgs[:, 2])),
        (np.arctanh(pz / energy), np.arctanh(higgs[:, 3] / higgs[:, 0])),
    ):
        assert np.corrcoef(found, expected)[0, 1] > 0.9
    table = chain_table(simulated, parton_cross_section("ud", "tuned")[0])
    np.testing.assert_array_equal(table.theta["CWL2"], partons.theta[detected.rows, 0])
    np.testing.assert_array_equal(table.weights, partons.components[detected.rows])


def test_cross_section_is_the_efficiency_times_that_of_the_partons(simulated):
    """At (0, 0), event by event: efficiency = sum of p(z|0)/p(z) over selected/over all events.

    p(z) is the mean over j of p(z|theta_j).
    """
    partons, rows = simulated.partons, set(simulated.detected.rows.tolist())
    total = parton_cross_section("ud", "tuned")[0]
    w = monomials(partons.theta)
    selected, everything = 0.0, 0.0
    for number, r in enumerate(partons.components):
        ratio = r[0] / np.mean((w @ r) / (w @ total))
        everything += ratio
        selected += ratio * (number in rows)
    found, error = selected_cross_section(simulated, "ud", "tuned")
    assert found[0] == pytest.approx(total[0] * selected / everything, rel=1e-9)
    assert 0 < error[0] < 0.1 * found[0]


def test_cross_sections_of_samples_at_different_points_agree(simulated):
    """Within errors; without a detector to lose events, they are the parton level's."""
    other = simulate_chain(np.tile([0.6, 0.6], (N, 1)), np.random.SeedSequence(44), "ud", "tuned")
    one, two = (selected_cross_section(sample, "ud", "tuned") for sample in (simulated, other))
    pull = (one[0] - two[0])[[0, 1, 3, 5]] / np.hypot(one[1], two[1])[[0, 1, 3, 5]]
    assert np.abs(pull).max() < 4.5
    perfect = replace(simulated, detected=replace(simulated.detected, rows=np.arange(N)))
    total = parton_cross_section("ud", "tuned")[0]
    np.testing.assert_allclose(selected_cross_section(perfect, "ud", "tuned")[0], total, rtol=1e-9)


def test_cross_section_of_the_selection(simulated):
    """At one theta it is efficiency times the parton level's; errors are what they say."""
    theta = np.tile([0.3, -0.2], (N, 1))
    events = simulate_chain(theta, np.random.SeedSequence(43), "ud", "tuned")
    value, _ = selected_cross_section(events, "ud", "tuned")
    w = monomials([0.3, -0.2])
    total = w @ parton_cross_section("ud", "tuned")[0]
    assert w @ value == pytest.approx(events.efficiency * total, rel=0.05)
    other, error = selected_cross_section(simulated, "ud", "tuned")
    spread = np.hypot(error @ np.abs(w), np.sqrt(0.25 / N) * total)
    assert abs(w @ other - events.efficiency * total) < 4 * spread
    assert value[2] == value[4] == other[2] == other[4] == 0


def test_the_score_is_the_gradient_of_the_joint_likelihood(simulated):
    cross_section, _ = selected_cross_section(simulated, "ud", "tuned")
    table = chain_table(simulated, cross_section)
    theta = np.stack(list(table.theta.values()), axis=1)

    def log_joint(points):
        w = monomials(points)
        return np.log((w * table.weights).sum(axis=1)) - np.log(w @ cross_section)

    for axis, found in enumerate(table.score.values()):
        step = 1e-5 * np.eye(2)[axis]
        slope = (log_joint(theta + step) - log_joint(theta - step)) / 2e-5
        np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-6)


def test_scores_average_to_zero(simulated):
    """E[t(x, z|theta)] = 0 at the theta of the events, which needs the selected cross section."""
    cross_section, _ = selected_cross_section(simulated, "ud", "tuned")
    for values in chain_table(simulated, cross_section).score.values():
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_the_file_holds_what_delphes_would_and_the_truth(written):
    data, record = read(written)
    n = record["n_events"]
    for name in ("Photon.PT", "Electron.Charge", "Muon.Charge", "Jet.Mass", "MissingET.MET"):
        assert len(data[name]) == n
    assert len(data["Weight.Weight"][0]) == 6
    theta = np.stack([data["theta.CWL2"], data["theta.CPWL2"]], axis=1)
    weights = np.array(data["Weight.Weight"].to_list())
    np.testing.assert_allclose((monomials(theta) * weights).sum(axis=1), 1, rtol=1e-12)
    assert record["morphing"]["likelihood"] == "joint"
    assert record["sum_of_weights_before_selection"] == 400
    assert record["simulator"]["statistics"]["selection_efficiency"] == n / 400
    assert record["simulator"]["settings"]["jet_radius"] == 0.5
    assert record["command"].endswith("--out train.root --keep-lhe partons.lhe.gz")
    assert "theta_sampling" not in record  # the selection changes the density of theta


def test_the_package_reads_the_file(written):
    data, record = read(written)
    events = mflow_sbi.read_events(written)
    assert events.x.shape == (record["n_events"], 40)
    names = list(events.metadata.observable_names)
    first = np.array([pt[0] for pt in data["Photon.PT"]])
    np.testing.assert_allclose(events.x[:, names.index("pt_a1")], first, rtol=1e-6)
    assert events.score is not None
    np.testing.assert_allclose(events.score[:, 0], data["score.CWL2"])


def test_the_same_seed_gives_the_same_events_bit_for_bit(written, tmp_path):
    again, _ = read(simulate(tmp_path / "again.root"))
    other, _ = read(simulate(tmp_path / "other.root", seed=6))
    data, _ = read(written)
    for name, column in data.items():
        assert column.to_list() == again[name].to_list(), name
    assert other["Jet.PT"].to_list() != data["Jet.PT"].to_list()


def test_a_fixed_theta_is_declared_and_jets_have_their_radius(tmp_path):
    theta = ("--theta", "0.5", "0")
    small, large = (
        read(simulate(tmp_path / "a.root", "--jet-radius", radius, theta=theta, events=60))
        for radius in ("0.4", "0.8")
    )
    assert small[1]["theta_sampling"] == {"kind": "fixed", "value": [0.5, 0.0]}
    assert large[1]["simulator"]["settings"]["jet_radius"] == 0.8
    mass = [
        np.mean(np.concatenate([list(m) for m in file[0]["Jet.Mass"]])) for file in (small, large)
    ]
    assert mass[1] > mass[0]


def test_multiparton_interactions_add_particles():
    theta = np.zeros((25, 2))
    seeds = 7
    counts = []
    for settings in (ChainSettings(), ChainSettings(multiparton_interactions=True)):
        events = simulate_chain(theta, np.random.SeedSequence(seeds), "ud", "tuned", settings)
        counts.append(events.detected.collections["Jet"].counts.mean())
        assert len(events.detected) > 3
    assert counts[1] != counts[0]


def test_selections_that_keep_nothing_say_so():
    settings = ChainSettings(reconstruction=Reconstruction(n_photons=9))
    with pytest.raises(ChainError, match="no event passed the selection"):
        simulate_chain(np.zeros((3, 2)), np.random.SeedSequence(1), "ud", "tuned", settings)
