"""MadMiner files, written here as MadMiner writes them; files of any format, damaged."""

from typing import Any

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from mflow_sbi.errors import EventDataError, EventFileError, MetadataError, MflowSbiError
from mflow_sbi.events import inspect_file, open_chunks, read_events

N = 120


def madminer_file(path, n=60, seed=0, **changes):
    """Write what MadMiner's analysis writes: setup, observables, samples."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
    weights = rng.uniform(0.1, 1, (n, 3)) / n
    content = {
        "parameters/names": np.array([b"CWL2", b"CPWL2"], dtype="S256"),
        "parameters/lha_blocks": np.array([b"dim6", b"dim6"], dtype="S256"),
        "parameters/lha_ids": np.array([2, 5]),
        "parameters/max_power": np.array([[2], [2]]),
        "parameters/ranges": np.array([[-3.0, 3.0], [-3.0, 3.0]]),
        "parameters/transforms": np.array([b"", b""], dtype="S256"),
        "benchmarks/names": np.array([b"sm", b"w", b"morphing_basis_2"], dtype="S256"),
        "benchmarks/values": points,
        "observables/names": np.array([b"pt_j1", b"delta_phi"], dtype="S256"),
        "observables/definitions": np.array([b"j[0].pt", b""], dtype="S256"),
        "samples/observations": x,
        "samples/weights": weights,
    } | changes
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return x, weights, points


def test_madminer(tmp_path):
    path = tmp_path / "lhe_data.h5"
    x, weights, points = madminer_file(path)
    events = read_events(path)
    np.testing.assert_array_equal(events.x, x)
    np.testing.assert_array_equal(events.require_benchmark_weight(), weights)
    assert events.observable_names == ("pt_j1", "delta_phi")
    benchmarks = events.metadata.benchmarks
    assert benchmarks is not None
    assert benchmarks.names == ("sm", "w", "morphing_basis_2")
    np.testing.assert_array_equal(benchmarks.theta, points)
    # without a word they stand for the first benchmark
    np.testing.assert_array_equal(events.weight, weights[:, 0])
    np.testing.assert_array_equal(events.theta, np.zeros((60, 2)))
    assert events.metadata.sum_of_weights == pytest.approx(weights[:, 0].sum(), rel=1e-12)
    other = read_events(path, weight="weight.morphing_basis_2", selection="pt_j1 > 0")
    np.testing.assert_array_equal(other.weight, weights[x[:, 0] > 0, 2])
    np.testing.assert_array_equal(other.require_theta(), np.tile([0.0, -2.0], (len(other), 1)))
    chunks = open_chunks(path, observables=["pt_j1 - delta_phi"], chunk_events=17)
    np.testing.assert_array_equal(np.concatenate([c.x for c in chunks])[:, 0], x[:, 0] - x[:, 1])
    bare = read_events(path, weight="none")
    assert (bare.weight, bare.theta) == (None, None)


def test_madminer_files_hold_the_whole_cross_section_each(tmp_path):
    for k in range(2):
        madminer_file(tmp_path / f"{k}.h5", seed=k)
    with pytest.raises(EventFileError, match="0.h5: its weights sum to the cross section.*one by"):
        read_events(str(tmp_path / "*.h5"))
    rows = dict(inspect_file(tmp_path / "0.h5").rows())
    assert rows["format"] == "HDF5"
    assert rows["benchmark weights"].startswith("3 (weights); sums 'sm: ")


def test_madminer_samples_of_several_benchmarks_are_put_together(tmp_path):
    sampled = np.repeat([0, 2, -1], 20)
    events = np.array([3000, 0, 1000])
    changes: dict[str, Any] = {
        "samples/sampling_benchmarks": sampled,
        "sample_summary/signal_events_per_benchmark": events,
        "benchmarks/is_nuisance": np.array([0, 1, 0]),
    }
    path = tmp_path / "m.h5"
    x, weights, points = madminer_file(path, **changes)
    share = np.repeat([0.75, 0.25, 1.0], 20)
    events = read_events(path, weight="weight.morphing_basis_2")
    np.testing.assert_array_equal(events.x, x)
    expected = weights[:, [0, 2]] * share[:, None]
    np.testing.assert_allclose(events.require_benchmark_weight(), expected, rtol=1e-15)
    assert events.weight is not None
    np.testing.assert_allclose(events.weight, expected[:, 1], rtol=1e-15)
    benchmarks = events.metadata.benchmarks
    assert benchmarks is not None
    assert benchmarks.names == ("sm", "morphing_basis_2")
    np.testing.assert_array_equal(benchmarks.theta, points[[0, 2]])
    chunks = open_chunks(path, chunk_events=17)
    parts = [chunk.require_benchmark_weight() for chunk in chunks]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-15)
    changes["sample_summary/signal_events_per_benchmark"] = None
    madminer_file(path, **changes)
    with pytest.raises(MetadataError, match="events of 2 samples, but sample_summary"):
        read_events(path)


MADMINER = {
    "no samples": (
        {"samples/observations": None, "samples/weights": None},
        EventFileError,
        "no 'samples/observations', 'samples/weights' in this HDF5 file.*It holds 'benchmarks'",
    ),
    "count of benchmarks": (
        {"samples/weights": np.ones((60, 2))},
        EventFileError,
        r"samples/weights \(60, 2\) do not fit 2 observables and 3 benchmarks",
    ),
    "count of events": (
        {"samples/weights": np.ones((59, 3))},
        EventFileError,
        r"expected \(N, 2\) and \(N, 3\)",
    ),
    "points": (
        {"benchmarks/values": np.ones((3, 1))},
        MetadataError,
        r"benchmarks/values \(3, 1\) do not fit 3 benchmarks and 2 parameters",
    ),
    "names twice": (
        {"benchmarks/names": np.array([b"sm", b"sm", b"w"])},
        MetadataError,
        "every name must be used once",
    ),
    "an observable called like weights": (
        {"observables/names": np.array([b"weights", b"pt"])},
        MetadataError,
        "are named like weights",
    ),
    "not a number": (
        {"samples/observations": np.full((60, 2), np.nan)},
        EventDataError,
        "'pt_j1' holds 60 values that are NaN",
    ),
}


@pytest.mark.parametrize("case", MADMINER.values(), ids=MADMINER)
def test_what_is_wrong_with_madminer(tmp_path, case):
    changes, error, message = case
    madminer_file(tmp_path / "m.h5", **changes)
    with pytest.raises(error, match=message):
        read_events(tmp_path / "m.h5")


def test_truncated_hdf5(tmp_path):
    path = tmp_path / "m.h5"
    madminer_file(path)
    whole = path.read_bytes()
    for cut in (5, 500, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:cut])
        with pytest.raises(EventFileError, match="m.h5: .* cannot be read"):
            read_events(path)


def photons_in(path):
    """Write two photons an event as Parquet, or as an RNTuple."""
    rng = np.random.default_rng(3)
    draws = {
        "Photon_pt": rng.exponential(30, 2 * N),
        "Photon_eta": rng.normal(0, 1, 2 * N),
        "Photon_phi": rng.uniform(-3, 3, 2 * N),
    }
    columns = {k: ak.unflatten(v.astype("f4"), np.full(N, 2)) for k, v in draws.items()}
    if path.suffix == ".root":
        with uproot.recreate(path) as file:
            file.mkrntuple("Events", columns)
    else:
        pq.write_table(
            pa.table({k: ak.to_arrow(v, extensionarray=False) for k, v in columns.items()}), path
        )


@pytest.mark.parametrize("name", ["m.h5", "e.parquet", "e.root"])
def test_damage_never_leaks_an_error_of_another_library(tmp_path, name):
    """Random bytes anywhere: the file is refused by name, or what changed is a number."""
    path, rng, refused = tmp_path / name, np.random.default_rng(5), 0
    (madminer_file if name == "m.h5" else photons_in)(path)
    asked: dict[str, Any] = {} if name == "m.h5" else {"observables": ["(a[0]+a[1]).m"]}
    content = path.read_bytes()
    for attempt in range(80):
        damaged = bytearray(content)
        start = int(rng.integers(4, 1_500 if attempt % 2 else len(content) - 70))
        damaged[start : start + 60] = rng.bytes(60)
        path.write_bytes(bytes(damaged))
        try:
            read_events(path, **asked)
        except MflowSbiError as error:
            assert name in str(error) or "observable" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 20
