"""HepMC3 event files: stable particles and named weights, read by pyhepmc in batches.

Format: arXiv:1912.08005.  Status 1 is a stable particle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyhepmc
from numpy.typing import NDArray

from simulators.chain.jagged import Jagged
from simulators.chain.text_files import ends_of
from simulators.errors import InputFileError

__all__ = ["HepmcBatch", "read_hepmc"]

STABLE = 1
BATCH = 1000


@dataclass(frozen=True)
class HepmcBatch:
    """Some events of a file.

    Attributes:
        rows: Their numbers in the file, (n,).
        particles: Stable particles: px, py, pz, energy in GeV, pid.
        weights: (n, K).
        names: Names of the K weights.
    """

    rows: NDArray[np.int64]
    particles: Jagged
    weights: NDArray[np.float64]
    names: tuple[str, ...]


def read_hepmc(path: Path, batch: int = BATCH) -> Iterator[HepmcBatch]:
    """Read a HepMC file (any version that pyhepmc knows, compressed or not) in batches.

    Raises:
        InputFileError: No such file, not HepMC, truncated, without events, events without stable
            particles, or with other weights than the first event.
    """
    _require_hepmc(path)
    start, names, pending = 0, None, []
    for event in _events(path):
        found = _weight_names(event)
        names = found if names is None else names
        if found != names:
            msg = (
                f"{path}: event {start + len(pending)} has weights {list(found)[:5]}, the first "
                f"has {list(names)[:5]}; expected the same weights in all events"
            )
            raise InputFileError(msg)
        pending.append(_stable(path, start + len(pending), event))
        if len(pending) == batch:
            yield _batch(start, pending, names)
            start, pending = start + batch, []
    if pending:
        yield _batch(start, pending, names or ())
    elif not start:
        msg = f"{path}: no events in the file; expected a HepMC3 event file with events"
        raise InputFileError(msg)


def _require_hepmc(path: Path) -> None:
    """Refuse a file that does not begin and end as a HepMC file (pyhepmc may read on forever)."""
    first, last = ends_of(path, "a HepMC3 event file")
    if not any(line.startswith("HepMC::") for line in first):
        start = first[0][:40] if first else ""
        msg = f"{path} is no HepMC file: it starts with {start!r}, expected HepMC::Version"
        raise InputFileError(msg)
    if not last.endswith("END_EVENT_LISTING"):
        msg = f"{path} is truncated: END_EVENT_LISTING is missing at its end; copy it again"
        raise InputFileError(msg)


def _events(path: Path) -> Iterator[Any]:
    """Events of a file; whatever pyhepmc meets in a damaged one becomes an `InputFileError`."""
    n_read = 0
    try:
        with pyhepmc.open(path) as file:
            for event in file:
                yield event
                n_read += 1
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path}: event {n_read} cannot be read ({reason}); expected a complete HepMC3 file"
        raise InputFileError(msg) from error


def _weight_names(event: Any) -> tuple[str, ...]:  # noqa: ANN401 - a class of C++
    """Names of the weights, or their numbers where the file names none."""
    numbers = tuple(str(i) for i in range(len(event.weights)))
    names = tuple(event.run_info.weight_names) if event.run_info is not None else ()
    return names if len(names) == len(numbers) else numbers


def _stable(path: Path, number: int, event: Any) -> tuple[Any, ...]:  # noqa: ANN401 - of C++
    particles = event.numpy.particles
    stable = np.flatnonzero(particles.status == STABLE)
    if not stable.size:
        msg = f"{path}: event {number} has no stable particle (status 1); expected hadron level"
        raise InputFileError(msg)
    unit = 1e-3 if event.momentum_unit == pyhepmc.Units.MomentumUnit.MEV else 1.0
    four = [getattr(particles, name)[stable] * unit for name in ("px", "py", "pz", "e")]
    if not all(np.isfinite(component).all() for component in four):
        msg = f"{path}: event {number} has momenta that are not finite; make the events again"
        raise InputFileError(msg)
    return *four, particles.pid[stable].astype(np.int32), np.array(event.weights)


def _batch(start: int, pending: list[tuple[Any, ...]], names: tuple[str, ...]) -> HepmcBatch:
    *columns, weights = (list(column) for column in zip(*pending, strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(pid) for pid in columns[-1]])])
    keys = ("px", "py", "pz", "energy", "pid")
    flat = {key: np.concatenate(column) for key, column in zip(keys, columns, strict=True)}
    table = np.array(weights, dtype=np.float64).reshape(len(pending), len(names))
    return HepmcBatch(np.arange(start, start + len(pending)), Jagged(offsets, flat), table, names)
