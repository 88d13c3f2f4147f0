"""`python -m simulators wbf`: files, reproducibility, and bad command lines."""

import json
from typing import Any

import numpy as np
import pytest
import uproot

from simulators.__main__ import main
from simulators.wbf.event_model import density_coefficients, monomials

BRANCHES = {
    "Photon_size": "int32_t",
    "Photon.PT": "float[]",
    "Photon.Eta": "float[]",
    "Photon.Phi": "float[]",
    "Photon.E": "float[]",
    "Jet_size": "int32_t",
    "Jet.PT": "float[]",
    "Jet.Eta": "float[]",
    "Jet.Phi": "float[]",
    "Jet.Mass": "float[]",
    "Event_size": "int32_t",
    "Event.Weight": "float[]",
    "Weight_size": "int32_t",
    "Weight.Weight": "double[]",
    "theta.CWL2": "double",
    "theta.CPWL2": "double",
    "score.CWL2": "double",
    "score.CPWL2": "double",
}


def simulate(path, *options, events=400, seed=3):
    words = ["wbf", *options, "--events", str(events), "--seed", str(seed), "--out", str(path)]
    assert main(words) == 0
    return path


def read(path):
    """Arrays as (N, ...) float64 by branch, and the metadata, with nothing but uproot."""
    file: Any = uproot.open(path)
    tree = file["Delphes"]
    columns = {name: np.array(tree[name].array().tolist()) for name in tree.keys()}
    return columns, json.loads(str(file["mflow_sbi"]))


def momenta(data):
    def four(kind, i, mass):
        pt, eta, phi = (data[f"{kind}.{c}"][:, i] for c in ("PT", "Eta", "Phi"))
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        return np.stack([np.sqrt(mass**2 + px**2 + py**2 + pz**2), px, py, pz], axis=-1)

    jets = [four("Jet", i, data["Jet.Mass"][:, i]) for i in range(2)]
    return np.stack([*jets, *(four("Photon", i, 0.0) for i in range(2))], axis=1)


@pytest.fixture(scope="module", params=[("ud", "tuned"), ("full", "paper")])
def prior_file(request, tmp_path_factory):
    channel, setting = request.param
    path = tmp_path_factory.mktemp("wbf") / "train.root"
    options = ("--theta-prior", "normal", "--channel", channel, "--setting", setting)
    return *request.param, simulate(path, *options)


def test_the_tree_has_the_promised_branches(prior_file):
    file: Any = uproot.open(prior_file[-1])
    tree = file["Delphes"]
    assert {name: tree[name].typename for name in tree.keys()} == BRANCHES
    assert tree.num_entries == 400


def test_components_are_the_exact_density_of_what_was_written(prior_file):
    channel, setting, path = prior_file
    data, record = read(path)
    expected = density_coefficients(momenta(data), "pole", channel, setting)
    np.testing.assert_allclose(data["Weight.Weight"], expected, rtol=1e-6)
    assert record["morphing"]["likelihood"] == "exact"
    assert np.all(data["Event.Weight"] == 1)


def test_the_score_is_the_gradient_of_the_likelihood_in_the_file(prior_file):
    data, record = read(prior_file[-1])
    cross_section = np.array(record["morphing"]["cross_section"])
    theta = np.stack([data["theta.CWL2"], data["theta.CPWL2"]], axis=1)

    def log_p(points):
        w = monomials(points)
        return np.log((w * data["Weight.Weight"]).sum(axis=1)) - np.log(w @ cross_section)

    for axis, name in enumerate(("CWL2", "CPWL2")):
        step = 1e-5 * np.eye(2)[axis]
        slope = (log_p(theta + step) - log_p(theta - step)) / 2e-5
        np.testing.assert_allclose(data[f"score.{name}"], slope, rtol=1e-6, atol=1e-6)


def test_photon_energy_belongs_to_the_rounded_momentum(prior_file):
    data, _ = read(prior_file[-1])
    energy = data["Photon.PT"] * np.cosh(data["Photon.Eta"])
    np.testing.assert_allclose(data["Photon.E"], energy, rtol=1e-7)


def test_objects_are_ordered_and_numbers_finite(prior_file):
    data, _ = read(prior_file[-1])
    assert all(np.isfinite(column).all() for column in data.values())
    for kind in ("Jet", "Photon"):
        assert (data[f"{kind}.PT"][:, 0] >= data[f"{kind}.PT"][:, 1]).all()


def test_metadata_describes_the_file(prior_file):
    channel, setting, path = prior_file
    data, record = read(path)
    assert record["format"] == "mflow_sbi.events"
    assert record["format_version"] == 1
    assert record["tree"] == "Delphes"
    assert record["layout"] == "delphes"
    assert record["process"] == "wbf_h_aa"
    assert record["n_events"] == record["sum_of_weights"] == 400
    assert record["theta_sampling"] == {"kind": "normal", "mean": [0, 0], "std": [1, 1]}
    assert record["simulator"]["settings"]["channel"] == channel
    assert record["simulator"]["settings"]["setting"] == setting
    assert record["simulator"]["statistics"]["overweight_fraction"] < 1e-2
    assert [p["name"] for p in record["parameters"]] == ["CWL2", "CPWL2"]
    for parameter in record["parameters"]:
        values = data[f"theta.{parameter['name']}"]
        assert (parameter["low"], parameter["high"]) == (values.min(), values.max())
    assert record["command"].endswith("--out train.root")


def test_the_same_seed_gives_the_same_file(tmp_path):
    (tmp_path / "again").mkdir()
    paths = [tmp_path / "a.root", tmp_path / "again" / "a.root", tmp_path / "b.root"]
    files = [
        read(simulate(path, "--theta", "0.5", "-0.2", events=50, seed=seed))
        for path, seed in zip(paths, (7, 7, 8), strict=True)
    ]
    (one, first), (two, second), (other, _) = files
    assert first == second
    for name, column in one.items():
        np.testing.assert_array_equal(column, two[name])
    assert (one["Jet.PT"] != other["Jet.PT"]).any()
    assert first["theta_sampling"] == {"kind": "fixed", "value": [0.5, -0.2]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.root", "again", "b.root"]


def test_more_events_than_a_basket(tmp_path):
    path = simulate(tmp_path / "many.root", "--theta", "0", "0", events=20_001)
    data, record = read(path)
    assert record["n_events"] == 20_001
    assert len(np.unique(data["Weight.Weight"], axis=0)) == 20_001


GOOD = {"--theta": ("0", "0"), "--events": ("5",), "--seed": ("1",), "--out": ("x.root",)}
BAD = {
    "no command": ([], "required: COMMAND"),
    "unknown simulator": (["vbf"], "invalid choice: 'vbf'"),
    "no theta": ({"--theta": None}, "one of the arguments --theta --theta-prior is required"),
    "one theta": ({"--theta": ("0",)}, "expected 2 arguments"),
    "theta not finite": ({"--theta": ("0", "nan")}, "expected a finite number, got nan"),
    "theta no number": ({"--theta": ("0", "x")}, "expected a finite number, got x"),
    "two kinds of theta": ({"--theta-prior": ("normal",)}, "not allowed with"),
    "unknown prior": ({"--theta": None, "--theta-prior": ("flat",)}, "invalid choice: 'flat'"),
    "unknown setting": ({"--setting": ("loud",)}, "invalid choice: 'loud'"),
    "unknown channel": ({"--channel": ("zz",)}, "invalid choice: 'zz'"),
    "no events": ({"--events": ("0",)}, "expected an integer >= 1"),
    "negative events": ({"--events": ("-4",)}, "expected an integer >= 0, got '-4'"),
    "fraction of events": ({"--events": ("2.5",)}, "expected an integer"),
    "negative seed": ({"--seed": ("-1",)}, "expected an integer >= 0"),
    "no folder": ({"--out": ("nowhere/x.root",)}, "the folder nowhere does not exist"),
    "a folder": ({"--out": (".",)}, "is a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines_say_what_to_do_in_one_line(case, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    change, message = BAD[case]
    words = change
    if isinstance(change, dict):
        options = {k: v for k, v in (GOOD | change).items() if v is not None}
        words = ["wbf", *(word for k, v in options.items() for word in (k, *v))]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["wbf", "--help"])
    assert exit_.value.code == 0
    assert "--theta-prior" in capsys.readouterr().out


def test_parameters_whose_density_overflows_are_refused(tmp_path, capsys):
    path = tmp_path / "x.root"
    words = ["wbf", "--theta", "1e200", "0", "--events", "2", "--seed", "1", "--out", str(path)]
    assert main(words) == 2
    assert "overflows" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_negative_parameters_may_have_an_exponent(tmp_path):
    _, record = read(simulate(tmp_path / "x.root", "--theta", "-5e-1", "-1E-3", events=2))
    assert record["theta_sampling"]["value"] == [-0.5, -0.001]


def test_more_events_than_memory_end_in_one_line(tmp_path, capsys):
    words = ["wbf", "--theta", "0", "0", "--seed", "1", "--out", str(tmp_path / "x.root")]
    assert main([*words, "--events", "9" * 14]) == 2
    assert "ask for fewer events" in capsys.readouterr().err
