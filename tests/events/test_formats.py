"""Delphes, Parquet and MadMiner files written here: the same numbers by every way in."""

import json

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from mflow_sbi.errors import (
    EventDataError,
    EventFileError,
    ExpressionError,
    MetadataError,
)
from mflow_sbi.events import (
    Benchmarks,
    EventSource,
    MissingBranches,
    ObjectBranches,
    inspect_file,
    open_chunks,
    read_events,
)
from mflow_sbi.events.layouts import ELECTRON_MASS, MUON_MASS, Layout

N = 120


def objects(rng, counts, prefix, **further):
    n = int(counts.sum())
    columns = {
        "PT": rng.exponential(40, n) + 10,
        "Eta": rng.normal(0, 1.5, n).clip(-4.5, 4.5),
        "Phi": rng.uniform(-np.pi, np.pi, n),
        **{name: draw(rng, n) for name, draw in further.items()},
    }
    return {
        f"{prefix}.{k}": ak.unflatten(ak.Array(v.astype("f4")), counts) for k, v in columns.items()
    }


def uniform(rng, n):
    return rng.uniform(0, 0.3, n)


@pytest.fixture(scope="module")
def delphes():
    """Branches as Delphes writes them: jagged objects, and lists of one number per event."""
    rng = np.random.default_rng(11)
    counts = {k: rng.integers(0, 4, N) for k in ("Photon", "Electron", "Muon", "Jet")}
    one = np.ones(N, int)
    photons = objects(rng, counts["Photon"], "Photon", IsolationVar=uniform)
    energy = ak.values_astype(photons["Photon.PT"], "f8") * np.cosh(
        ak.values_astype(photons["Photon.Eta"], "f8")
    )
    return {
        **photons,
        "Photon.E": ak.values_astype(energy, "f4"),
        **objects(rng, counts["Electron"], "Electron", Charge=lambda r, n: r.choice([-1, 1], n)),
        **objects(rng, counts["Muon"], "Muon", IsolationVar=uniform),
        **objects(rng, counts["Jet"], "Jet", Mass=uniform, BTag=lambda r, n: r.integers(0, 2, n)),
        **{
            name: ak.unflatten(ak.Array(values.astype("f4")), one)
            for name, values in (
                ("MissingET.MET", rng.exponential(30, N)),
                ("MissingET.Phi", rng.uniform(-3, 3, N)),
                ("Event.Weight", rng.choice([1.5, -0.5], N, p=[0.8, 0.2])),
                ("ScalarHT.HT", rng.uniform(100, 500, N)),
            )
        },
        "Weight.Weight": ak.from_regular(ak.Array(rng.uniform(0, 2, (N, 3)))),
    }


ASKED = {
    "observables": [
        "(e[0] + m[0]).m",
        "mt(m[0], met)",
        "met.pt",
        "n(j)",
        "sum_pt(j)",
        "ScalarHT.HT",
    ],
    "objects": {"j": "pt > 20 and BTag == 1", "m": "IsolationVar < 0.2"},
    "selection": "met.pt > 5",
    "benchmark_weights": Benchmarks("Weight.Weight", ("sm", "up", "down")),
}


def by_hand(branches):
    """The same event by event, in plain Python."""
    rows = []
    for i in range(N):
        event = {k: np.asarray(v[i], dtype="f8") for k, v in branches.items()}

        def leading(prefix, mass, mask, event=event):
            pt, eta, phi = (event[f"{prefix}.{k}"][mask] for k in ("PT", "Eta", "Phi"))
            if not len(pt):
                return None
            k = int(np.argmax(pt))
            px, py, pz = pt[k] * np.cos(phi[k]), pt[k] * np.sin(phi[k]), pt[k] * np.sinh(eta[k])
            return np.array([np.sqrt(px**2 + py**2 + pz**2 + mass**2), px, py, pz])

        electron = leading("Electron", ELECTRON_MASS, slice(None))
        muon = leading("Muon", MUON_MASS, event["Muon.IsolationVar"] < 0.2)
        met, phi = event["MissingET.MET"][0], event["MissingET.Phi"][0]
        if electron is None or muon is None or met <= 5:
            continue
        total = electron + muon
        pt = np.hypot(muon[1], muon[2])
        delta = np.arctan2(muon[2], muon[1]) - phi
        jets = event["Jet.PT"][(event["Jet.PT"] > 20) & (event["Jet.BTag"] == 1)]
        rows.append(
            [
                np.sqrt(total[0] ** 2 - (total[1:] ** 2).sum()),
                np.sqrt(2 * pt * met * (1 - np.cos(delta))),
                met,
                len(jets),
                jets.sum(),
                event["ScalarHT.HT"][0],
            ]
        )
    return np.array(rows)


@pytest.fixture(scope="module")
def delphes_file(tmp_path_factory, delphes, write):
    return write(tmp_path_factory.mktemp("delphes") / "d.root", delphes)


def test_delphes_with_leptons_missing_momentum_and_selected_objects(delphes_file, delphes):
    events = read_events(delphes_file, **ASKED)
    np.testing.assert_allclose(events.x, by_hand(delphes), rtol=1e-9, atol=1e-9)
    assert events.report is not None
    mask = delphes["Jet.PT"] <= 20
    mask = mask | (delphes["Jet.BTag"] != 1)
    assert events.report.dropped_objects["jet pt > 20 and BTag == 1"] == ak.sum(mask)
    assert list(events.report.dropped) == [
        "fewer than 1 electron",
        "fewer than 1 muon",
        "selection met.pt > 5",
    ]
    total = float(ak.sum(delphes["Event.Weight"]))
    assert events.metadata.sum_of_weights_before_selection == pytest.approx(total, rel=1e-6)
    rows = dict(inspect_file(delphes_file, **ASKED).rows())
    assert rows["benchmark weights"].startswith("3 (Weight.Weight), at parameters that the file")
    assert "'BTag'" in rows["j: jets"]


def test_events_without_objects_are_zero_where_sentences_only_count_them(delphes_file, delphes):
    events = read_events(delphes_file, observables=["n(a)", "sum_pt(a)", "met.phi"])
    np.testing.assert_array_equal(events.column("n(a)"), ak.num(delphes["Photon.PT"]))
    expected = ak.sum(ak.values_astype(delphes["Photon.PT"], "f8"), axis=1)
    np.testing.assert_allclose(events.column("sum_pt(a)"), expected, rtol=1e-12)


def test_what_else_the_file_tells_of_objects(delphes_file, delphes):
    events = read_events(
        delphes_file,
        observables=["e[0].Charge * e[1].Charge", "e[0].pt", "a[0].IsolationVar"],
        selection=["e[0].Charge != e[1].Charge", "a[0].IsolationVar < 0.2"],
        objects={"e": "pt > 12"},
    )
    rows = []
    for i in range(N):
        electrons = sorted(
            zip(delphes["Electron.PT"][i], delphes["Electron.Charge"][i], strict=True)
        )[::-1]
        electrons = [(pt, charge) for pt, charge in electrons if pt > 12]
        photons = sorted(
            zip(delphes["Photon.PT"][i], delphes["Photon.IsolationVar"][i], strict=True)
        )[::-1]
        opposite = len(electrons) > 1 and electrons[0][1] != electrons[1][1]
        if opposite and photons and photons[0][1] < 0.2:
            rows.append([-1, electrons[0][0], photons[0][1]])
    assert len(rows) > 5
    np.testing.assert_allclose(events.x, rows, rtol=1e-7)
    with pytest.raises(ExpressionError, match="electrons have no attribute 'Charg'.*'Charge'"):
        read_events(delphes_file, observables=["e[0].Charg"])


def test_leptons_are_electrons_and_muons_together(delphes_file, delphes):
    events = read_events(
        delphes_file,
        observables=["(l[0] + l[1]).m", "l[1].pt", "n(l)", "sum_pt(l)", "n(e)"],
        objects={"m": "IsolationVar < 0.2"},
    )
    rows = []
    for i in range(N):
        found = [(pt, ELECTRON_MASS, k) for k, pt in enumerate(delphes["Electron.PT"][i])]
        isolated = delphes["Muon.IsolationVar"][i] < 0.2
        found += [(pt, MUON_MASS, k) for k, pt in enumerate(delphes["Muon.PT"][i]) if isolated[k]]
        found.sort(reverse=True)
        if len(found) < 2:
            continue
        total = np.zeros(4)
        for pt, mass, k in found[:2]:
            prefix = "Electron" if mass == ELECTRON_MASS else "Muon"
            eta, phi = (float(delphes[f"{prefix}.{name}"][i][k]) for name in ("Eta", "Phi"))
            p = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
            total += [np.sqrt((p**2).sum() + mass**2), *p]
        mass = np.sqrt(total[0] ** 2 - (total[1:] ** 2).sum())
        n_electrons = len(delphes["Electron.PT"][i])
        pts = [pt for pt, _, _ in found]
        rows.append([mass, pts[1], len(found), np.sum(pts, dtype="f8"), n_electrons])
    np.testing.assert_allclose(events.x, rows, rtol=1e-6)
    assert events.report is not None
    assert list(events.report.dropped) == ["fewer than 2 leptons"]
    with pytest.raises(ExpressionError, match="are of several collections"):
        read_events(delphes_file, observables=["l[0].Charge"])


def parquet_table(branches, *, records):
    """Columns "Photon.PT", or lists of records with a field PT."""
    if not records:
        return {name: ak.to_arrow(v, extensionarray=False) for name, v in branches.items()}
    groups: dict = {}
    for name, values in branches.items():
        prefix, _, field = name.partition(".")
        groups.setdefault(prefix, {})[field] = values
    zipped = {prefix: ak.zip(fields) for prefix, fields in groups.items()}
    return {name: ak.to_arrow(v, extensionarray=False) for name, v in zipped.items()}


@pytest.mark.parametrize("records", [False, True], ids=["columns", "records"])
def test_parquet_holds_what_delphes_does(tmp_path, delphes, delphes_file, records):
    path = tmp_path / "events.dat"
    pq.write_table(pa.table(parquet_table(delphes, records=records)), path, row_group_size=25)
    expected = read_events(delphes_file, **ASKED)
    events = read_events(path, **ASKED)
    np.testing.assert_array_equal(events.x, expected.x)
    np.testing.assert_array_equal(events.weight, expected.weight)
    np.testing.assert_array_equal(events.benchmark_weight, expected.require_benchmark_weight())
    assert events.report == expected.report
    chunks = open_chunks(path, **ASKED, chunk_events=31)
    np.testing.assert_array_equal(np.concatenate([chunk.x for chunk in chunks]), expected.x)
    summary = inspect_file(path, **ASKED)
    assert (summary.kind, summary.layout, summary.readable) == ("Parquet", "delphes", True)


def test_a_chunk_of_parquet_reads_its_own_row_groups(tmp_path, delphes, monkeypatch):
    path, read = tmp_path / "e.parquet", set()
    pq.write_table(pa.table(parquet_table(delphes, records=False)), path, row_group_size=25)
    chunks = open_chunks(path, observables=["met.pt"], chunk_events=30)
    original = pq.ParquetFile.read_row_groups

    def watched(file, groups, **kwargs):
        read.update(groups)
        return original(file, groups, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", watched)
    _ = chunks[2]  # entries 60 to 90
    assert read == {2, 3}


def test_the_record_travels_in_parquet(tmp_path, branches_of, record_of, write):
    branches = branches_of(40)
    root = read_events(write(tmp_path / "e.root", branches, record_of(40)))
    columns = {k: ak.to_arrow(ak.Array(v), extensionarray=False) for k, v in branches.items()}
    table = pa.table(columns)
    for n, text in ((40, None), (39, "announce 39 events, tree 'table' holds 40")):
        record = json.dumps(record_of(n))
        pq.write_table(
            table.replace_schema_metadata({"mflow_sbi": record}), tmp_path / "e.parquet"
        )
        if text is None:
            assert read_events(tmp_path / "e.parquet").digest == root.digest
        else:
            with pytest.raises(EventFileError, match=text):
                read_events(tmp_path / "e.parquet")


def test_what_is_wrong_with_parquet(tmp_path, delphes, monkeypatch):
    path = tmp_path / "e.parquet"
    table = pa.table({"x": [1.0, None, 3.0], "s": ["a", "b", "c"], "l": [[1.0], [], [2.0, 3.0]]})
    pq.write_table(table, path)
    with pytest.raises(EventDataError, match="'x' holds 1 value that is NaN or infinite"):
        read_events(path, observables=["x"])
    with pytest.raises(EventDataError, match="'s' holds string, expected numbers"):
        read_events(path, observables=["s"])
    with pytest.raises(EventDataError, match="'l' holds 0 numbers in event 1"):
        read_events(path, observables=["l"])
    with pytest.raises(EventFileError, match="no branch 'y'"):
        read_events(path, observables=["y"])
    whole = path.read_bytes()
    for cut in (6, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(EventFileError, match=r"e.parquet: its footer cannot be read"):
            read_events(path, observables=["x"])
    path.write_bytes(whole)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(EventFileError, match=r'pip install "mflow_sbi\[parquet\]"'):
        read_events(path, observables=["x"])


# Points of files that do not tell


def test_files_of_several_points(tmp_path, delphes, write):
    paths = [write(tmp_path / f"{k}.root", delphes) for k in range(2)]
    points = [{"c": 0.0, "d": 1.0}, {"d": 3.0, "c": 2.0}]
    sources = [EventSource(p, t) for p, t in zip(paths, points, strict=True)]
    events = read_events(sources, observables=["met.pt"])
    assert events.parameter_names == ("c", "d")
    np.testing.assert_array_equal(events.theta, np.repeat([[0.0, 1.0], [2.0, 3.0]], N, axis=0))
    np.testing.assert_array_equal(events.metadata.parameter_ranges, [[0, 2], [1, 3]])
    chunks = open_chunks(sources, observables=["met.pt"], chunk_events=50)
    assert chunks.metadata == events.metadata
    np.testing.assert_array_equal(
        np.vstack([chunk.require_theta() for chunk in chunks]), events.theta
    )
    one = read_events(paths[0], theta={"c": 5}, observables=["met.pt"])
    assert one.metadata.theta_sampling is not None
    assert one.metadata.theta_sampling.value == (5.0,)


POINTS = {
    "a list": ([0.5], "expected a value for each parameter by name"),
    "no numbers": ({"c": "0.5"}, "expected one finite number"),
    "not finite": ({"c": np.nan}, "expected one finite number"),
    "empty": ({}, "expected a value for each"),
}


@pytest.mark.parametrize("case", POINTS.values(), ids=POINTS)
def test_points_that_are_none(delphes_file, case):
    theta, message = case
    with pytest.raises(MetadataError, match=message):
        read_events(delphes_file, theta=theta, observables=["met.pt"])


def test_points_that_contradict(good_file, delphes_file):
    with pytest.raises(MetadataError, match="carries the parameters of each event"):
        read_events(good_file, theta={"CWL2": 1.0, "CPWL2": 0.0})
    both = [EventSource(delphes_file, {"c": 1.0}), EventSource(good_file, {"d": 1.0})]
    with pytest.raises(MetadataError, match="theta of .'d'., others of .'c'."):
        read_events(both, observables=["a[0].pt"])
    with pytest.raises(MetadataError, match="given theta twice"):
        read_events(EventSource(delphes_file, {"c": 1.0}), theta={"c": 1.0})
    with pytest.raises(EventFileError, match="is given 2 times"):
        read_events([EventSource(delphes_file, {"c": 0.0}), EventSource(delphes_file, {"c": 1.0})])


def test_a_layout_of_objects(delphes_file, delphes):
    layout = Layout(
        name="declared",
        tree=None,
        collections=(ObjectBranches("g", "g", "Photon.PT", "Photon.Eta", "Photon.Phi"),),
        weights=(),
        missing=(MissingBranches(pt="MissingET.MET", phi="MissingET.Phi"),),
    )
    events = read_events(delphes_file, layout=layout, observables=["g[0].pt", "met.pt"])
    first = delphes["Photon.PT"][ak.num(delphes["Photon.PT"]) > 0]
    np.testing.assert_allclose(events.x[:, 0], ak.max(first, axis=1), rtol=1e-12)
    assert events.weight is None


def test_a_record_without_theory_takes_point_and_benchmarks(
    tmp_path, branches_of, record_of, write
):
    truth = ("theta.", "score.")
    branches = {k: v for k, v in branches_of(30).items() if not k.startswith(truth)}
    bare = {"parameters": [], "theta_sampling": None, "morphing": None, "n_events": 30}
    path = write(tmp_path / "detected.root", branches, record_of(30, **bare))
    points = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
    benchmarks = Benchmarks("Weight.Weight", theta=points)
    names = read_events(path, benchmark_weights=benchmarks)
    assert names.parameter_names == ()
    assert names.require_benchmark_weight().shape == (30, 6)
    placed = read_events(path, benchmark_weights=benchmarks, theta={"c": 0.5, "d": -1.0})
    assert placed.parameter_names == ("c", "d")
    np.testing.assert_array_equal(placed.theta, np.tile([0.5, -1.0], (30, 1)))
    with pytest.raises(MetadataError, match=r"points theta of \[2\] numbers, but 1"):
        read_events(path, benchmark_weights=benchmarks, theta={"c": 0.5})


def test_branches_that_share_a_name_are_named_by_their_paths(tmp_path):
    path = tmp_path / "two.root"
    with uproot.recreate(path) as file:
        two = ({"pt": 11.0, "eta": 0.1}, {"pt": 21.0, "eta": 0.2})
        file.mkrntuple(
            "events", {name: ak.Array([one]) for name, one in zip("ab", two, strict=True)}
        )
    with pytest.raises(EventFileError, match=r"no branch 'pt'.*'a\.pt'.*'b\.pt'"):
        read_events(path, observables=["pt"])
    assert read_events(path, observables=["b.pt", "a.pt"]).x.tolist() == [[21.0, 11.0]]
