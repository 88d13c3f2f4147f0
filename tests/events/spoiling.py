"""Good events, and ways to spoil a file of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from mflow_sbi.events import EventSample, EventSource, Layout, ObjectBranches

N = 40


@dataclass
class Bench:
    """A folder, and good events to be spoiled."""

    folder: Path
    branches: dict
    record_of: Any
    write: Any

    def path(self, name="bad.root"):
        return self.folder / name

    def good(self, name="good.root", **changes):
        return self.write(self.path(name), self.branches, self.record_of(N, **changes))

    def foreign(self, name="bad.root", tree="Delphes", **changes):
        ours = ("theta.", "score.", "Weight.")
        branches = {k: v for k, v in self.branches.items() if not k.startswith(ours)}
        return self.write(self.path(name), branches | changes, tree=tree)

    def changed(self, **changes):
        columns = {name.replace("__", "."): change for name, change in changes.items()}
        spoiled = {k: columns[k](v) if k in columns else v for k, v in self.branches.items()}
        return self.write(self.path(), spoiled, self.record_of(N))

    def without(self, *names):
        rest = {k: v for k, v in self.branches.items() if k not in names}
        return self.write(self.path(), rest, self.record_of(N))

    def weighted(self, weights):
        column = ak.unflatten(ak.Array(np.asarray(weights, "f4")), np.ones(N, int))
        return self.foreign(**{"Event.Weight": column})

    def flat(self, name="flat.root", **columns):
        return self.write(self.path(name), columns, tree="events")

    def ntuple(self, **columns):
        with uproot.recreate(self.path()) as file:
            file.mkrntuple("Events", columns)
        return self.path()

    def parquet(self, **columns):
        pq.write_table(pa.table(columns), self.path("bad.parquet"))
        return self.path("bad.parquet")

    def hdf5(self, **content):
        with h5py.File(self.path("bad.h5"), "w") as file:
            for name, value in content.items():
                file[name.replace("__", "/")] = value
        return self.path("bad.h5")


MADMINER = {
    "parameters__names": np.array([b"c"]),
    "benchmarks__names": np.array([b"sm", b"w"]),
    "benchmarks__values": np.array([[0.0], [1.0]]),
    "observables__names": np.array([b"x"]),
    "samples__observations": np.arange(5.0)[:, None] + 0.5,
    "samples__weights": np.ones((5, 2)),
}
TO_BE_CUT = {"x": np.arange(1000.0)}


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def filled(path, content):
    path.write_bytes(content)
    return path


def one(value, event=5):
    """Put a value in the place of the first object of an event."""

    def change(column):
        values = ak.flatten(column).to_numpy().copy()
        values[int(ak.sum(ak.num(column)[:event]))] = value
        return ak.unflatten(values, ak.num(column))

    return change


def scaled(by, offset=0.0):
    return lambda column: ak.values_astype(column * by + offset, np.float32)


def lists(values):
    return ak.from_regular(ak.Array(np.asarray(values, "f4"))[:, None])


def trained_on(sample: EventSample) -> EventSample:
    assert sample.training_weight is not None
    return sample


def mixed_layouts(bench):
    """A Delphes and a NanoAOD file side by side."""
    bench.foreign("a.root")
    kinematics = {
        f"Photon_{k.lower()}": bench.branches[f"Photon.{k}"] for k in ("PT", "Eta", "Phi")
    }
    weight = {"genWeight": np.ones(N)}
    bench.write(bench.path("b.root"), kinematics | weight, tree="Events")
    return str(bench.folder / "*.root")


def of_two_points(bench):
    """Two files at points of different parameters."""
    names = {"a.root": "c", "b.root": "d"}
    return [EventSource(bench.foreign(file), {name: 0.0}) for file, name in names.items()]


def flat_pair(first, second):
    """Two flat files in the order of their names."""
    return lambda bench: [bench.flat("a.root", **first), bench.flat("b.root", **second)]


def photons(px, e, pz=0.0):
    """A file of one Cartesian photon in each event."""
    columns = {"px": px, "py": [0] * len(px), "pz": [pz] * len(px), "e": e}
    return lambda bench: bench.flat(**{name: lists(values) for name, values in columns.items()})


def one_photon_in_nine_events(bench):
    def shortened(column):
        return ak.concatenate([column[:9, :1], column[9:]])

    return bench.changed(**{f"Photon__{k}": shortened for k in ("PT", "Eta", "Phi", "E")})


CARTESIAN = Layout(
    "declared",
    "events",
    (ObjectBranches("a", "photon", px="px", py="py", pz="pz", energy="e", prefix="p"),),
    (),
)
