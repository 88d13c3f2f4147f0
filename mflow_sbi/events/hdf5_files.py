"""The door to MadMiner's event files (HDF5, arXiv:1907.10621), read by h5py.

    parameters/names, ranges            the p parameters
    benchmarks/names, values            B points theta_b, (B, p)
    observables/names                   the n observables
    samples/observations                x, (N, n)
    samples/weights                     w_ib, pb: event i, had it been generated at theta_b, (N, B)
    benchmarks/is_nuisance              benchmarks of systematic uncertainties: left out here
    samples/sampling_benchmarks         s_i: where event i was generated, -1 for backgrounds, (N,)
    sample_summary/signal_events_per_benchmark       E_s: events generated at each, before cuts

Events of one s have weights that sum to the cross section, so that those of all of them together
are w_ib E_s / sum E, as in MadMiner's own `weighted_events`. These are the branches "weight.NAME",
one for each benchmark, and all of them together the branch "weights". Events of such a file are
draws of no theta: they stand for theta_b with the weights w_b, and without weights for nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np

from mflow_sbi.errors import EventFileError, MetadataError
from mflow_sbi.events.columns import EventFile, EventTree, damage_named
from mflow_sbi.events.metadata import Benchmarks, EventMetadata, Parameter
from mflow_sbi.events.observables import Observable
from mflow_sbi.events.wording import listed

__all__ = ["BENCHMARK_WEIGHT", "open_hdf5"]

BENCHMARK_WEIGHT = "weight."
_ALL_WEIGHTS = "weights"
_NEEDED = (
    "parameters/names",
    "benchmarks/names",
    "benchmarks/values",
    "observables/names",
    "samples/observations",
    "samples/weights",
)


@contextmanager
def open_hdf5(path: Path) -> Iterator[EventFile]:
    """Open MadMiner's HDF5 file for reading, as a context.

    Raises:
        EventFileError: Truncated or damaged, or not an event file of MadMiner.
    """
    with damage_named(path, "its directory"):
        file: Any = h5py.File(path, "r")
    with file:
        with damage_named(path, "its directory"):
            _require_madminer(path, file)
            n_entries = _n_entries(path, file)
        yield EventFile(
            path,
            kind="HDF5",
            trees={"samples": n_entries},
            read_record=lambda: _record(path, file, n_entries),
            open_tree=lambda _: _tree(path, file, n_entries),
            named=False,
            alone=True,
        )


def _require_madminer(path: Path, file: Any) -> None:  # noqa: ANN401
    missing = [name for name in _NEEDED if name not in file]
    if missing:
        groups: list[str] = []
        file.visit(groups.append)
        msg = (
            f"{path}: no {listed(missing)} in this HDF5 file; expected an event file of "
            f"MadMiner (after the analysis of its samples). It holds {listed(groups)}."
        )
        raise EventFileError(msg)


def _n_entries(path: Path, file: Any) -> int:  # noqa: ANN401
    x, weights = file["samples/observations"].shape, file["samples/weights"].shape
    n, n_benchmarks = len(file["observables/names"]), len(file["benchmarks/names"])
    if len(x) != 2 or x[1] != n or weights != (x[0], n_benchmarks):
        msg = (
            f"{path}: samples/observations {x} and samples/weights {weights} do not fit "
            f"{n} observables and {n_benchmarks} benchmarks; expected (N, {n}) and "
            f"(N, {n_benchmarks}). Run MadMiner's analysis again."
        )
        raise EventFileError(msg)
    return int(x[0])


def _words(dataset: Any) -> list[str]:  # noqa: ANN401
    return [word.decode() if isinstance(word, bytes) else str(word) for word in dataset[()]]


def _physical(file: Any) -> list[int]:  # noqa: ANN401
    """Return the numbers of the benchmarks that are points of the parameters."""
    n = len(file["benchmarks/names"])
    if "benchmarks/is_nuisance" not in file:
        return list(range(n))
    return np.flatnonzero(np.asarray(file["benchmarks/is_nuisance"][()]) == 0).tolist()


def _shares(path: Path, file: Any) -> np.ndarray | None:  # noqa: ANN401
    """Return E_s / sum E of every sample s, and 1 for s = -1; None where there is one sample.

    Raises:
        MetadataError: Several samples, and no word on how many events each of them had.
    """
    if "samples/sampling_benchmarks" not in file:
        return None
    with damage_named(path, "its samples"):
        samples = np.unique(file["samples/sampling_benchmarks"][()])
        name = "sample_summary/signal_events_per_benchmark"
        events = np.asarray(file[name][()] if name in file else [], dtype=np.float64)
    signals = samples[samples >= 0]
    if len(signals) <= 1:
        return None
    if signals.max() >= len(events) or not (events[signals] > 0).all():
        msg = (
            f"{path}: events of {len(signals)} samples, but {name} is {events.tolist()}; expected "
            "the number of events of each: without it their weights cannot be put together. "
            "Run MadMiner's analysis again."
        )
        raise MetadataError(msg)
    return np.append(events / events.sum(), 1.0)


def _record(path: Path, file: Any, n_entries: int) -> EventMetadata:  # noqa: ANN401
    with damage_named(path, "its record"):
        names = _words(file["parameters/names"])
        points = np.asarray(file["benchmarks/values"][()], dtype=np.float64)
        labels, physical = _words(file["benchmarks/names"]), _physical(file)
        observables = _words(file["observables/names"])
        ranges = file["parameters/ranges"][()] if "parameters/ranges" in file else None
    if points.shape != (len(labels), len(names)):
        msg = (
            f"{path}: benchmarks/values {points.shape} do not fit {len(labels)} benchmarks and "
            f"{len(names)} parameters; run MadMiner's setup again."
        )
        raise MetadataError(msg)
    labels, points = [labels[k] for k in physical], points[physical]
    known = ranges is not None and np.shape(ranges) == (len(names), 2)
    limits = (
        np.asarray(ranges, dtype=np.float64).tolist() if known else [(None, None)] * len(names)
    )
    return EventMetadata(
        process="unknown",
        tree="samples",
        layout="flat",
        parameters=tuple(
            Parameter(name, low=low, high=high)
            for name, (low, high) in zip(names, limits, strict=True)
        ),
        observables=tuple(map(Observable, observables)),
        n_events=n_entries,
        benchmarks=Benchmarks(_ALL_WEIGHTS, tuple(labels), tuple(map(tuple, points.tolist()))),
    )


def _tree(path: Path, file: Any, n_entries: int) -> EventTree:  # noqa: ANN401
    columns = {name: k for k, name in enumerate(_words(file["observables/names"]))}
    labels, physical = _words(file["benchmarks/names"]), _physical(file)
    weights = {BENCHMARK_WEIGHT + labels[k]: k for k in physical}
    shares = _shares(path, file)
    clash = sorted(set(columns) & {*weights, _ALL_WEIGHTS})
    if clash:
        msg = f"{path}: observables {listed(clash)} are named like weights; rename them."
        raise MetadataError(msg)
    blocks: dict[str, tuple[tuple[int, int], np.ndarray]] = {}

    def block(dataset: str, start: int, stop: int) -> np.ndarray:
        """Return rows of a dataset, which hold all columns: the last ones asked for are kept."""
        if dataset not in blocks or blocks[dataset][0] != (start, stop):
            blocks[dataset] = (start, stop), file[dataset][start:stop]
        return blocks[dataset][1]

    def read(branch: str, start: int, stop: int) -> ak.Array:
        if branch in columns:
            return ak.Array(block("samples/observations", start, stop)[:, columns[branch]])
        rows = block("samples/weights", start, stop)
        if shares is not None:
            rows = rows * shares[block("samples/sampling_benchmarks", start, stop)][:, None]
        if branch == _ALL_WEIGHTS:
            return ak.from_regular(ak.Array(rows[:, physical]))
        return ak.Array(rows[:, weights[branch]])

    return EventTree(path, "samples", n_entries, (*columns, *weights, _ALL_WEIGHTS), read)
