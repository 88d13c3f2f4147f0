"""What a run configuration says of its event files becomes what `read_events` is asked for."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.config import parse_config
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import Benchmarks, EventSource, Observable, read_events
from mflow_sbi.interfaces import Quiet
from mflow_sbi.run_files import read_like_training, read_with_progress
from mflow_sbi.training_data import InMemoryData

BASE = {"name": "toy", "events": "a.root", "recipe": "nre"}
DECLARED = {
    "objects": {"a": {"px": "x", "py": "y", "pz": "z", "mass": 0}},
    "weight": "w",
}


def test_old_forms_mean_what_they_did():
    assert parse_config(BASE).event_sources() == ["a.root"]
    several = parse_config(BASE | {"events": ["a.root", "b.root"], "observables": ["m_aa"]})
    assert several.event_paths() == ["a.root", "b.root"]
    assert several.reading()["observables"] == ("m_aa",)
    assert several.reading()["selection"] is None


def test_every_key_arrives():
    config = parse_config(
        BASE
        | {
            "events": [{"path": "sm_*.root", "theta": {"c": 0}}, "rest.root"],
            "observables": [
                "m_aa",
                {"name": "dphi", "expression": "deltaphi(j[0], j[1])", "periodic": True},
            ],
            "selection": ["n(j) > 1", "m_aa > 1"],
            "objects": {"j": "pt > 30"},
            "layout": "nanoaod",
            "weight": "genWeight",
            "benchmark_weights": {"branch": "LHEReweightingWeight", "theta": [[0.0], [1.0]]},
        }
    )
    assert config.event_sources() == [EventSource("sm_*.root", {"c": 0.0}), "rest.root"]
    assert config.event_paths() == ["sm_*.root", "rest.root"]
    assert config.reading() == {
        "tree": None,
        "layout": "nanoaod",
        "observables": ("m_aa", Observable("dphi", "deltaphi(j[0], j[1])", periodic=True)),
        "selection": ("n(j) > 1", "m_aa > 1"),
        "objects": {"j": "pt > 30"},
        "weight": "genWeight",
        "benchmark_weights": Benchmarks("LHEReweightingWeight", theta=((0.0,), (1.0,))),
    }
    assert parse_config(json.loads(config.to_json())) == config


REFUSED = {
    "key of a source": (
        {"events": [{"path": "a.root", "thete": {}}]},
        "unknown key 'events.*thete'; did you mean 'theta'",
    ),
    "theta that is a list": ({"events": {"path": "a.root", "theta": [0.5]}}, "events.*theta"),
    "key of an observable": (
        {"observables": [{"name": "a", "expresion": "b"}]},
        "did you mean 'expression'",
    ),
    "set of observables": ({"observables": "wbf41"}, "'wbf41' is one string.*'wbf40'"),
    "objects outside the language": ({"objects": {"a": "pt > "}}, "does not parse"),
    "objects of other objects": ({"objects": {"a": "j[0].pt > 3"}}, "names 'j'"),
    "layout": ({"layout": "nanoAOD"}, "expected 'delphes', 'nanoaod', 'flat'.*mean 'nanoaod'"),
    "key of a layout": (
        {"layout": {"object": {}}},
        "unknown key 'object'.*Did you mean 'objects'",
    ),
    "objects without a momentum": (
        {"layout": {"objects": {"a": {"pt": "x", "eta": "y"}}}},
        "expected pt, eta and phi, or px, py and pz",
    ),
    "energy missing": (
        {"layout": {"objects": {"a": {"px": "x", "py": "y", "pz": "z"}}}},
        "need an energy or a mass",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused_before_any_file_is_opened(case):
    change, message = case
    with pytest.raises(ConfigurationError, match=message):
        parse_config(BASE | change)


def write(path: Path, n: int, seed: int, *, weighted: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    columns = {k: ak.from_regular(ak.Array(rng.normal(0, 30, (n, 1)).astype("f4"))) for k in "xyz"}
    if weighted:
        columns["w"] = ak.Array(rng.choice([1.0, -1.0], n, p=[0.9, 0.1]))
    with uproot.recreate(path) as file:
        file.mktree("t", {k: v.type.content for k, v in columns.items()}).extend(columns)
    return path


def test_training_on_files_of_two_points_and_observed_events_without_weights(tmp_path):
    first = write(tmp_path / "sm.root", 30, 1)
    second = write(tmp_path / "eft.root", 20, 2)
    config = parse_config(
        BASE
        | {
            "events": [
                {"path": str(first), "theta": {"c": 0, "d": 1}},
                {"path": str(second), "theta": {"d": 3, "c": 2}},
            ],
            "layout": DECLARED,
            "observables": ["a[0].pt", "a[0].eta"],
            "objects": {"a": "abs(eta) < 2.5"},
        }
    )
    events = InMemoryData.read(config, Quiet()).events
    assert events.report is not None
    n_first = len(read_events(first, **config.reading()))
    theta = events.require_theta()
    assert events.parameter_names == ("c", "d")
    np.testing.assert_array_equal(theta[:n_first], np.tile([0.0, 1.0], (n_first, 1)))
    np.testing.assert_array_equal(theta[n_first:], np.tile([2.0, 3.0], (len(events) - n_first, 1)))
    assert sum(events.report.dropped_objects.values()) == 50 - len(events)
    observed = write(tmp_path / "observed.root", 10, 3, weighted=False)
    sample = read_like_training(events.metadata, config, str(observed), "observed", Quiet())
    assert sample.weight is None
    assert sample.observable_names == events.observable_names
    assert (np.abs(sample.column("a[0].eta")) < 2.5).all()


def test_what_is_dropped_or_repeated_is_told(tmp_path):
    class Heard(Quiet):
        def __init__(self):
            self.words = []

        def warn(self, text):
            self.words.append(text)

        say = warn

    path, heard = write(tmp_path / "a.root", 30, 1), Heard()
    copy = tmp_path / "copy.root"
    copy.write_bytes(path.read_bytes())
    reading = {"layout": DECLARED, "observables": ["a[0].px"], "objects": {"a": "pt > 10"}}
    sample = read_with_progress([str(path), str(copy)], "reading", heard, reading)
    assert sample.report is not None
    assert sample.report.duplicates == len(sample) // 2
    assert any("events repeat another" in word for word in heard.words)
    assert any("objects do not count (not object a pt > 10)" in word for word in heard.words)


def test_inspect_reads_as_the_configuration_does(tmp_path):
    path, config = write(tmp_path / "a.root", 30, 1), tmp_path / "run.yaml"
    reading = {"layout": DECLARED, "observables": ["a[0].pt"], "objects": {"a": "pt > 10"}}
    config.write_text(json.dumps(BASE | reading))
    command = ["inspect", str(path), "--config", str(config), "--observable", "a[0].eta"]
    told = CliRunner().invoke(app, command, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    for words in ("declared", "a[0].eta", "negative weights", "not object a pt > 10"):
        assert words in told.output
    told = CliRunner().invoke(app, ["inspect", str(path)], catch_exceptions=False)
    assert told.exit_code == 2
    assert "flat" in told.output
