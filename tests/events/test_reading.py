"""`read_events` on files that are right: every number arrives, nothing is invented."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from mflow_sbi.errors import EventFileError, MetadataError
from mflow_sbi.events import (
    WBF_OBSERVABLES,
    EventSample,
    Observable,
    SelectionReport,
    closure_violations,
    read_events,
)

HZZ = Path(__file__).parents[3] / "shared" / "data" / "uproot-HZZ.root"


def report_of(events: EventSample) -> SelectionReport:
    assert events.report is not None
    return events.report


def rebuilt(branches, name, index):
    """The same kinematics, event by event, the slow way."""
    rows = []
    for event in range(len(branches[f"{name}.PT"])):
        pt, eta, phi = (
            branches[f"{name}.{key}"][event].to_numpy().astype("f8")
            for key in ("PT", "Eta", "Phi")
        )
        m = 0 * pt if name == "Photon" else branches["Jet.Mass"][event].to_numpy().astype("f8")
        k = sorted(range(len(pt)), key=lambda i: -pt[i])[index]
        px, py, pz = pt[k] * np.cos(phi[k]), pt[k] * np.sin(phi[k]), pt[k] * np.sinh(eta[k])
        rows.append([np.sqrt(px**2 + py**2 + pz**2 + m[k] ** 2), px, py, pz, pt[k], eta[k]])
    return np.array(rows)


def test_a_complete_file(good_file, branches_of):
    events = read_events(good_file)
    branches = branches_of(500)
    assert events.x.shape == (500, 40)
    assert events.observable_names == tuple(o.name for o in WBF_OBSERVABLES)
    for k, (name, index) in enumerate([("Photon", 0), ("Photon", 1), ("Jet", 0), ("Jet", 1)]):
        expected = rebuilt(branches, name, index)
        np.testing.assert_allclose(
            events.x[:, 6 * k : 6 * k + 6], expected, rtol=1e-12, atol=1e-10
        )
    np.testing.assert_array_equal(events.require_theta()[:, 1], branches["theta.CPWL2"])
    np.testing.assert_array_equal(events.require_score()[:, 0], branches["score.CWL2"])
    np.testing.assert_array_equal(events.require_components(), branches["Weight.Weight"])
    np.testing.assert_array_equal(events.weight, np.ones(500))
    assert events.report == SelectionReport(
        500, 500, {"fewer than 2 photons": 0, "fewer than 2 jets": 0}
    )


def test_ranges_are_those_of_the_events(good_file):
    events = read_events(good_file, max_events=50)
    theta = events.require_theta()
    np.testing.assert_array_equal(
        events.metadata.parameter_ranges, np.column_stack([theta.min(axis=0), theta.max(axis=0)])
    )


def test_constraints_hold_to_rounding_from_float32_files(good_file):
    x = read_events(good_file).x
    assert closure_violations(x).max() < 1e-12 * np.abs(x).max()


def test_the_order_of_objects_in_the_file_is_irrelevant(tmp_path, branches_of, write):
    branches = branches_of(300)
    shuffled = dict(branches)
    rng = np.random.default_rng(5)
    for name in ("Photon", "Jet"):
        counts = ak.num(branches[f"{name}.PT"])
        keys = ak.unflatten(rng.uniform(size=int(ak.sum(counts))), counts)
        order = ak.argsort(keys)
        shuffled |= {k: v[order] for k, v in branches.items() if k.startswith(f"{name}.")}
    first = read_events(write(tmp_path / "ordered.root", branches))
    second = read_events(write(tmp_path / "shuffled.root", shuffled))
    assert shuffled["Jet.PT"].to_list() != branches["Jet.PT"].to_list()
    np.testing.assert_array_equal(first.x, second.x)


def test_chunks_are_invisible(good_file, monkeypatch):
    whole = read_events(good_file, selection="a[0].pt > 60")
    monkeypatch.setattr("mflow_sbi.events.reading.CHUNK_EVENTS", 37)
    assert read_events(good_file, selection="a[0].pt > 60").digest == whole.digest


def test_events_with_too_few_objects_are_dropped_and_counted(tmp_path, branches_of, write):
    branches = branches_of(400, least=0)
    n_photons, n_jets = (ak.num(branches[f"{k}.PT"]).to_numpy() for k in ("Photon", "Jet"))
    path = write(tmp_path / "f.root", branches)
    events = read_events(path)
    keep = (n_photons >= 2) & (n_jets >= 2)
    assert events.report == SelectionReport(
        400,
        keep.sum(),
        {
            "fewer than 2 photons": (n_photons < 2).sum(),
            "fewer than 2 jets": ((n_photons >= 2) & (n_jets < 2)).sum(),
        },
    )
    np.testing.assert_array_equal(events.require_theta()[:, 0], branches["theta.CWL2"][keep])
    jets = read_events(path, observables=["j[0].pt"])
    assert len(jets) == (n_jets >= 1).sum()
    assert report_of(jets).dropped == {"fewer than 1 jet": (n_jets < 1).sum()}


def test_selections_drop_and_count(good_file):
    everything = read_events(good_file)
    mass = everything.column("m_aa")
    cut = read_events(good_file, selection=["(a[0]+a[1]).m > 80", "abs(a[0].eta) < 1"])
    keep = (mass > 80) & (np.abs(everything.column("eta_a1")) < 1)
    np.testing.assert_array_equal(cut.x, everything.x[keep])
    np.testing.assert_array_equal(cut.components, everything.require_components()[keep])
    dropped = report_of(cut).dropped
    assert dropped["selection (a[0]+a[1]).m > 80"] == (mass <= 80).sum()
    assert report_of(cut).n_read == report_of(cut).n_kept + sum(dropped.values())


def test_max_events_keeps_the_first(good_file):
    everything = read_events(good_file, selection="a[0].pt > 80")
    first = read_events(good_file, selection="a[0].pt > 80", max_events=7)
    np.testing.assert_array_equal(first.x, everything.x[:7])
    assert report_of(first).n_kept == 7
    assert report_of(first).n_read == 7 + sum(report_of(first).dropped.values())
    assert len(read_events(good_file, max_events=10**6)) == 500


def test_chosen_observables(good_file):
    everything = read_events(good_file)
    chosen = [Observable("x", "(a[0] + j[0]).m", "GeV"), "m_aa", "j[1].phi"]
    events = read_events(good_file, observables=chosen)
    assert events.observable_names == ("x", "m_aa", "j[1].phi")
    np.testing.assert_array_equal(events.column("m_aa"), everything.column("m_aa"))
    phi = np.arctan2(everything.column("py_j2"), everything.column("px_j2"))
    np.testing.assert_array_equal(events.column("j[1].phi"), phi)
    assert len(read_events(good_file, observables=iter(["m_aa"]))) == 500


def test_several_files_are_one_sample(tmp_path, branches_of, record_of, write):
    paths = [
        write(tmp_path / f"shard_{k}.root", branches_of(n, seed=k), record_of(n, seed=k))
        for k, n in enumerate((30, 20, 10))
    ]
    one_by_one = [read_events(path).x for path in paths]
    for given in (paths, [str(p) for p in paths], str(tmp_path / "shard_*.root")):
        events = read_events(given)
        np.testing.assert_array_equal(events.x, np.concatenate(one_by_one))
        assert events.metadata.n_events == 60
        assert report_of(events).n_kept == 60
    assert len(read_events(paths, max_events=40)) == 40


def test_progress_ends_at_the_total(tmp_path, branches_of, write, monkeypatch):
    monkeypatch.setattr("mflow_sbi.events.reading.CHUNK_EVENTS", 25)
    paths = [write(tmp_path / f"{k}.root", branches_of(60, seed=k)) for k in range(2)]
    calls = []
    read_events(paths, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == [25, 50, 60, 85, 110, 120, 120]
    assert {total for _, total in calls} == {120}


def test_foreign_delphes_file(tmp_path, branches_of, write):
    ours = ("theta.", "score.", "Weight.")
    branches = {k: v for k, v in branches_of(50).items() if not k.startswith(ours)}
    events = read_events(write(tmp_path / "f.root", branches))
    assert events.x.shape == (50, 40)
    assert events.theta is None
    assert events.components is None
    assert events.metadata.parameters == ()
    assert (events.metadata.process, events.metadata.tree) == ("unknown", "Delphes")


def test_components_without_metadata_are_not_guessed(tmp_path, branches_of, write):
    events = read_events(write(tmp_path / "f.root", branches_of(20)))
    assert events.parameter_names == ("CWL2", "CPWL2")
    assert events.components is None


def test_weights_flat_or_in_lists(tmp_path, branches_of, write):
    branches = branches_of(40)
    weights = np.linspace(-0.5, 2, 40).astype("f4")  # signed, as beyond leading order
    for name, column in {"flat": weights, "list": ak.unflatten(weights, np.ones(40, int))}.items():
        path = write(tmp_path / f"{name}.root", branches | {"Event.Weight": column})
        np.testing.assert_array_equal(read_events(path).weight, weights.astype("f8"))


def test_observed_events_carry_no_theta(tmp_path, branches_of, record_of, write):
    branches = {k: v for k, v in branches_of(20).items() if not k.startswith(("theta", "score"))}
    events = read_events(write(tmp_path / "f.root", branches, record_of(20)))
    assert events.theta is None
    assert events.parameter_names == ("CWL2", "CPWL2")
    assert events.require_components().shape == (20, 6)


def test_angles_at_the_edge_of_float32(tmp_path, branches_of, write):
    branches = branches_of(20)
    edge = ak.full_like(branches["Photon.Phi"], np.float32(np.pi))
    assert float(edge[0][0]) > np.pi
    events = read_events(write(tmp_path / "f.root", branches | {"Photon.Phi": edge}))
    assert np.isfinite(events.x).all()


def test_massless_jets_below_zero_by_rounding(tmp_path, branches_of, write):
    branches = branches_of(20)
    below = ak.values_astype(-1e-5 * branches["Jet.PT"], np.float32)
    path = write(tmp_path / "f.root", branches | {"Jet.Mass": below})
    masses = read_events(path, observables=["j[0].m", "j[0].e"])
    assert (masses.x[:, 0] <= 1e-7 * masses.x[:, 1]).all()


def flat_branches(events):
    return {name: events.column(name) for name in events.observable_names}


def test_flat_file_with_the_default_observables(tmp_path, good_file, write):
    events = read_events(good_file)
    theta = {f"theta.{k}": events.require_theta()[:, i] for i, k in enumerate("uv")}
    path = write(tmp_path / "flat.root", flat_branches(events) | theta, tree="events")
    flat = read_events(path)
    np.testing.assert_array_equal(flat.x, events.x)
    np.testing.assert_array_equal(flat.theta, events.theta)
    assert (flat.metadata.layout, flat.parameter_names) == ("flat", ("u", "v"))
    assert flat.observable_names == events.observable_names


def test_flat_file_with_chosen_branches(tmp_path, good_file, write):
    events = read_events(good_file)
    path = write(tmp_path / "flat.root", flat_branches(events), tree="events")
    chosen = ["m_jj", Observable("mass", "m_aa"), "pt_a1 - pt_a2", WBF_OBSERVABLES[0]]
    flat = read_events(path, observables=chosen, selection="abs(eta_a1) < 1")
    keep = np.abs(events.column("eta_a1")) < 1
    expected = [
        events.column("m_jj"),
        events.column("m_aa"),
        events.column("pt_a1") - events.column("pt_a2"),
        events.column("e_a1"),
    ]
    np.testing.assert_array_equal(flat.x, np.column_stack(expected)[keep])
    assert flat.observable_names == ("m_jj", "mass", "pt_a1 - pt_a2", "e_a1")


def test_flat_file_that_names_its_observables(tmp_path, record_of, write):
    angle = np.linspace(-1, 1, 10)
    record = record_of(
        10,
        tree="events",
        layout="flat",
        morphing=None,
        parameters=[{"name": "mu"}],
        observables=[{"name": "angle", "unit": "rad", "periodic": True}],
    )
    branches = {"angle": angle, "other": angle, "theta.mu": angle, "weight": angle + 2}
    events = read_events(write(tmp_path / "flat.root", branches, record, tree="events"))
    np.testing.assert_array_equal(events.x[:, 0], angle)
    assert events.metadata.observables == (Observable("angle", "", "rad", periodic=True),)
    np.testing.assert_array_equal(events.weight, angle + 2)


def test_tree_is_chosen_by_name(tmp_path):
    with uproot.recreate(tmp_path / "two.root") as file:
        for name, value in (("first", 1.0), ("second", 2.0)):
            file.mktree(name, {"v": "f8"}).extend({"v": np.full(5, value)})
    events = read_events(tmp_path / "two.root", tree="second", observables=["v"])
    np.testing.assert_array_equal(events.x, 2.0)
    with pytest.raises(EventFileError, match=r"several TTrees, 'first', 'second'.*tree="):
        read_events(tmp_path / "two.root", observables=["v"])


def test_several_files_must_belong_together(tmp_path, branches_of, record_of, write):
    first = write(tmp_path / "a.root", branches_of(10), record_of(10))
    second = write(tmp_path / "b.root", branches_of(10), record_of(10, process="other"))
    with pytest.raises(MetadataError, match="differ in process"):
        read_events([first, second])


@pytest.mark.skipif(not HZZ.exists(), reason="no file of another program at hand")
def test_file_of_another_program():
    with pytest.raises(EventFileError, match="tree 'events' is flat.*'NJet', 'Jet_Px'"):
        read_events(HZZ)
    with pytest.raises(EventFileError, match="no branch 'MET_Px'. Did you mean 'MET_px'"):
        read_events(HZZ, observables=["MET_Px"])
    events = read_events(HZZ, observables=["MET_px", "MET_py", "NJet"], selection="NJet > 1")
    with uproot.open(HZZ) as file:  # pyright: ignore[reportGeneralTypeIssues]
        met, n_jets = (file[f"events/{k}"].array(library="np") for k in ("MET_px", "NJet"))  # pyright: ignore
    np.testing.assert_array_equal(events.column("MET_px"), met[n_jets > 1].astype("f8"))
