"""`python -m simulators detect` and `wbf-chain`: users' files, and bad command lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyhepmc
import pytest
import uproot

from simulators.__main__ import main
from simulators.chain.lhe import write_lhe
from simulators.wbf.parton_events import generate_parton_events, lhe_events

SHARED = Path(__file__).parents[2] / "../shared/data"
MADGRAPH = SHARED / "pylhe-testfile-madgraph5-3.5.8-pp_to_jj.lhe.gz"


def read(path):
    file: Any = uproot.open(path)
    tree = file["Delphes"]
    return {name: tree[name].array() for name in tree.keys()}, json.loads(str(file["mflow_sbi"]))


def detect(path, *options):
    assert main(["detect", "--out", str(path), *options]) == 0
    return read(path)


@pytest.fixture
def partons(tmp_path):
    path = tmp_path / "partons.lhe"
    events = generate_parton_events(np.zeros((40, 2)), np.random.default_rng(1))
    write_lhe(path, lhe_events(events, "ud", "tuned"))
    return path


@pytest.fixture
def hadrons(tmp_path):
    """Two photons of 60 GeV back to back, and a jet of three hadrons; weight -2 and 0.5."""
    path = tmp_path / "hadrons.hepmc3"
    with pyhepmc.open(path, "w") as file:
        for number in range(30):
            event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.MM)
            run = pyhepmc.GenRunInfo()
            run.weight_names = ["nominal", "scale"]
            event.run_info = run
            event.event_number = number
            vertex = pyhepmc.GenVertex()
            vertex.add_particle_in(pyhepmc.GenParticle((0, 0, 0, 250), 25, 2))
            for pid, px, py, pz in (
                (22, 60.0, 0.0, 10.0),
                (22, -60.0, 0.0, 10.0),
                (211, 0.0, 40.0, 5.0),
                (-211, 1.0, 30.0, 4.0),
                (130, 0.0, 30.0, 4.0),
            ):
                energy = np.sqrt(px**2 + py**2 + pz**2)
                vertex.add_particle_out(pyhepmc.GenParticle((px, py, pz, energy), pid, 1))
            event.add_vertex(vertex)
            event.weights = [-2.0, 0.5]
            file.write(event)
    return path


def test_a_hepmc_file(hadrons, tmp_path):
    data, record = detect(tmp_path / "x.root", "--hepmc", str(hadrons))
    assert record["n_events"] == 30
    assert record["simulator"]["settings"]["weight_names"] == ["nominal", "scale"]
    assert record["sum_of_weights"] == record["sum_of_weights_before_selection"] == -60
    assert data["Event.Weight"].to_list() == [[-2.0]] * 30
    assert data["Weight.Weight"].to_list() == [[-2.0, 0.5]] * 30
    photons = np.array([pt for row in data["Photon.PT"] for pt in row])
    assert len(photons) == pytest.approx(0.95 * 60, abs=9)
    assert photons.mean() == pytest.approx(60, abs=1)
    jets = np.array([row[0] for row in data["Jet.PT"]])
    assert jets.mean() == pytest.approx(100, abs=10)
    for jets, photons in zip(data["Jet.Phi"], data["Photon.Phi"], strict=True):
        assert len(jets) == 1 + 2 - len(photons)  # a photon that was not identified is a jet


def test_selections_of_a_user(hadrons, tmp_path):
    data, record = detect(tmp_path / "x.root", "--hepmc", str(hadrons), "--photons", "2")
    assert 0 < record["n_events"] < 30
    assert record["sum_of_weights_before_selection"] == -60
    assert min(len(row) for row in data["Photon.PT"]) == 2


def test_a_selection_that_keeps_nothing_ends_in_one_line(hadrons, tmp_path, capsys):
    words = ["detect", "--hepmc", str(hadrons), "--photons", "9"]
    assert main([*words, "--out", str(tmp_path / "x.root")]) == 2
    captured = capsys.readouterr()
    assert "no event passed the selection" in captured.err
    assert captured.err.count("\n") == 1


def test_an_lhe_file_with_settings_of_pythia(partons, tmp_path):
    decays = ("--pythia", "25:onMode = off", "--pythia", "25:onIfMatch = 22 22")
    data, record = detect(tmp_path / "x.root", "--lhe", str(partons), *decays, "--photons", "2")
    assert record["simulator"]["settings"]["pythia"] == list(decays[1::2])
    assert record["n_events"] > 10
    assert len(data["Weight.Weight"][0]) == 6
    again, _ = detect(tmp_path / "y.root", "--lhe", str(partons), *decays, "--photons", "2")
    assert all(column.to_list() == again[name].to_list() for name, column in data.items())


@pytest.mark.skipif(not MADGRAPH.exists(), reason="the file of MadGraph is not here")
def test_a_file_of_madgraph(tmp_path):
    """Its first 100 events, with 145 weights each."""
    events = gzip.open(MADGRAPH, "rt").read().split("</event>")
    path = tmp_path / "some.lhe.gz"
    text = "</event>".join([*events[:100], "\n</LesHouchesEvents>\n"])
    path.write_bytes(gzip.compress(text.encode()))
    data, record = detect(tmp_path / "x.root", "--lhe", str(path), "--jets", "1")
    assert record["simulator"]["statistics"]["n_read"] == 100
    assert 30 < record["n_events"] < 100
    assert len(record["simulator"]["settings"]["weight_names"]) == 145
    assert len(data["Weight.Weight"][0]) == 145
    assert record["sum_of_weights_before_selection"] == pytest.approx(6.9967067e10)
    assert data["Event.Weight"][0][0] == pytest.approx(6.9967067e8)


BAD = {
    "truncated": (lambda text: text[: len(text) // 2], "is truncated"),
    "foreign": (lambda text: "root\n\n1\n", "is no LHE file"),
    "no init": (lambda text: text.replace("init>", "start>"), "cannot be read"),
    "short init": (
        lambda text: text.replace("247000 247000 3 1", "3 1"),
        "event 0 cannot be read",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lhe_files_end_in_one_line(case, partons, tmp_path, capsys):
    spoil, message = BAD[case]
    partons.write_text(spoil(partons.read_text()))
    assert main(["detect", "--lhe", str(partons), "--out", str(tmp_path / "x.root")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "x.root").exists()


COMMANDS = {
    "no file": ([], "one of the arguments --lhe --hepmc is required"),
    "two files": (["--lhe", "a", "--hepmc", "b"], "not allowed with"),
    "absent": (["--lhe", "nowhere.lhe"], "does not exist"),
    "absent hepmc": (["--hepmc", "nowhere.hepmc"], "does not exist"),
    "mpi of hadrons": (["--hepmc", "b", "--mpi"], "belong to --lhe"),
    "no radius": (["--lhe", "a", "--jet-radius", "0"], "0 < radius < 3"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_bad_command_lines_end_in_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = COMMANDS[case]
    assert main(["detect", "--out", "x.root", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_settings_of_pythia_end_in_one_line(partons, tmp_path, capfd):
    words = ["detect", "--lhe", str(partons), "--out", str(tmp_path / "x.root")]
    assert main([*words, "--pythia", "Quarks:colour = red"]) == 2
    captured = capfd.readouterr()
    assert "does not know the setting 'Quarks:colour = red'" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
