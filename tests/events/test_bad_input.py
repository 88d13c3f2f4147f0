"""Everything that files bring along, in one table: a clear error, or a repair that is counted.

Each case makes its file(s) and reads them.  It ends in an error of the named class whose message
contains the words, or in a sample of which the last function says what was repaired and counted.
"""

import json
from dataclasses import dataclass, field
from typing import Any

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
    MissingReference,
)
from mflow_sbi.events import read_events

from .spoiling import (
    CARTESIAN,
    MADMINER,
    TO_BE_CUT,
    Bench,
    N,
    cut,
    filled,
    flat_pair,
    lists,
    mixed_layouts,
    of_two_points,
    one,
    one_photon_in_nine_events,
    photons,
    scaled,
    trained_on,
)

PT = {"observables": ["a[0].pt"]}
X = {"observables": ["x"]}


@dataclass(frozen=True)
class Case:
    make: Any
    error: type[MflowSbiError] | None = None
    words: str = ""
    asked: dict = field(default_factory=dict)
    then: Any = lambda sample: sample


def refused(error, words, make, asked=None, then=lambda sample: sample):
    return Case(make, error, words, asked or {}, then)


def repaired(make, asked, then):
    return Case(make, asked=asked, then=then)


def report(**expected):
    def check(sample):
        found = {name: getattr(sample.report, name) for name in expected}
        assert found == expected

    return check


TABLE = {
    # files
    "does not exist": refused(EventFileError, "does not exist", lambda b: b.path()),
    "folder": refused(EventFileError, "is a folder", lambda b: b.folder),
    "empty file": refused(EventFileError, "0 bytes", lambda b: filled(b.path(), b"")),
    "text": refused(EventFileError, "not a ROOT file", lambda b: filled(b.path(), b"pt,eta\n1,2")),
    "Parquet called ROOT, and cut": refused(
        EventFileError, "footer", lambda b: filled(b.path(), b"PAR1 and no more")
    ),
    "truncated ROOT": refused(EventFileError, "is truncated", lambda b: cut(b.good(), 0.9)),
    "truncated Parquet": refused(
        EventFileError, "footer cannot be read", lambda b: cut(b.parquet(**TO_BE_CUT)), X
    ),
    "truncated HDF5": refused(
        EventFileError, "cannot be read", lambda b: cut(b.hdf5(**MADMINER)), X
    ),
    "HDF5 of another kind": refused(
        EventFileError, "expected an event file of MadMiner", lambda b: b.hdf5(data=np.ones(3))
    ),
    "benchmarks that do not fit": refused(
        EventFileError,
        "do not fit 1 observables and 2 benchmarks",
        lambda b: b.hdf5(**MADMINER | {"samples__weights": np.ones((5, 3))}),
    ),
    "same file twice": refused(
        EventFileError, "is given 2 times", lambda b: [b.good(), str(b.path("good.root"))]
    ),
    "pattern without a file": refused(
        EventFileError, "no file matches", lambda b: str(b.folder / "*.root")
    ),
    # trees and branches
    "wrong tree": refused(
        EventFileError, "no TTree 'Events'", lambda b: b.good(), {"tree": "Events"}
    ),
    "no tree": refused(
        EventFileError,
        "expected a TTree or RNTuple",
        lambda b: (uproot.recreate(b.path()).close(), b.path())[1],
    ),
    "empty tree": refused(EventFileError, "is empty", lambda b: b.flat(x=np.empty(0)), X),
    "missing branch": refused(
        EventFileError, "no branch 'Jet.Mass'", lambda b: b.without("Jet.Mass")
    ),
    "missing branch of an RNTuple": refused(
        EventFileError, "no branch 'y'", lambda b: b.ntuple(x=np.ones(3)), {"observables": ["y"]}
    ),
    "no such weight": refused(
        EventFileError, "no branch 'genWeight'", lambda b: b.good(), {"weight": "genWeight"}
    ),
    "no missing momentum": refused(
        EventFileError, "needs missing transverse", lambda b: b.good(), {"observables": ["met.pt"]}
    ),
    "mixed layouts in one glob": refused(
        MetadataError, "differ in layout: delphes and nanoaod", mixed_layouts, PT
    ),
    "flat read as jagged": refused(
        ExpressionError, "no objects 'a' here", lambda b: b.flat(x=np.ones(3)), PT
    ),
    "jagged read as flat": refused(
        EventDataError,
        "holds 2 numbers in event 0",
        lambda b: b.flat(x=ak.Array([[1.0, 2.0], [3.0]])),
        X,
    ),
    "text for numbers": refused(
        EventDataError, "expected numbers", lambda b: b.parquet(x=["1", "2"]), X
    ),
    "holes": refused(EventDataError, "1 value that is NaN", lambda b: b.parquet(x=[1.0, None]), X),
    # numbers
    "NaN": refused(
        EventDataError, "'Photon.Eta' holds 1 value", lambda b: b.changed(Photon__Eta=one(np.nan))
    ),
    "infinity": refused(
        EventDataError, "'Jet.PT' holds 1 value", lambda b: b.changed(Jet__PT=one(np.inf))
    ),
    "unequal lengths": refused(
        EventDataError,
        "'Jet.PT' has . and 'Jet.Eta' . values in event 7",
        lambda b: b.changed(Jet__Eta=lambda c: ak.concatenate([c[:7], c[7:8, :-1], c[8:]])),
    ),
    "degrees for radians": refused(
        EventDataError, "Convert degrees", lambda b: b.changed(Photon__Phi=scaled(180 / np.pi))
    ),
    "degrees of missing momentum": refused(
        EventDataError,
        "'MissingET.Phi'.*Convert degrees",
        lambda b: b.foreign(
            **{"MissingET.MET": lists(np.ones(N)), "MissingET.Phi": lists(np.full(N, 90.0))}
        ),
        {"observables": ["met.px"]},
    ),
    "azimuths from zero to two pi": refused(
        EventDataError, r"wrap \[0, 2 pi\)", lambda b: b.changed(Jet__Phi=scaled(1.0, np.pi))
    ),
    "polar angle for pseudorapidity": refused(
        EventDataError,
        "expected pseudorapidities. If it is the polar angle",
        lambda b: b.changed(Jet__Eta=scaled(20.0, 90.0)),
    ),
    "MeV": refused(
        EventDataError,
        "If the file is in MeV",
        lambda b: b.changed(Photon__PT=scaled(1000), Photon__E=scaled(1000)),
    ),
    "MeV in a few soft central objects": refused(
        EventDataError,
        "gives pT around 2.*If the file is in MeV",
        photons([2e4, 3e4], [3e4, 4e4]),
        PT | {"layout": CARTESIAN},
    ),
    "missing momentum in MeV": refused(
        EventDataError,
        "'MissingET.MET'.*missing pT.*MeV|'MissingET.MET'.*MeV",
        lambda b: b.foreign(
            **{"MissingET.MET": lists(np.full(N, 4e4)), "MissingET.Phi": lists(np.zeros(N))}
        ),
        {"observables": ["met.px"]},
    ),
    "energy in MeV": refused(
        EventDataError, "'Photon.E' of .*MeV", lambda b: b.changed(Photon__E=scaled(1000))
    ),
    "energy below the momentum": refused(
        EventDataError,
        "'e' of 1 of 1 object is below",
        photons([30.0], [49.0], pz=40.0),
        PT | {"layout": CARTESIAN},
    ),
    "negative pT": refused(
        EventDataError, "is negative", lambda b: b.changed(Jet__PT=one(np.float32(-30)))
    ),
    "negative mass": refused(
        EventDataError, "'Jet.Mass' of 1", lambda b: b.changed(Jet__Mass=one(np.float32(-4)))
    ),
    "infinite observable": refused(
        EventDataError,
        "is not finite in",
        lambda b: b.flat(x=np.array([1.0, 0.0])),
        {"observables": ["log(x)"]},
    ),
    # weights
    "one huge weight": refused(
        EventDataError,
        "Training needs an effective size",
        lambda b: b.weighted([1e6] + [1.0] * (N - 1)),
        PT,
        trained_on,
    ),
    "weights all zero": refused(
        EventDataError, "sum to 0", lambda b: b.weighted(np.zeros(N)), PT, trained_on
    ),
    "weights all negative": refused(
        EventDataError, "sum to -40", lambda b: b.weighted(-np.ones(N)), PT, trained_on
    ),
    "weight that is no number": refused(
        EventDataError, "'Event.Weight' holds 1", lambda b: b.weighted([np.nan] + [1.0] * (N - 1))
    ),
    "weights in some files only": refused(
        EventDataError,
        "only 1 of 2 files carry weight",
        flat_pair({"x": np.ones(3)}, {"x": np.ones(3), "weight": np.ones(3)}),
        X,
    ),
    # records and parameters
    "malformed record": refused(
        MetadataError, "metadata is not JSON", lambda b: b.write(b.path(), b.branches, "{")
    ),
    "unknown key": refused(MetadataError, "unknown key 'colour'", lambda b: b.good(colour=1)),
    "newer record": refused(
        MetadataError,
        "format_version 99",
        lambda b: b.write(
            b.path(), b.branches, json.dumps({"format": "mflow_sbi.events", "format_version": 99})
        ),
    ),
    "merged since": refused(EventFileError, "announce 100 events", lambda b: b.good(n_events=100)),
    "no components without a record": refused(
        MissingReference,
        "do not carry the morphing components",
        lambda b: b.foreign(),
        PT,
        lambda sample: sample.require_components(),
    ),
    "theta outside": refused(
        EventDataError,
        "'theta.CWL2' of 1 event lies outside .*-5.0, 5.0.*e.g. 7",
        lambda b: b.changed(theta__CWL2=lambda c: np.where(np.arange(N) == 3, 7.0, c.clip(-4, 4))),
    ),
    "theta that is a list": refused(
        MetadataError, "a value for each parameter", lambda b: b.foreign(), PT | {"theta": [0.5]}
    ),
    "theta of other parameters": refused(
        MetadataError,
        "theta of ",
        of_two_points,
        PT,
    ),
    "parameters in another order": refused(
        MetadataError,
        "differ in parameters: .'u', 'v'. and .'v', 'u'.",
        flat_pair(
            {"x": np.ones(3), "theta.u": np.ones(3), "theta.v": np.ones(3)},
            {"x": np.ones(3), "theta.v": np.ones(3), "theta.u": np.ones(3)},
        ),
        X,
    ),
    "other observables": refused(
        MetadataError,
        "differ in observables",
        lambda b: [
            b.good("a.root", observables=[{"name": "m_aa", "expression": "(a[0]+a[1]).m"}]),
            b.good("b.root", observables=[{"name": "m_aa", "expression": "a[0].pt"}]),
        ],
    ),
    "other processes": refused(
        MetadataError,
        "differ in process",
        lambda b: [b.good("a.root"), b.good("b.root", process="ttbar")],
    ),
    # requests
    "objects that are not there": refused(
        ExpressionError, "no objects 'b' here", lambda b: b.good(), {"observables": ["b[0].pt"]}
    ),
    "injection": refused(
        ExpressionError,
        "not in the language|no function|needs a momentum",
        lambda b: b.good(),
        {"observables": ["__import__('os').system('true')"]},
    ),
    "injection by attributes": refused(
        ExpressionError,
        "no attribute '__class__'",
        lambda b: b.good(),
        {"selection": "a[0].__class__ > 1"},
    ),
    "injection in objects": refused(
        ExpressionError,
        "no function 'open'",
        lambda b: b.good(),
        {"objects": {"a": "open(pt) > 1"}},
    ),
    "column of objects": refused(
        ExpressionError,
        "no column 'Iso'; columns here: 'pt'",
        lambda b: b.good(),
        {"objects": {"a": "Iso < 1"}},
    ),
    "objects of no collection": refused(
        ExpressionError, "no objects 'b'", lambda b: b.good(), {"objects": {"b": "pt < 1"}}
    ),
    "observable named twice": refused(
        ExpressionError, "more than once", lambda b: b.good(), {"observables": ["m_aa", "m_aa"]}
    ),
    "observable that never changes": refused(
        ExpressionError, "the same for every event", lambda b: b.good(), {"observables": ["1 + 1"]}
    ),
    "nothing left": refused(
        EventDataError,
        "none of 40 events is left",
        lambda b: b.good(),
        {"selection": "a[0].pt > 1e9"},
    ),
    # repaired, and counted
    "copied file": repaired(
        lambda b: [b.good("a.root"), filled(b.path("b.root"), b.path("a.root").read_bytes())],
        {},
        report(n_kept=2 * N, duplicates=N),
    ),
    "too few objects": repaired(
        one_photon_in_nine_events,
        {},
        report(n_kept=N - 9, dropped={"fewer than 2 photons": 9, "fewer than 2 jets": 0}),
    ),
    "objects that do not count": repaired(
        lambda b: b.changed(Jet__PT=one(np.float32(5), event=7)),
        {"observables": ["m_aa"], "objects": {"a": "pt > 0"}, "selection": "n(j) > 0"},
        report(n_kept=N, dropped_objects={"photon pt > 0": 0}),
    ),
    "mass below zero by rounding": repaired(
        lambda b: b.changed(
            Jet__Mass=lambda c: ak.values_astype(-1e-6 * b.branches["Jet.PT"], "f4")
        ),
        {"observables": ["j[0].m", "j[0].e"]},
        lambda sample: np.testing.assert_allclose(sample.x[:, 0], 0, atol=1e-5),
    ),
    "lists of one number": repaired(
        lambda b: b.flat(x=lists([1.5, 2.5])), X, lambda s: s.x.tolist() == [[1.5], [2.5]]
    ),
}


@pytest.fixture
def bench(tmp_path, branches_of, record_of, write):
    return Bench(tmp_path, branches_of(N), record_of, write)


def test_the_table_is_long():
    assert len(TABLE) >= 60
    assert sum(case.error is None for case in TABLE.values()) >= 5


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_bad_input(bench, case):
    files = case.make(bench)
    if case.error is None:
        assert case.then(read_events(files, **case.asked)) is not False
        return
    with pytest.raises(case.error, match=case.words):
        case.then(read_events(files, **case.asked))
