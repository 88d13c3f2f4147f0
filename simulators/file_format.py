"""The event file: a TTree `Delphes` and a JSON record, written beside its name and then renamed.

Branches (GeV, radians): jagged float32 `Photon.PT Photon.Eta Photon.Phi Photon.E`,
`Jet.PT Jet.Eta Jet.Phi Jet.Mass` and `Event.Weight`, jagged float64 `Weight.Weight` (morphing
components), with counters `Photon_size` ...; flat float64 `theta.<parameter>` and
`score.<parameter>`; detected events have leptons and `MissingET`, too (`chain.event_file`).
The TObjString `mflow_sbi` holds the metadata.  Two files of the same events have equal arrays,
metadata and UUID; the bytes differ by the time stamps that ROOT keeps in every key.
"""

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from simulators.errors import OutputError

__all__ = ["FORMAT", "FORMAT_VERSION", "TREE", "EventTable", "Table", "write_event_file"]

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

FORMAT = "mflow_sbi.events"
FORMAT_VERSION = 1
TREE = "Delphes"
RECORD = "mflow_sbi"
ROWS_PER_BASKET = 20_000


class Table(Protocol):
    """Events that know their branches: lists of records, or one number per event."""

    def __len__(self) -> int: ...

    def branches(self, start: int, stop: int) -> dict[str, Any]:
        """Events start:stop by name: awkward lists of records, or flat numpy arrays."""
        ...


@dataclass(frozen=True)
class EventTable:
    """Events of two jets and two photons each: columns of an event file.

    Attributes:
        jets: (N, n_jets, 4) as (pT, eta, phi, mass), leading pT first.
        photons: (N, n_photons, 4) as (pT, eta, phi, E), leading pT first.
        weight: (N,), 1 for unweighted events.
        components: Morphing components (N, K).
        theta: Parameter name -> (N,).
        score: Parameter name -> (N,).
    """

    jets: Array32
    photons: Array32
    weight: Array32
    components: Array
    theta: Mapping[str, Array] = field(default_factory=dict)
    score: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weight)

    def branches(self, start: int, stop: int) -> dict[str, Any]:
        """Events start:stop, by branch."""
        rows = slice(start, stop)
        columns: dict[str, Any] = {
            "Photon": _jagged(self.photons[rows], ("PT", "Eta", "Phi", "E")),
            "Jet": _jagged(self.jets[rows], ("PT", "Eta", "Phi", "Mass")),
            "Event": _jagged(self.weight[rows, None, None], ("Weight",)),
            "Weight": _jagged(self.components[rows, :, None], ("Weight",)),
        }
        columns |= {f"theta.{name}": values[rows] for name, values in self.theta.items()}
        columns |= {f"score.{name}": values[rows] for name, values in self.score.items()}
        return columns


def write_event_file(path: Path, table: Table, metadata: Mapping[str, Any]) -> None:
    """Write `table` and its metadata to `path`, which appears only when complete.

    Args:
        path: The ROOT file; replaced if it exists.
        table: The events.
        metadata: JSON-able record; `format`, `format_version` and `tree` are added.

    Raises:
        OutputError: The folder does not exist or cannot be written to.
    """
    record = json.dumps(
        {"format": FORMAT, "format_version": FORMAT_VERSION, "tree": TREE, **metadata}
    )
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        msg = f"cannot write into {path.parent}: {error.strerror}; choose another folder"
        raise OutputError(msg) from error
    os.close(handle)
    partial = Path(name)
    try:
        _write(partial, table, record)
        partial.chmod(0o644)
        try:
            partial.replace(path)
        except OSError as error:
            msg = f"cannot write {path}: {error.strerror}; choose a file name"
            raise OutputError(msg) from error
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, table: Table, record: str) -> None:
    identity = uuid.UUID(bytes=hashlib.sha256(record.encode()).digest()[:16])
    with uproot.recreate(path, uuid_function=lambda: identity) as file:
        first = table.branches(0, min(ROWS_PER_BASKET, len(table)))
        tree = file.mktree(
            TREE,
            {name: _branch_type(column) for name, column in first.items()},
            counter_name=lambda counted: counted + "_size",
            field_name=lambda outer, inner: outer + "." + inner,
        )
        for start in range(0, len(table), ROWS_PER_BASKET):
            tree.extend(table.branches(start, min(start + ROWS_PER_BASKET, len(table))))
        file[RECORD] = record


def _branch_type(column: Any) -> Any:  # noqa: ANN401 - numpy or awkward, whichever uproot takes
    return column.dtype if isinstance(column, np.ndarray) else column.type.content


def _jagged(objects: NDArray[Any], names: tuple[str, ...]) -> ak.Array:
    """(N, n, len(names)) -> N lists of n records."""
    counts = np.full(objects.shape[0], objects.shape[1])
    return ak.zip(
        {
            name: ak.unflatten(np.ascontiguousarray(objects[..., column]).ravel(), counts)
            for column, name in enumerate(names)
        }
    )
