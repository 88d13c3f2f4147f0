"""Files that nobody here wrote, each compared with a direct reading by uproot, awkward, vector."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import vector

from mflow_sbi.errors import EventDataError, EventFileError
from mflow_sbi.events import Benchmarks, inspect_file, open_chunks, read_events
from mflow_sbi.events.layouts import ELECTRON_MASS, MUON_MASS

vector.register_awkward()

DATA = Path(__file__).parents[3] / "shared" / "data"
HZZ, NANO = DATA / "uproot-HZZ.root", DATA / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
pytestmark = pytest.mark.skipif(not NANO.exists(), reason="no files of other programs at hand")

HZZ_LAYOUT = {
    "tree": "events",
    "objects": {
        symbol: {
            "name": name,
            "prefix": f"{prefix}_",
            **{key: f"{prefix}_P{key[1]}" for key in ("px", "py", "pz")},
            "energy": f"{prefix}_E",
        }
        for symbol, name, prefix in (
            ("a", "photon", "Photon"),
            ("m", "muon", "Muon"),
            ("e", "electron", "Electron"),
            ("j", "jet", "Jet"),
        )
    },
    "met": {"px": "MET_px", "py": "MET_py"},
    "weight": "EventWeight",
}


def wide(array):
    return ak.values_astype(array, np.float64)


def cartesian(arrays, prefix):
    """Four-vectors of HZZ, largest pT first, in float64."""
    parts = {
        name: wide(arrays[f"{prefix}_{key}"])
        for name, key in (("px", "Px"), ("py", "Py"), ("pz", "Pz"), ("E", "E"))
    }
    found = ak.zip(parts, with_name="Momentum4D")
    return found[ak.argsort(found.pt, ascending=False)]


def polar(arrays, prefix, mass):
    """Four-vectors of NanoAOD, largest pT first, in float64; masses below zero are rounding."""
    parts = {k: wide(arrays[f"{prefix}_{k}"]) for k in ("pt", "eta", "phi")}
    own = np.maximum(wide(arrays[f"{prefix}_mass"]), 0) if mass is None else mass
    found = ak.zip(parts | {"mass": own}, with_name="Momentum4D")
    return found[ak.argsort(found.pt, ascending=False)]


@pytest.fixture(scope="module")
def hzz():
    with uproot.open(HZZ) as file:  # pyright: ignore[reportGeneralTypeIssues]
        return file["events"].arrays()  # pyright: ignore


@pytest.fixture(scope="module")
def nano():
    wanted = ["genWeight", "LHEScaleWeight", "MET_pt", "MET_phi", "PV_npvs"]
    for prefix in ("Photon", "Jet", "Electron", "Muon"):
        wanted += [f"{prefix}_{key}" for key in ("pt", "eta", "phi", "mass")]
    with uproot.open(NANO) as file:  # pyright: ignore[reportGeneralTypeIssues]
        return file["Events"].arrays([*wanted, "Photon_pfRelIso03_all", "Muon_charge"])  # pyright: ignore


def close(found, expected, scale=1.0):
    np.testing.assert_allclose(found, ak.to_numpy(expected), rtol=1e-10, atol=1e-9 * scale)


def test_two_photons_of_hzz(hzz):
    wanted = ["(a[0]+a[1]).m", "a[0].pt", "a[1].eta", "deltar(a[0], a[1])", "met.pt", "NJet"]
    events = read_events(HZZ, layout=HZZ_LAYOUT, observables=wanted)
    two = ak.num(hzz.Photon_E) >= 2
    photons = cartesian(hzz, "Photon")[two]
    first, second = photons[:, 0], photons[:, 1]
    assert len(events) == 46
    assert events.report is not None
    assert events.report.dropped == {"fewer than 2 photons": 2421 - 46}
    close(events.column("(a[0]+a[1]).m"), (first + second).mass)
    close(events.column("a[0].pt"), first.pt)
    close(events.column("a[1].eta"), second.eta)
    close(events.column("deltar(a[0], a[1])"), first.deltaR(second))
    met = hzz[two]
    close(
        events.column("met.pt"),
        np.hypot(*(ak.values_astype(met[f"MET_p{k}"], "f8") for k in "xy")),
    )
    close(events.column("NJet"), met.NJet)
    close(events.weight, met.EventWeight)
    total = ak.sum(ak.values_astype(hzz.EventWeight, np.float64))
    assert events.metadata.sum_of_weights_before_selection == pytest.approx(total, rel=1e-12)


def test_two_selected_muons_of_hzz(hzz):
    events = read_events(
        HZZ,
        layout=HZZ_LAYOUT,
        observables=["(m[0]+m[1]).m", "n(m)", "deltaphi(m[0], met)", "n(j)", "sum_pt(j)"],
        objects={"m": "pt > 20 and abs(eta) < 2.1 and Iso / pt < 0.15", "j": "pt > 40"},
        selection="70 < (m[0]+m[1]).m < 110",
    )
    muons, jets = cartesian(hzz, "Muon"), cartesian(hzz, "Jet")
    order = ak.argsort(
        np.hypot(*(ak.values_astype(hzz[f"Muon_P{k}"], "f8") for k in "xy")), ascending=False
    )
    isolated = ak.values_astype(hzz.Muon_Iso, "f8")[order] / muons.pt < 0.15
    chosen = muons[(muons.pt > 20) & (np.abs(muons.eta) < 2.1) & isolated]
    two = ak.num(chosen) >= 2
    mass = (chosen[two][:, 0] + chosen[two][:, 1]).mass
    keep = (mass > 70) & (mass < 110)
    kept, jets = chosen[two][keep], jets[two][keep]
    assert 900 < len(events) == ak.sum(keep)
    close(events.column("(m[0]+m[1]).m"), mass[keep])
    close(events.column("n(m)"), ak.num(kept))
    close(events.column("n(j)"), ak.num(jets[jets.pt > 40]))
    close(events.column("sum_pt(j)"), ak.sum(jets[jets.pt > 40].pt, axis=1), 1e3)
    met_phi = np.arctan2(wide(hzz.MET_py), wide(hzz.MET_px))[two][keep]
    expected = (kept[:, 0].phi - met_phi + np.pi) % (2 * np.pi) - np.pi
    close(events.column("deltaphi(m[0], met)"), expected)
    assert events.report is not None
    assert dict(events.report.dropped_objects) == {
        "muon pt > 20 and abs(eta) < 2.1 and Iso / pt < 0.15": ak.sum(ak.num(muons))
        - ak.sum(ak.num(chosen)),
        "jet pt > 40": ak.sum(cartesian(hzz, "Jet").pt <= 40),
    }


def test_two_photons_of_nanoaod(nano):
    events = read_events(NANO, observables=["(a[0]+a[1]).m", "a[1].pt", "met.px", "PV_npvs"])
    two = ak.num(nano.Photon_pt) >= 2
    photons = polar(nano, "Photon", 0.0)[two]
    assert len(events) == 9
    close(events.column("(a[0]+a[1]).m"), (photons[:, 0] + photons[:, 1]).mass)
    close(events.column("a[1].pt"), photons[:, 1].pt)
    met = wide(nano.MET_pt) * np.cos(wide(nano.MET_phi))
    close(events.column("met.px"), met[two])
    close(events.column("PV_npvs"), nano.PV_npvs[two])
    close(events.weight, nano.genWeight[two])


def test_masses_of_leptons_and_jets_of_nanoaod(nano):
    for symbol, prefix, mass in (
        ("j", "Jet", None),
        ("e", "Electron", ELECTRON_MASS),
        ("m", "Muon", MUON_MASS),
    ):
        events = read_events(NANO, observables=[f"({symbol}[0]+{symbol}[1]).m", f"{symbol}[0].e"])
        found = polar(nano, prefix, mass)
        found = found[ak.num(found) >= 2]
        close(events.x[:, 0], (found[:, 0] + found[:, 1]).mass)
        close(events.x[:, 1], found[:, 0].energy)


def test_signed_weights_of_nanoaod(nano):
    events = read_events(NANO, observables=["n(j)", "met.pt"])
    assert events.weight is not None
    assert (events.weight < 0).sum() == 26
    total = float(ak.sum(wide(nano.genWeight)))
    assert events.metadata.sum_of_weights_before_selection == total == events.weight.sum()
    share = events.weight.sum() ** 2 / (events.weight**2).sum()
    rows = dict(inspect_file(NANO, observables=["n(j)"]).rows())
    assert rows["negative weights"] == "26 (13.00%)"
    assert rows["effective events"] == f"{share:.1f} ({share / 200:.2%})"
    assert rows["sum of weights before selection"] == f"{total:.6g}"
    with pytest.raises(EventDataError, match="effective size of at least 200"):
        _ = events.training_weight
    assert read_events(NANO, observables=["n(j)"], weight="none").weight is None


def test_selected_photons_of_nanoaod(nano):
    sentence = (
        "pt > 15 and abs(eta) < 2.5 and not (1.44 < abs(eta) < 1.57) and pfRelIso03_all < 0.2"
    )
    events = read_events(NANO, observables=["n(a)"], objects={"a": sentence})
    eta = np.abs(nano.Photon_eta)
    chosen = (nano.Photon_pt > 15) & (eta < 2.5) & ~((eta > 1.44) & (eta < 1.57))
    chosen = chosen & (nano.Photon_pfRelIso03_all < np.float32(0.2))
    close(events.column("n(a)"), ak.sum(chosen, axis=1))
    assert events.report is not None
    assert events.report.dropped_objects == {f"photon {sentence}": ak.sum(~chosen)}


def test_benchmark_weights_of_nanoaod_are_ratios(nano):
    names = tuple(f"scale {k}" for k in range(9))
    asked = Benchmarks("LHEScaleWeight", names)
    events = read_events(NANO, observables=["n(j)"], benchmark_weights=asked)
    expected = nano.LHEScaleWeight.to_numpy().astype("f8") * nano.genWeight.to_numpy()[:, None]
    np.testing.assert_array_equal(events.require_benchmark_weight(), expected)
    assert events.metadata.benchmarks == asked
    with pytest.raises(EventDataError, match="'LHEReweightingWeight' is empty in all events"):
        read_events(NANO, observables=["n(j)"], benchmark_weights="LHEReweightingWeight")
    wrong = Benchmarks("LHEScaleWeight", ("up", "down"))
    with pytest.raises(EventDataError, match="holds 9 numbers in event 0; expected 2, one for"):
        read_events(NANO, observables=["n(j)"], benchmark_weights=wrong)


def test_an_rntuple_holds_what_a_ttree_does(tmp_path, nano):
    columns = {name: nano[name] for name in nano.fields}
    path = tmp_path / "nano.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("Events", columns)
    asked = {
        "observables": ["(j[0]+j[1]).m", "met.pt", "n(a)"],
        "objects": {"j": "pt > 30", "a": "pfRelIso03_all < 0.2"},
        "selection": "(j[0]+j[1]).m > 100",
        "benchmark_weights": "LHEScaleWeight",
    }
    tree, ntuple = read_events(NANO, **asked), read_events(path, **asked)
    np.testing.assert_array_equal(ntuple.x, tree.x)
    np.testing.assert_array_equal(ntuple.weight, tree.weight)
    np.testing.assert_array_equal(ntuple.benchmark_weight, tree.require_benchmark_weight())
    assert ntuple.report == tree.report
    assert 0 < len(tree) < 200
    chunks = open_chunks(path, **asked, chunk_events=30)
    np.testing.assert_array_equal(np.concatenate([chunk.x for chunk in chunks]), tree.x)
    assert inspect_file(path, observables=["n(j)"]).layout == "nanoaod"


def test_the_default_observables_of_nanoaod_are_those_of_wbf(nano):
    events = read_events(NANO)
    two = (ak.num(nano.Photon_pt) >= 2) & (ak.num(nano.Jet_pt) >= 2)
    assert events.x.shape == (ak.sum(two), 40)


def test_collections_are_told():
    rows = dict(inspect_file(NANO, observables=["met.pt"]).rows())
    assert rows["format"] == "ROOT"
    assert "'pfRelIso03_all'" in rows["a: photons"]
    assert {"j: jets", "e: electrons", "m: muons", "t: taus", "met: missing momentum"} <= set(rows)


def test_layouts_that_do_not_fit(nano):
    with pytest.raises(EventFileError, match="no branch 'Photon.PT'.*mean"):
        read_events(NANO, layout="delphes", observables=["a[0].pt"])
    with pytest.raises(EventFileError, match="no branch 'Weight'"):
        read_events(HZZ, layout=HZZ_LAYOUT | {"weight": "Weight"}, observables=["a[0].pt"])
    wrong = {"a": HZZ_LAYOUT["objects"]["a"] | {"pz": "Photon_pz"}}
    with pytest.raises(EventFileError, match="no branch 'Photon_pz'.*Did you mean 'Photon_Pz'"):
        read_events(HZZ, layout={"objects": wrong}, observables=["a[0].pt"])
