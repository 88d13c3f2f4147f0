"""Files that are broken are refused, and the message says what is wrong and what to do."""

import json

import awkward as ak
import numpy as np
import pytest
import uproot

from mflow_sbi.errors import (
    EventDataError,
    EventFileError,
    ExpressionError,
    MetadataError,
    MflowSbiError,
)
from mflow_sbi.events import read_events

N = 40


def changed(branch, change):
    return lambda branches: branches | {branch: change(branches[branch])}


def one(value, where=5):
    """Put `value` in the place of one object of event `where`."""

    def change(column):
        values = ak.flatten(column).to_numpy().copy()
        values[int(ak.sum(ak.num(column)[:where]))] = value
        return ak.unflatten(values, ak.num(column))

    return change


def scaled(by):
    return lambda column: ak.values_astype(column * by, np.float32)


def without(branch):
    return lambda branches: {k: v for k, v in branches.items() if k != branch}


def in_mev(branches):
    momenta = ("Photon.PT", "Photon.E", "Jet.PT", "Jet.Mass")
    return branches | {k: scaled(1000)(branches[k]) for k in momenta}


def weights(*first):
    values = np.concatenate([first, np.ones(N - len(first))]).astype("f4")
    return lambda branches: branches | {"Event.Weight": ak.unflatten(values, np.ones(N, int))}


BROKEN_BRANCHES = {
    "missing branch": (
        without("Jet.Mass"),
        EventFileError,
        "tree 'Delphes' has no branch 'Jet.Mass'.*Did you mean.*Branches: 'Photon_size'",
    ),
    "missing components": (
        without("Weight.Weight"),
        EventFileError,
        "no branch 'Weight.Weight'",
    ),
    "one theta missing": (
        without("theta.CPWL2"),
        MetadataError,
        "branches 'theta.CWL2', expected 'theta.CWL2', 'theta.CPWL2'",
    ),
    "nan": (
        changed("Photon.Eta", one(np.nan)),
        EventDataError,
        "'Photon.Eta' holds 1 value that is NaN or infinite",
    ),
    "infinity in an object that is not used": (
        changed("Jet.PT", lambda c: ak.where(ak.local_index(c) == 3, np.float32(np.inf), c)),
        EventDataError,
        r"'Jet.PT' holds \d+ values that are NaN",
    ),
    "nan in theta": (
        changed("theta.CWL2", lambda c: np.where(np.arange(N) < 3, np.nan, c)),
        EventDataError,
        "'theta.CWL2' holds 3 values that are NaN",
    ),
    "nan in a component": (
        changed("Weight.Weight", one(np.inf)),
        EventDataError,
        "'Weight.Weight' holds 1 value",
    ),
    "unequal lengths": (
        changed("Jet.Eta", lambda c: ak.concatenate([c[:7], c[7:8, :-1], c[8:]])),
        EventDataError,
        r"'Jet.PT' has \d and 'Jet.Eta' \d values in event 7 \(unequal in 1 event\)",
    ),
    "degrees": (
        changed("Photon.Phi", scaled(180 / np.pi)),
        EventDataError,
        r"'Photon.Phi' of .* lies beyond pi \(up to -?1\d\d.*Convert degrees",
    ),
    "zero to two pi": (
        changed("Jet.Phi", lambda c: ak.values_astype(c + np.pi, np.float32)),
        EventDataError,
        r"'Jet.Phi'.*lies beyond pi .*wrap \[0, 2 pi\)",
    ),
    "negative pT": (
        changed("Jet.PT", one(np.float32(-30))),
        EventDataError,
        r"'Jet.PT' of 1 of \d+ objects is negative \(e.g. -30\)",
    ),
    "negative mass": (
        changed("Jet.Mass", one(np.float32(-4.5))),
        EventDataError,
        r"'Jet.Mass' of 1 of .*negative.*e.g. -4.5",
    ),
    "photon energy in MeV": (
        changed("Photon.E", scaled(1000)),
        EventDataError,
        r"'Photon.E' of (\d+) of \1 objects differs from Photon.PT cosh\(Photon.Eta\).*MeV",
    ),
    "photon energy a little off": (
        changed("Photon.E", scaled(1.001)),
        EventDataError,
        "'Photon.E'.*differs",
    ),
    "everything in MeV": (in_mev, EventDataError, "above any collider.*divide by 1000"),
    "weight that is no number": (
        weights(np.nan),
        EventDataError,
        "'Event.Weight' holds 1 value",
    ),
    "two weights": (
        changed("Event.Weight", lambda c: ak.concatenate([c, c], axis=1)),
        EventDataError,
        "'Event.Weight' holds 2 numbers in event 0.*expected one number per event",
    ),
    "five components": (
        changed("Weight.Weight", lambda c: ak.concatenate([c[:3], c[3:, :5]])),
        EventDataError,
        "'Weight.Weight' holds 5 numbers in event 3; expected 6",
    ),
    "no event with two photons": (
        lambda branches: (
            branches | {k: v[:, :1] for k, v in branches.items() if k.startswith("Photon")}
        ),
        EventDataError,
        "none of 40 events is left .dropped: 40 fewer than 2 photons, 0 fewer than 2 jets",
    ),
    "photons along the beam": (
        lambda b: (
            b
            | {
                "Photon.PT": 0 * b["Photon.PT"],
                "Photon.E": 0 * b["Photon.E"],
                "Photon.Eta": ak.full_like(b["Photon.Eta"], np.float32(999.9)),
            }
        ),
        EventDataError,
        "observable 'e_a1' .* is not finite in 40 events.*Drop those events by a selection",
    ),
}


@pytest.mark.parametrize("case", BROKEN_BRANCHES.values(), ids=BROKEN_BRANCHES)
def test_broken_branches(tmp_path, branches_of, record_of, write, case):
    change, error, message = case
    path = write(tmp_path / "broken.root", change(branches_of(N)), record_of(N))
    with pytest.raises(error, match=message):
        read_events(path)


BROKEN_RECORDS = {
    "not JSON": ("{", MetadataError, "bad.root: metadata is not JSON"),
    "newer": (json.dumps({"format": "mflow_sbi.events", "format_version": 9}), MetadataError, "9"),
    "unknown key": ({"extra": 1}, MetadataError, "bad.root: metadata: unknown key 'extra'"),
    "cut file": (
        {"n_events": 100},
        EventFileError,
        "announce 100 events, tree 'Delphes' holds 40",
    ),
    "another tree": ({"tree": "Events"}, EventFileError, "no TTree 'Events'.*'Delphes'"),
    "other parameters": (
        {"parameters": [{"name": "CW"}, {"name": "CPW"}]},
        MetadataError,
        "branches 'theta.CWL2', 'theta.CPWL2', expected 'theta.CW', 'theta.CPW'",
    ),
}


@pytest.mark.parametrize("case", BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
def test_broken_records(tmp_path, branches_of, record_of, write, case):
    record, error, message = case
    record = record_of(N, **record) if isinstance(record, dict) else record
    path = write(tmp_path / "bad.root", branches_of(N), record)
    with pytest.raises(error, match=message):
        read_events(path)


BAD_REQUESTS = {
    "tree": ({"tree": "Delphse"}, EventFileError, "no TTree 'Delphse'.*Did you mean 'Delphes'"),
    "observable": ({"observables": ["b[0].pt"]}, ExpressionError, "no objects 'b'.*'a', 'j'"),
    "name": ({"observables": ["m_ab"]}, ExpressionError, "no column 'm_ab'"),
    "momentum": ({"observables": ["a[0]"]}, ExpressionError, "is a momentum; expected a number"),
    "one string": ({"observables": "m_aa"}, ExpressionError, "is one string"),
    "no truth": ({"selection": "a[0].pt"}, ExpressionError, "is a number; expected a truth"),
    "impossible": ({"selection": "a[0].pt > 1e9"}, EventDataError, "none of 500 events is left"),
    "tenth jet": ({"observables": ["j[9].pt"]}, EventDataError, "500 fewer than 10 jets"),
    "no events": ({"max_events": 0}, EventDataError, "max_events=0: expected at least 1"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_requests(good_file, case):
    request, error, message = case
    with pytest.raises(error, match=message):
        read_events(good_file, **request)


def test_no_such_file(tmp_path, good_file):
    with pytest.raises(EventFileError, match="does not exist; expected a ROOT file"):
        read_events(tmp_path / "absent.root")
    with pytest.raises(EventFileError, match="Did you mean 'good.root'"):
        read_events(good_file.with_name("god.root"))
    with pytest.raises(EventFileError, match="is a folder"):
        read_events(tmp_path)
    with pytest.raises(EventFileError, match="no file matches this pattern"):
        read_events(str(tmp_path / "*.root"))
    with pytest.raises(EventFileError, match="no path given"):
        read_events([])
    with pytest.raises(EventFileError, match="is given 2 times"):
        read_events([good_file, str(good_file)])


def test_not_a_root_file(tmp_path):
    (tmp_path / "table.root").write_text("pt,eta\n1,2\n")
    with pytest.raises(EventFileError, match=r"not a ROOT file \(it starts with b'pt,e'"):
        read_events(tmp_path / "table.root")
    (tmp_path / "empty.root").touch()
    with pytest.raises(EventFileError, match=r"is an empty file \(0 bytes\)"):
        read_events(tmp_path / "empty.root")


@pytest.mark.parametrize("fraction", [0.0002, 0.001, 0.1, 0.5, 0.9, 0.99999])
def test_truncated_files(tmp_path, good_file, fraction):
    content = good_file.read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(content[: int(np.ceil(fraction * len(content)))])
    with pytest.raises(EventFileError, match=r"cut.root( is truncated|.* is not a ROOT file)"):
        read_events(path)


def test_damage_never_leaks_an_error_of_another_library(tmp_path, good_file):
    """Random bytes anywhere: the file is refused by name, or the damage missed what is read."""
    content, rng, path = (
        good_file.read_bytes(),
        np.random.default_rng(0),
        tmp_path / "damaged.root",
    )
    refused = 0
    for attempt in range(150):
        damaged = bytearray(content)
        start = int(rng.integers(4, 2_000 if attempt % 2 else len(content) - 100))
        damaged[start : start + 60] = rng.bytes(60)
        path.write_bytes(bytes(damaged))
        try:
            read_events(path)
        except MflowSbiError as error:
            assert "damaged.root" in str(error) or "observable" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 75


def test_empty_tree(tmp_path, branches_of, record_of, write):
    empty = {k: v[:0] for k, v in branches_of(3).items()}
    path = write(tmp_path / "empty.root", empty, record_of(0))
    with pytest.raises(EventFileError, match=r"tree 'Delphes' is empty \(0 events\)"):
        read_events(path)


def test_no_events_are_an_answer_where_they_may_be(tmp_path, branches_of, record_of, write):
    full = branches_of(3)
    path = write(tmp_path / "empty.root", {k: v[:0] for k, v in full.items()}, record_of(0))
    none = read_events(path, min_events=0)
    assert none.x.shape == (0, 40)
    assert (
        none.parameter_names
        == read_events(write(tmp_path / "full.root", full, record_of(3))).parameter_names
    )
    all_refused = read_events(tmp_path / "full.root", selection="a[0].pt > 1e9", min_events=0)
    assert len(all_refused) == 0


def test_no_tree(tmp_path):
    with uproot.recreate(tmp_path / "histogram.root") as file:
        file["h"] = np.histogram([1.0, 2.0])
        file["s"] = "text"
    with pytest.raises(EventFileError, match="TTree or RNTuple; the file holds 'h .TH1D.', 's"):
        read_events(tmp_path / "histogram.root")


FLAT = {
    "list for a number": (
        {"v": ak.Array([[1.0, 2.0], [], [3.0]])},
        EventDataError,
        r"'v' holds 2 numbers in event 0 \(not one in 2 events\)",
    ),
    "spelling": ({"values": np.ones(3)}, EventFileError, "no branch 'v'"),
    "nan": ({"v": np.array([1.0, np.nan, 1.0])}, EventDataError, "'v' holds 1 value that is NaN"),
    "two weights": (
        {"v": np.ones(3), "weight": ak.Array([[1.0], [], [3.0]])},
        EventDataError,
        "'weight' holds 0 numbers in event 1",
    ),
}


@pytest.mark.parametrize("case", FLAT.values(), ids=FLAT)
def test_flat_files(tmp_path, write, case):
    branches, error, message = case
    path = write(tmp_path / "flat.root", branches, tree="events")
    with pytest.raises(error, match=message):
        read_events(path, observables=["v"])


def test_flat_file_without_the_default_observables(tmp_path, write):
    path = write(tmp_path / "flat.root", {"m_aa": np.ones(3), "extra": np.ones(3)}, tree="t")
    with pytest.raises(EventFileError, match="has 1 of the 40 .*branches: 'm_aa', 'extra'"):
        read_events(path)


def test_record_of_another_type(tmp_path):
    with uproot.recreate(tmp_path / "f.root") as file:
        file.mktree("events", {"v": "f8"}).extend({"v": np.ones(3)})
        file["mflow_sbi"] = np.histogram([1.0])
    with pytest.raises(MetadataError, match="'mflow_sbi' is a TH1D; expected"):
        read_events(tmp_path / "f.root", observables=["v"])
