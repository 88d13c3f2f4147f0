"""`inspect_file` says what `read_events` will do, and does not fail where it would."""

import numpy as np
import pytest

from mflow_sbi.errors import EventFileError
from mflow_sbi.events import inspect_file, read_events


def test_a_good_file(good_file):
    summary = inspect_file(good_file)
    events = read_events(good_file)
    assert summary.readable
    assert summary.trees == {"Delphes": 500}
    assert summary.report == events.report
    assert summary.observables == events.observable_names
    assert summary.parameters == events.metadata.parameters
    assert summary.truth == ("theta", "weight", "score", "components")
    rows = dict(summary.rows())
    assert rows["layout"] == "delphes"
    assert rows["events kept"] == "500"
    assert rows["simulator"] == "wbf 0.1.0 (channel=ud)"
    assert rows["theta sampling"] == "normal: mean (0.0, 0.0), std (1.0, 1.0)"
    low, high = events.metadata.parameter_ranges[0]
    assert rows["parameter CWL2"] == f"{low:.4g} .. {high:.4g}"
    assert all(isinstance(cell, str) for row in summary.rows() for cell in row)


def test_what_is_missing_is_listed(tmp_path, branches_of, write):
    branches = {k: v for k, v in branches_of(10).items() if k not in ("Jet.Eta", "Jet.Mass")}
    summary = inspect_file(write(tmp_path / "f.root", branches))
    assert not summary.readable
    assert summary.missing == ("Jet.Eta", "Jet.Mass")
    rows = summary.rows()
    assert ("missing branches", "'Jet.Eta', 'Jet.Mass'") in rows
    assert any(name == "problem" and "no branch 'Jet.Eta'" in text for name, text in rows)


def test_numbers_that_are_wrong_are_a_problem(tmp_path, branches_of, write):
    branches = branches_of(10)
    branches["theta.CWL2"][3] = np.nan
    summary = inspect_file(write(tmp_path / "f.root", branches))
    assert summary.report is None
    assert "'theta.CWL2' holds 1 value" in summary.problems[0]


def test_a_malformed_record_is_a_problem(tmp_path, branches_of, write):
    summary = inspect_file(write(tmp_path / "f.root", branches_of(10), "{}"))
    assert summary.metadata is None
    assert summary.tree == "Delphes"
    assert "not of the format" in summary.problems[0]


def test_a_flat_file_lists_its_branches(tmp_path, write):
    path = write(tmp_path / "f.root", {"v": np.ones(4), "w": np.ones(4)}, tree="t")
    assert ("branches", "'v', 'w'") in inspect_file(path).rows()
    assert inspect_file(path, observables=["v"], selection="w > 0").readable


def test_what_is_no_event_file_is_refused(tmp_path):
    with pytest.raises(EventFileError, match="does not exist"):
        inspect_file(tmp_path / "absent.root")


def test_several_files_are_one_table(tmp_path, branches_of, record_of, write):
    for k, n in enumerate((10, 15)):
        write(tmp_path / f"{k}.root", branches_of(n, seed=k), record_of(n, seed=k))
    summary = inspect_file(tmp_path / "*.root", objects={"j": "pt > 30"})
    rows = dict(summary.rows())
    assert rows["files"].startswith("2, ")
    assert rows["events read"] == "25"
    assert int(rows["objects not counted: not jet pt > 30"]) > 0
    write(tmp_path / "2.root", branches_of(5), record_of(5, process="other"))
    assert "differ in process" in inspect_file(tmp_path / "*.root").problems[0]
