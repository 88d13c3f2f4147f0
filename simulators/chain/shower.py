"""From an LHE file to stable particles: parton shower, hadronisation and decays by Pythia 8.

Source: Pythia 8.3 (arXiv:2203.11601).  Particles leave Pythia in batches of events
(`Pythia.nextBatch`), as arrays: no loop over particles, and one over batches.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pythia8mc
from numpy.typing import NDArray

from simulators.chain.jagged import Jagged
from simulators.errors import ChainError

__all__ = ["BATCH", "Shower", "batches_of", "prepared_pythia", "pythia_seed", "stable_particles"]

BATCH = 1000
"""Events that leave Pythia at a time; a batch of them takes about 50 MB."""

TELLING = 5
"""Pythia gives up an event in a thousand by chance; so many and no other have a cause."""

SEED_MAX = 900_000_000
"""Largest seed that Pythia takes."""


@dataclass(frozen=True)
class Shower:
    """Settings of Pythia.

    Attributes:
        seed: Of its random numbers, 1 to 900,000,000.
        multiparton_interactions: Whether the rest of the protons interacts, too.
        commands: More settings, as Pythia reads them: "25:onMode = off" ...
    """

    seed: int
    multiparton_interactions: bool = False
    commands: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All settings, in order."""
        switch = "on" if self.multiparton_interactions else "off"
        return (
            "Print:quiet = on",
            "SLHA:verbose = 0",
            "Random:setSeed = on",
            f"Random:seed = {self.seed}",
            f"PartonLevel:MPI = {switch}",
            *self.commands,
        )


def pythia_seed(seeds: np.random.SeedSequence) -> int:
    """A seed of Pythia, 1 to `SEED_MAX`."""
    return int(seeds.generate_state(1)[0]) % SEED_MAX + 1


def prepared_pythia(path: Path, shower: Shower) -> Any:  # noqa: ANN401 - a class of C++
    """Pythia, initialised to read the events of an uncompressed LHE file.

    Raises:
        ChainError: Pythia does not know a setting, or does not start.
    """
    pythia = pythia8mc.Pythia("", False)  # noqa: FBT003 - its own signature: no banner
    for line in (*shower.lines, "Beams:frameType = 4", f"Beams:LHEF = {os.fspath(path)}"):
        if not pythia.readString(line, False):  # noqa: FBT003 - no warning of its own
            msg = f"Pythia does not know the setting {line!r}; see its manual for the spelling"
            raise ChainError(msg)
    if not pythia.init():
        msg = (
            f"Pythia could not start on the events of {path.name}; are they of a hadron collider?"
        )
        raise ChainError(msg)
    return pythia


def stable_particles(
    path: Path, n_events: int, shower: Shower, batch: int = BATCH
) -> Iterator[tuple[NDArray[np.int64], Jagged]]:
    """Stable particles of the events of an LHE file, batch by batch.

    Args:
        path: An uncompressed LHE file whose events Pythia accepts as they are
            (|weighting strategy| 3 or 4).
        n_events: Events in it.
        shower: Settings.
        batch: Events at a time.

    Yields:
        Numbers of the events in the file, without those that Pythia gave up, and their particles:
        px, py, pz, energy in GeV and pid.

    Raises:
        ChainError: Pythia does not know a setting, does not start, or gives up a whole batch of
            `TELLING` events or more.
    """
    yield from batches_of(prepared_pythia(path, shower), n_events, batch)


def batches_of(
    pythia: Any,  # noqa: ANN401 - a class of C++
    n_events: int,
    batch: int = BATCH,
) -> Iterator[tuple[NDArray[np.int64], Jagged]]:
    """`stable_particles` of a Pythia that has been prepared."""
    n_made = 0
    for start in range(0, n_events, batch):
        wanted = min(batch, n_events - start)
        rows, particles = _stable(pythia.nextBatch(wanted, "none"))
        n_made += rows.size
        if not rows.size and (wanted >= TELLING or not n_made):
            msg = (
                f"Pythia made none of the events {start} to {start + wanted - 1}; "
                "is the colour flow of their partons complete?"
            )
            raise ChainError(msg)
        if rows.size:
            yield start + rows, particles


def _stable(events: Any) -> tuple[NDArray[np.int64], Jagged]:  # noqa: ANN401 - an awkward array
    """Places of the events made, and their particles with positive status."""
    layout = events.layout
    made = layout.mask_as_bool(valid_when=True)
    if not made.any():
        return np.flatnonzero(made), Jagged(np.zeros(1, dtype=np.int64), {})
    lists = layout.content["prt"]
    if len(lists) != np.count_nonzero(made):
        msg = f"Pythia returned {len(lists)} events where it announced {np.count_nonzero(made)}"
        raise ChainError(msg)
    record = lists.content
    stable = np.flatnonzero(record["status"].data > 0)
    momentum = record["p"]
    columns = {
        "px": momentum["px"].data[stable],
        "py": momentum["py"].data[stable],
        "pz": momentum["pz"].data[stable],
        "energy": momentum["e"].data[stable],
        "pid": record["id"].data[stable],
    }
    return np.flatnonzero(made), Jagged(np.searchsorted(stable, lists.offsets.data), columns)
